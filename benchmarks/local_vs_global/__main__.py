"""The commands; see the package's docstring and `--help`."""

import argparse
import hashlib
import json
import logging
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from benchmarks.local_vs_global import costs, measuring, page, shipped, training

from glunet.errors import GlunetError
from glunet.flow.files import writing
from glunet.inference.speed import bfloat16_pays
from glunet.loading import find as find_weights
from glunet.loading import pick_device, read_weights
from glunet.network.glunet import GLUNet
from glunet.training.photographs import Photographs, find
from glunet.training.state import stop_requests

PARTS = ("costs", "networks", "shipped", "train", "page")
AS_THEY_ARE = 2048  # short side of photographs in large images, where training keeps them at 400
RESULTS, PAGE = Path("benchmarks/results/local_vs_global"), Path("docs/local-and-global.md")


def parser() -> argparse.ArgumentParser:
    """The options of all parts."""
    options = argparse.ArgumentParser(prog="python -m benchmarks.local_vs_global", description=__doc__)
    options.add_argument("parts", nargs="*", help=f"of {', '.join(PARTS)}; all of them by default")
    options.add_argument("--photos", nargs="+", type=Path, help="photographs to learn from")
    options.add_argument("--validation", nargs="+", type=Path, help="photographs to measure on; not learned from")
    options.add_argument("--out", type=Path, help="folder of the runs; a run goes on from what it holds")
    options.add_argument("--pairs", type=int, default=page.PAIRS, help="that each network learns from")
    options.add_argument("--seeds", type=int, default=page.SEEDS)
    options.add_argument("--minutes", type=float, help="stop, and keep all, after so long; the same command goes on")
    options.add_argument("--batch", type=int, default=16)
    options.add_argument("--networks", nargs="+", default=list(training.NETWORKS), choices=list(training.NETWORKS))
    options.add_argument("--measure-pairs", type=int, default=256, help="at 256, for errors by displacement")
    options.add_argument("--measure-scenes", type=int, default=24, help="at each size, for errors by resolution")
    options.add_argument("--weights", default="glunet", help="that `shipped` takes apart")
    options.add_argument("--results", type=Path, default=RESULTS, help="raw numbers, to be committed")
    options.add_argument("--page", type=Path, default=PAGE)
    options.add_argument("--device")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Run the parts asked for, in the order given."""
    given = parser().parse_args(arguments)
    unknown = [part for part in given.parts if part not in PARTS]
    if unknown:
        raise SystemExit(f"no part '{unknown[0]}'; there are {', '.join(PARTS)}")
    parts = given.parts or PARTS
    if "train" in parts and (not given.photos or given.out is None):
        raise SystemExit(
            "to train, --photos and --out are needed (and --validation, or one photograph in 20 is held back)"
        )
    if "shipped" in parts and not given.validation:
        raise SystemExit("--validation names the photographs to measure the shipped weights on")
    device = pick_device(given.device)
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    for part in parts:
        if not globals()[f"_{part}"](given, device):
            break


def _costs(given: argparse.Namespace, device: torch.device) -> bool:
    found = costs.correlations(device)
    _keep(given.results / "costs.json", found | {"machine": costs.machine(device)})
    for name in ("global", "local"):
        powers = [costs.exponent(found["grids"], found[name][what], 32)[0] for what in ("seconds", "bytes")]
        print(
            f"{name}: seconds grow as side^{powers[0]:.2f}, bytes of the result of its result as side^{powers[1]:.2f}",
            flush=True,
        )
    return True


def _networks(given: argparse.Namespace, device: torch.device) -> bool:
    rows = costs.networks(device)
    print(costs.table(rows), flush=True)
    _keep(given.results / "networks.json", {"rows": rows, "machine": costs.machine(device)})
    return True


def _shipped(given: argparse.Namespace, device: torch.device) -> bool:
    began = time.monotonic()
    network: GLUNet = read_weights(given.weights)[0].to(device).eval()
    photographs = Photographs(find(given.validation), short_side=AS_THEY_ARE)
    aepe = shipped.ablation(network, photographs, given.measure_scenes)
    print(shipped.table(aepe), flush=True)
    _keep(
        given.results / "shipped.json",
        {
            "aepe": aepe, "scenes": given.measure_scenes, "weights": Path(given.weights).stem,
            "sha256": hashlib.sha256(find_weights(given.weights).read_bytes()).hexdigest(),
            "minutes": (time.monotonic() - began) / 60, "machine": costs.machine(device),
        },
    )  # fmt: skip
    return True


def _train(given: argparse.Namespace, device: torch.device) -> bool:
    """All seeds that have no results yet; false where it was stopped before the end."""
    plan = training.Plan(given.pairs, given.batch, networks=tuple(given.networks))
    plan = replace(plan, bf16=bfloat16_pays(device))
    photographs = Photographs(find(given.photos))
    held_back = Photographs(find(given.validation)) if given.validation else None
    if held_back is None:
        held_back = Photographs(photographs.places[::20])
        photographs = Photographs([p for i, p in enumerate(photographs.places) if i % 20])
    began = time.monotonic()
    with stop_requests() as asked:

        def stopped() -> bool:
            return asked() or (given.minutes is not None and time.monotonic() - began > 60 * given.minutes)

        for seed in range(given.seeds):
            if not _train_one(seed, plan, photographs, held_back, given, device, stopped):
                print(f"stopped; {given.out} has all so far: the same command goes on", flush=True)
                return False
    return True


def _train_one(
    seed: int, plan: training.Plan, photographs: Photographs, held_back: Photographs, given: argparse.Namespace,
    device: torch.device, stopped: Callable[[], bool],
) -> bool:  # fmt: skip
    """Train and measure one seed, unless its results are there; whether they are there now."""
    path = given.results / f"seed{seed}.json"
    if path.exists() and json.loads(path.read_text())["plan"]["pairs"] >= plan.pairs:
        print(f"seed {seed}: {path} is there", flush=True)
        return True
    if stopped():
        return False

    def say(line: str) -> None:
        print(line, flush=True)

    folder = given.out / f"seed{seed}-{plan.pairs}"
    trained = training.train_seed(seed, photographs, folder, plan, device, stopped, say=say)
    if trained is None:
        return False
    networks, numbers = trained
    began = time.monotonic()
    numbers["displacement"] = measuring.by_displacement(networks, held_back, given.measure_pairs, plan.bf16)
    say(f"seed {seed}: measured by displacement")
    whole = Photographs(held_back.places, short_side=AS_THEY_ARE)
    numbers["resolution"] = measuring.by_resolution(networks, whole, given.measure_scenes, plan.bf16)
    numbers["measuring"] = {
        "pairs": given.measure_pairs, "scenes": given.measure_scenes, "edges": measuring.EDGES[:-1],
        "minutes": (time.monotonic() - began) / 60, "photographs": len(held_back),
    }  # fmt: skip
    _keep(path, numbers | {"machine": costs.machine(device)})
    return True


def _page(given: argparse.Namespace, device: torch.device) -> bool:
    for path in page.write_page(given.page, given.results):
        print(path, flush=True)
    return True


def _keep(path: Path, numbers: dict[str, Any]) -> None:
    """Raw numbers as JSON, a line a key, with the day."""
    path.parent.mkdir(parents=True, exist_ok=True)
    numbers = numbers | {"day": time.strftime("%Y-%m-%d")}
    lines = [f"{json.dumps(key)}: {json.dumps(value, allow_nan=False)}" for key, value in numbers.items()]
    with writing(path) as part:
        part.write_text("{\n" + ",\n".join(lines) + "\n}\n", encoding="utf-8")
    print(path, flush=True)


if __name__ == "__main__":
    try:
        main()
    except GlunetError as error:
        raise SystemExit(f"local_vs_global: {error}") from error
