"""The training loop: photographs in, weights out. It reads from top to bottom.

    glunet train PHOTOS --out RUN --minutes 120

Features of a frozen VGG-16 are made once a view (`pool`) and learned from in pairs. Four stages follow one another in a
single run: the global level alone, the L-Net, all levels on a 256 frame, and last all levels on larger frames that are not
square, with and without an extra level, since the decoders read flow in raw pixels. Numbers are in docs/weights.md.
"""

import contextlib
import copy
import logging
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glunet.errors import GlunetError
from glunet.network.glunet import GLUNet, GLUNetConfig
from glunet.training.loss import level_error, loss, truths
from glunet.training.photographs import Photographs
from glunet.training.pool import Batch, Pool
from glunet.training.scenes import Recipe
from glunet.training.validation import fixed_pairs, predict, validate
from glunet.weight_files import encoder_state, network_state, read_weights, save_weights

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stage:
    """A part of the run.

    Attributes:
        until: share of the run at which it ends.
        levels: which levels learn.
        batch: pairs a step. BatchNorm in train mode wants at least 8 different scenes.
        refresh: batches of new scenes (4 scenes of 4 views) encoded a step, on average.
        frames: (height, width) of the scenes' views; each has a pool of its own, taken in turn.
        extra: share of steps with one extra level.
        robust: see `loss.level_error`.
    """

    name: str
    until: float
    levels: tuple[int, ...]
    batch: int
    refresh: float
    frames: tuple[tuple[int, int], ...] = ((256, 256),)
    capacity: int = 384
    extra: float = 0.0
    robust: bool = False


FULL = (
    Stage("global", 0.10, (4,), batch=32, refresh=0.25),
    Stage("lnet", 0.28, (4, 3), batch=16, refresh=0.25),
    Stage("all", 0.78, (4, 3, 2, 1), batch=16, refresh=0.25),
    Stage(
        "large", 1.0, (4, 3, 2, 1), batch=8, refresh=0.12, frames=((256, 256), (384, 512), (512, 384), (368, 640)),
        capacity=64, extra=0.4, robust=True,
    ),
)  # fmt: skip


@dataclass(frozen=True)
class Settings:
    """How to train. Either `minutes` or `steps` bounds the run, and the schedule fits it.

    Attributes:
        lr: peak of AdamW's learning rate: 1e-3 is what a short run affords, the paper's 1e-4 needs 250,000 steps.
        warmup: steps up to the peak; from there a cosine down to `lr_end`.
        clip: largest gradient norm.
        ema: decay of the averaged weights, which are what is saved.
        every: minutes between checkpoints.
        start: share of the schedule that is taken as done, for a warm restart: 0.28 begins with all levels.
    """

    minutes: float | None = None
    steps: int | None = None
    stages: tuple[Stage, ...] = FULL
    lr: float = 1e-3
    lr_end: float = 1e-5
    warmup: int = 500
    weight_decay: float = 1e-4
    clip: float = 1.0
    ema: float = 0.998
    seed: int = 0
    every: float = 8.0
    start: float = 0.0
    bf16: bool = True
    recipe: Recipe = field(default_factory=Recipe)
    validation_pairs: int = 64
    config: GLUNetConfig = GLUNetConfig("residual", "residual", "bilinear")


def train(
    photographs: Photographs,
    held_back: Photographs,
    run: Path,
    settings: Settings,
    device: torch.device | str = "cpu",
    init: str | Path | None = None,
    report: Callable[[dict[str, Any]], None] = lambda line: None,
) -> dict[str, float]:
    """Train, or go on where `run` stopped, until the bound of `settings`.

    Args:
        photographs: to learn from; `held_back`: to validate on.
        run: a folder: `state.pt` to resume from, `weights.safetensors` (averaged decoders, float16), `log.jsonl`'s
            and TensorBoard's writing is the caller's, through `report`.
        init: weights to start from: a warm restart, with a fresh optimiser.
        report: called with a dictionary of numbers every 20 steps, and after each validation.

    Returns:
        the last validation's numbers.

    Raises:
        GlunetError: if neither minutes nor steps are given, or the run's folder holds another network's state.
    """
    if (settings.minutes is None) == (settings.steps is None):
        raise GlunetError("A run needs either minutes or steps; pass one of them.")
    torch.manual_seed(settings.seed)
    network = GLUNet(settings.config)
    network.load_state_dict(encoder_state() | {k: v for k, v in network.state_dict().items() if not _frozen(k)})
    if init is not None:
        network = read_weights(init)[0]
    network.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    network.encoder.requires_grad_(False)
    encoder = copy.deepcopy(network)  # a twin that only encodes, in bfloat16 where that pays
    encoder.eval().to(torch.bfloat16 if settings.bf16 else torch.float32)
    for name in [n for n, _ in encoder.named_children() if n != "encoder"]:
        delattr(encoder, name)
    averaged = copy.deepcopy(network).eval()
    trained = {name: p for name, p in network.named_parameters() if p.requires_grad}
    optimiser = torch.optim.AdamW(trained.values(), lr=settings.lr, weight_decay=settings.weight_decay)

    step, elapsed, made = 0, 0.0, {}
    state_file = run / "state.pt"
    if state_file.exists():
        state = torch.load(state_file, map_location=device, weights_only=True)
        try:
            network.load_state_dict(state["network"], strict=False)
            averaged.load_state_dict(state["averaged"], strict=False)
            optimiser.load_state_dict(state["optimiser"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise GlunetError(f"{state_file} is of another network; pass a new folder as --out.") from error
        step, elapsed, made = state["step"], state["elapsed"], state["made"]
        log.info("going on at step %d", step)
    began = time.monotonic() - elapsed

    def progress() -> float:
        if settings.steps is not None:
            done = step / settings.steps
        else:
            done = (time.monotonic() - began) / 60 / settings.minutes  # type: ignore[operator]
        return settings.start + (1 - settings.start) * done

    def save() -> dict[str, float]:
        numbers = publish(network, averaged, pools, fixed, stage, step, settings, run, time.monotonic() - began)
        made.update({pool.frame: pool.made for pool in pools})
        content = {
            "network": {k: v for k, v in network.state_dict().items() if not _frozen(k)},
            "averaged": {k: v for k, v in averaged.state_dict().items() if not _frozen(k)},
            "optimiser": optimiser.state_dict(),
            "step": step,
            "elapsed": time.monotonic() - began,
            "made": made,
        }
        torch.save(content, state_file.with_suffix(".part"))
        os.replace(state_file.with_suffix(".part"), state_file)
        return numbers

    run.mkdir(parents=True, exist_ok=True)
    fixed = fixed_pairs(encoder, held_back, settings.validation_pairs)
    pools: list[Pool] = []
    stage, saved, numbers, skipped = None, time.monotonic(), {}, 0
    network.train()
    with _stop_requests() as stopped:
        while progress() < 1 and not stopped():
            now = next(s for s in settings.stages if progress() < s.until)
            if now != stage:
                stage = now
                pools = _pools(pools, stage, encoder, photographs, settings, made)
            pool = pools[step % len(pools)]
            pool.due += stage.refresh
            while pool.due >= 1 or len(pool) < 2 * stage.batch:
                pool.refresh()
                pool.due = max(0.0, pool.due - 1)
            for group in optimiser.param_groups:
                group["lr"] = learning_rate(step, progress(), settings)
            batch = pool.batch(stage.batch, step)
            extra = _chance(settings.seed, step) < stage.extra
            with torch.autocast(torch.device(device).type, dtype=torch.bfloat16, enabled=settings.bf16):
                value, error = step_loss(network, batch, stage, int(extra))
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            norm = nn.utils.clip_grad_norm_([p for p in trained.values() if p.grad is not None], settings.clip)
            if torch.isfinite(norm):
                optimiser.step()
            else:
                skipped += 1
            decay = min(settings.ema, (1 + step) / (10 + step))
            with torch.no_grad():
                for name, parameter in averaged.named_parameters():
                    if name in trained:
                        parameter.lerp_(trained[name], 1 - decay)
            step += 1
            if step % 20 == 0:
                report(
                    {"step": step, "progress": progress(), "stage": stage.name, "loss": float(value.detach()), "error": error,
                     "lr": optimiser.param_groups[0]["lr"], "norm": float(norm), "skipped": skipped,
                     "pairs": stage.batch, "minutes": (time.monotonic() - began) / 60}
                )  # fmt: skip
            if time.monotonic() - saved > 60 * settings.every:
                numbers = save()
                saved = time.monotonic()
                report({"step": step, "minutes": (time.monotonic() - began) / 60, **numbers})
        if stage is not None:
            numbers = save()
            report({"step": step, "minutes": (time.monotonic() - began) / 60, **numbers})
    return numbers


def step_loss(network: GLUNet, batch: Batch, stage: Stage, extra: int) -> tuple[Tensor, float]:
    """The loss of one batch, and the mean error of its finest level, in pixels of its frame."""
    if stage.levels[-1] > 1:
        flows = predict(network, batch, stage.levels)
        grids = [tuple(flow.shape[-2:]) for flow in flows]
        true = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, grids)  # type: ignore[arg-type]
        errors = [level_error(flow, t) for flow, t in zip(flows, true, strict=True)]
        return sum(errors), float(errors[-1].detach())  # type: ignore[return-value]
    out = network.decode(batch.target, batch.source, extra)
    grids = [tuple(flow.shape[-2:]) for flow in (out.flow4, out.flow3, out.flow2, out.flow1)]
    true = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, grids)  # type: ignore[arg-type]
    value = loss(out, true, stage.robust)
    for flow in out.extra:
        grid = tuple(flow.shape[-2:])
        extra_true = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, [grid] * 3)[-1]  # type: ignore[list-item]
        value = value + 0.5 * level_error(flow, extra_true, stage.robust)
    with torch.no_grad():
        return value, float(level_error(out.flow1, true[-1]))


def learning_rate(step: int, progress: float, settings: Settings) -> float:
    """Warm-up over steps, then a cosine over the run's progress (0..1)."""
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(1.0, (step + 1) / settings.warmup) * (settings.lr_end + (settings.lr - settings.lr_end) * cosine)


def publish(
    network: GLUNet,
    averaged: GLUNet,
    pools: list[Pool],
    fixed: list[Batch],
    stage: Stage | None,
    step: int,
    settings: Settings,
    run: Path,
    seconds: float,
) -> dict[str, float]:
    """Re-estimate the averaged network's batch statistics, validate it, and write its weights. Returns the numbers."""
    assert stage is not None
    with torch.no_grad():
        for ours, theirs in zip(averaged.buffers(), network.buffers(), strict=True):
            ours.copy_(theirs)
        norms = [m for m in averaged.modules() if isinstance(m, nn.BatchNorm2d)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # a plain mean over the batches that follow
        averaged.train()
        filled = [pool for pool in pools if len(pool)]
        for number in range(48):
            batch = filled[number % len(filled)].batch(stage.batch, (1 << 30) + step + number)
            with torch.autocast(batch.target.level4.device.type, dtype=torch.bfloat16, enabled=settings.bf16):
                predict(averaged, batch, stage.levels)
        averaged.eval()
        if stage.levels[-1] > 1:  # what has not learned yet has no statistics of its own
            for ours, theirs in zip(norms, (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)), strict=True):
                if ours.num_batches_tracked == 0:
                    ours.load_state_dict(theirs.state_dict())
        numbers = validate(averaged, fixed, stage.levels)
    metadata = {
        "training": {"steps": step, "hours": round(seconds / 3600, 3), "stage": stage.name, "seed": settings.seed,
                     "recipe": asdict(settings.recipe)},
        "validation": {name: round(value, 4) for name, value in numbers.items()},
    }  # fmt: skip
    save_weights(run / "weights.safetensors", network_state(averaged), settings.config, metadata)
    return numbers


def _pools(
    old: list[Pool], stage: Stage, encoder: GLUNet, photographs: Photographs, settings: Settings, made: dict[Any, int]
) -> list[Pool]:
    kept = {pool.frame: pool for pool in old}
    pools = []
    for frame in stage.frames:
        if frame not in kept:
            kept[frame] = Pool(
                encoder, photographs, settings.recipe, frame, stage.capacity, seed=settings.seed + 7919 * frame[1],
                made=made.get(frame, 0),
            )  # fmt: skip
        pools.append(kept[frame])
    return pools


def _frozen(key: str) -> bool:
    return key.startswith("encoder.")


def _chance(seed: int, step: int) -> float:
    return float(torch.rand(1, generator=torch.Generator().manual_seed((seed << 32) + (3 << 30) + step)))


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """SIGTERM and Ctrl-C end the run after the step under way; a second Ctrl-C ends it at once."""
    asked = []

    def ask(number: int, _: object) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever started it stops it
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
