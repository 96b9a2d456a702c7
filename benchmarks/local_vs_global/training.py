"""All networks of the comparison learn from the very same batches of one pool: equal encoder passes by construction."""

import copy
import json
import logging
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from glunet.flow.files import writing
from glunet.loading import encoder_state, network_state, read_network, save_weights
from glunet.network.family import Config, Network, build, configure
from glunet.training.averaging import average, estimate_statistics, train_mode
from glunet.training.loop import schedule
from glunet.training.loss import level_error, truths
from glunet.training.photographs import Photographs
from glunet.training.pool import Batch, Pool, encoder_alone
from glunet.training.ranks import Alone
from glunet.training.recipes import LEVELS, Settings, Stage
from glunet.training.scenes import SceneParameters
from glunet.training.state import read_state, write_state
from glunet.training.validation import predict

log = logging.getLogger(__name__)

# The same blocks for all, of the smaller kind (SPEC 11.5), and learned upsampling, as the paper's networks have it.
BLOCKS: dict[str, Any] = {"decoder": "residual", "mapping_decoder": "residual"}
NETWORKS: dict[str, Config] = {
    "local-net": configure("local-net", **BLOCKS),
    "global-net": configure("global-net", **BLOCKS),
    "glocal-net": configure("glocal-net", **BLOCKS),
    "glunet": configure("glunet", **BLOCKS),
    "glunet-without-mutual": configure("glunet", mutual=False, **BLOCKS),
}


@dataclass(frozen=True)
class Plan:
    """What each network learns from. `refresh`: batches of 16 new views encoded a step (`recipes.Stage`)."""

    pairs: int = 20_000
    batch: int = 16
    refresh: float = 0.25
    lr: float = 1e-3
    ema: float = 0.998
    pool_memory: int = 1 << 30
    bf16: bool = True
    scenes: SceneParameters = field(default_factory=SceneParameters)
    networks: tuple[str, ...] = tuple(NETWORKS)

    @property
    def steps(self) -> int:
        """Of a whole run; schedule and warm-up fit it."""
        return -(-self.pairs // self.batch)

    @property
    def settings(self) -> Settings:
        """As the training loop's own parts take them."""
        steps = self.steps
        return Settings(steps=steps, lr=self.lr, warmup=300, bf16=self.bf16, norm_batches=min(48, steps))


@dataclass
class Learner:
    """One network of the comparison.

    Attributes:
        seconds: of its steps so far, without the encoder's passes, which serve all.
        losses: mean end-point error of its finest level, pixels of 256, every twenty steps.
    """

    network: Network
    averaged: Network
    optimiser: torch.optim.Optimizer
    seconds: float = 0.0
    losses: tuple[float, ...] = ()


def train_seed(
    seed: int,
    photographs: Photographs,
    folder: Path,
    plan: Plan,
    device: torch.device,
    stopped: Callable[[], bool] = lambda: False,
    every: float = 10.0,
    say: Callable[[str], None] = lambda line: None,
) -> tuple[dict[str, Network], dict[str, Any]] | None:
    """Train all networks with one seed, or go on where `folder` stopped.

    Args:
        folder: for `state.pt`, from which it goes on exactly, and a float16 file of each network's weights, which is
            enough to go on from without the state (the optimisers then begin afresh).
        stopped: asked after each step.
        every: minutes between checkpoints.

    Returns:
        the averaged networks, and raw numbers of the training; None where it was stopped before the end.
    """
    folder.mkdir(parents=True, exist_ok=True)
    done = folder / "training.json"
    if done.exists():  # trained, but stopped while it was measured
        files = {name: folder / f"{name}.safetensors" for name in plan.networks}
        return {name: read_network(path)[0].to(device).eval() for name, path in files.items()}, json.loads(
            done.read_text(encoding="utf-8")
        )
    learners = {name: _learner(NETWORKS[name], seed, plan, device) for name in plan.networks}
    step, elapsed, made, due = _restore(folder, learners, device)
    encoder = encoder_alone(next(iter(learners.values())).network.encoder, torch.bfloat16 if plan.bf16 else torch.float)
    pool = Pool(
        encoder, photographs, plan.scenes, memory=plan.pool_memory, seed=seed + (7919 + 104729) * 256, made=made
    )
    pool.due = due
    began, saved = time.monotonic() - elapsed, time.monotonic()
    while step < plan.steps:
        pool.due += plan.refresh
        while pool.due >= 1 or (len(pool) < 2 * plan.batch and not pool.full):
            pool.refresh()
            pool.due = max(0.0, pool.due - 1)
        _step(learners, pool.batch(plan.batch, step), step, plan)
        step += 1
        if step % 20 == 0:
            minutes = (time.monotonic() - began) / 60
            errors = ", ".join(f"{name} {learner.losses[-1]:.1f}" for name, learner in learners.items())
            left = minutes * (plan.steps - step) / step
            say(f"seed {seed}, step {step} of {plan.steps}, {minutes:.1f} min, about {left:.0f} to go: {errors}")
        stop = stopped() and step < plan.steps
        if stop or time.monotonic() - saved > 60 * every:
            _save(folder, learners, seed, step, time.monotonic() - began, pool)
            saved = time.monotonic()
        if stop:
            return None
    elapsed = time.monotonic() - began
    finished = {}
    for name, learner in learners.items():
        stage = Stage("all", 1.0, LEVELS[learner.network.config.network], plan.batch, plan.refresh)
        settings, alone = plan.settings, Alone(device)
        estimate_statistics(learner.averaged, learner.network, [pool], stage, step, settings, alone)
        finished[name] = learner.averaged.eval()
        _write(folder / f"{name}.safetensors", learner.averaged, seed, step)
    numbers = {
        "seed": seed,
        "plan": asdict(plan) | {"steps": plan.steps},
        "minutes": elapsed / 60,
        "encoder passes": 16 * pool.made,
        "networks": {name: {"seconds": one.seconds, "errors": one.losses} for name, one in learners.items()},
    }
    with writing(done) as part:
        part.write_text(json.dumps(numbers), encoding="utf-8")
    (folder / "state.pt").unlink(missing_ok=True)
    return finished, numbers


def _learner(config: Config, seed: int, plan: Plan, device: torch.device) -> Learner:
    torch.manual_seed(seed)
    network = build(config)
    network.load_state_dict(network_state(network) | encoder_state())
    network = network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.encoder.requires_grad_(False)
    trained = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.AdamW(trained, lr=plan.lr, weight_decay=1e-4)
    return Learner(network, copy.deepcopy(network).eval(), optimiser)


def _step(learners: dict[str, Learner], batch: Batch, step: int, plan: Plan) -> None:
    """One step of every network on one batch; the truth is computed once for all."""
    grids = [(16, 16), (32, 32), (64, 64)]  # at a frame of 256 every network's levels are among them
    known = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, grids)
    true = dict(zip(grids, known, strict=True))
    for learner in learners.values():
        began = time.perf_counter()
        network = learner.network
        train_mode(network, freeze_norms=False)
        for group in learner.optimiser.param_groups:
            group["lr"] = plan.lr * schedule(step, step / plan.steps, plan.settings)
        with torch.autocast(batch.scenes.plane.device.type, dtype=torch.bfloat16, enabled=plan.bf16):
            flows = predict(network, *batch.features(network), LEVELS[network.config.network]).levels
        errors = [level_error(flow, true[flow.shape[-2], flow.shape[-1]]) for flow in flows]
        value = torch.stack(errors).sum() + errors[-1]  # the finest twice, whatever the number of levels
        learner.optimiser.zero_grad(set_to_none=True)
        value.backward()
        norm = nn.utils.clip_grad_norm_([p for p in network.parameters() if p.grad is not None], 1.0)
        if torch.isfinite(norm):
            learner.optimiser.step()
            average(learner.averaged, network, min(plan.ema, (1 + step) / (10 + step)))
        else:
            log.warning("step %d of %s: the gradient is not finite; skipped", step, network.config.network)
        learner.seconds += time.perf_counter() - began
        if (step + 1) % 20 == 0:
            learner.losses += (round(float(errors[-1].detach()), 3),)


def _save(folder: Path, learners: dict[str, Learner], seed: int, step: int, elapsed: float, pool: Pool) -> None:
    state: dict[str, Any] = {"step": step, "elapsed": elapsed, "made": pool.made, "due": pool.due, "learners": {}}
    for name, learner in learners.items():
        state["learners"][name] = {
            "network": network_state(learner.network), "averaged": network_state(learner.averaged),
            "optimiser": learner.optimiser.state_dict(), "seconds": learner.seconds, "losses": list(learner.losses),
        }  # fmt: skip
    write_state(folder / "state.pt", state)
    for name, learner in learners.items():
        _write(folder / f"{name}.safetensors", learner.network, seed, step)


def _write(path: Path, network: Network, seed: int, step: int) -> None:
    save_weights(path, network_state(network), network.config, {"comparison": {"seed": seed, "step": step}})


def _restore(folder: Path, learners: dict[str, Learner], device: torch.device) -> tuple[int, float, int, float]:
    """Put what the folder holds into its places: step, seconds, batches of scenes made and due."""
    state = read_state(folder / "state.pt")
    if state is not None:
        for name, learner in learners.items():
            kept = state["learners"][name]
            for network, key in ((learner.network, "network"), (learner.averaged, "averaged")):
                network.load_state_dict(network_state(network, encoder=True) | kept[key])
            learner.optimiser.load_state_dict(kept["optimiser"])
            learner.seconds, learner.losses = kept["seconds"], tuple(kept["losses"])
        return state["step"], state["elapsed"], state["made"], state["due"]
    files = {name: folder / f"{name}.safetensors" for name in learners}
    if not all(path.exists() for path in files.values()):
        return 0, 0.0, 0, 0.0
    log.warning("%s has weights but no state: the optimisers begin afresh", folder)
    steps = []
    for name, learner in learners.items():
        network, metadata = read_network(files[name])
        learner.network.load_state_dict(network.state_dict())
        learner.averaged.load_state_dict(network.state_dict())
        steps.append(metadata["comparison"]["step"])
    return min(steps), 0.0, 0, 0.0
