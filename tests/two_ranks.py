"""What torchrun starts in test_distributed.py: one process of two, which tells what it did in OUT/RANK.pt.

two_ranks.py OUT         a run of three steps, as library code starts it; and one that rank 0 stops, and goes on
two_ranks.py OUT PHOTOS  `glunet train`, bounded by an hour; rank 1 has another clock, and is asked to stop in step 3
"""

import dataclasses
import os
import signal
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch

from glunet.cli import app
from glunet.training import loop, pool, recipes
from glunet.training.ranks import join
from glunet.training.recipes import Settings, Stage
from narrow import Noise, narrow_network

RANK = int(os.environ.get("RANK", "0"))
STAGES = (
    Stage("global", 0.5, (4,), batch=2, refresh=0.5),
    Stage("all", 1.0, (4, 3, 2, 1), batch=2, refresh=0.5, extra=0.5),
)
# BatchNorm's statistics stay as they are, so that what is saved first is what is validated.
SETTINGS = Settings(
    steps=3, stages=STAGES, warmup=2, validation_pairs=6, pool_memory=1 << 23, bf16=False, freeze_norms=True, clip=1e9
)
told: dict[str, Any] = {"scenes": [], "steps": 0}


def listen() -> None:
    """Note which scenes are made, the gradients of the first step, and the weights after the last."""
    start, make_views, average, step_loss = loop._start, pool.make_views, loop.average, loop.step_loss

    def started(*args: Any) -> Any:
        told["network"] = start(*args)
        return told["network"]

    def made(*args: Any, **options: Any) -> Any:
        told["scenes"].append(args[4])
        return make_views(*args, **options)

    def averaged(ours: Any, network: Any, decay: float) -> None:
        grads = {n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None}
        told.setdefault("gradients", grads)
        average(ours, network, decay)

    def step(*args: Any) -> Any:
        told["steps"] += 1
        if told["steps"] == told.get("stop at") and len(sys.argv) - 2 == RANK:
            os.kill(os.getpid(), signal.SIGTERM)
        return step_loss(*args)

    loop._start, pool.make_views, loop.average, loop.step_loss = started, made, averaged, step


def main() -> None:
    out = Path(sys.argv[1])
    narrow_network()
    listen()
    if len(sys.argv) == 2:
        ranks = join("cpu")
        told["numbers"] = loop.train(Noise(), Noise(4), out / "run", SETTINGS, ranks=ranks)
        whole = told | {"network": told["network"].state_dict(), "scenes": list(told["scenes"])}
        told["stop at"] = 5
        loop.train(Noise(), Noise(4), out / "parts", SETTINGS, ranks=ranks)
        whole["stopped"] = told["steps"] - 3
        whole["again"] = loop.train(Noise(), Noise(4), out / "parts", SETTINGS, ranks=ranks)
        torch.save(whole, out / f"{RANK}.pt")
    else:
        told["stop at"] = 3
        recipes.RECIPES["full"] = dataclasses.replace(SETTINGS, steps=None, minutes=60)
        if RANK == 1:
            loop.time = SimpleNamespace(monotonic=lambda: 1e6 + 1e3 * time.monotonic())
        app(
            ["train", sys.argv[2], "--out", str(out / "run"), "--minutes", "60", "--device", "cpu"],
            standalone_mode=False,
        )
        told["network"] = told["network"].state_dict()
        torch.save(told, out / f"{RANK}.pt")


if __name__ == "__main__":
    main()
