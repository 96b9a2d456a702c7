"""The training loop: photographs in, weights out. It reads from top to bottom.

    glunet train PHOTOS --out RUN --minutes 120

Views of synthetic scenes are encoded once by a frozen VGG-16 and learned from in pairs (`pool`), in the stages of a
recipe (`recipes`). What a step learns from is a function of the seed and the step alone.
"""

import contextlib
import copy
import logging
import math
import signal
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glunet.errors import GlunetError
from glunet.flow.files import writing
from glunet.network.glunet import GLUNet
from glunet.training.loss import level_error, loss, truths
from glunet.training.photographs import Photographs
from glunet.training.pool import Batch, Pool
from glunet.training.real import RealSet
from glunet.training.recipes import Settings, Stage
from glunet.training.validation import fixed_pairs, predict, validate
from glunet.weight_files import encoder_state, network_state, read_weights, save_weights

log = logging.getLogger(__name__)

Report = Callable[[dict[str, Any]], None]
Show = Callable[[int, GLUNet, Batch], None]


def train(
    photographs: Photographs,
    held_back: Photographs,
    run: Path,
    settings: Settings,
    device: torch.device | str = "cpu",
    init: str | Path | None = None,
    report: Report = lambda line: None,
    real: Sequence[RealSet] = (),
    show: Show | None = None,
) -> dict[str, float]:
    """Train until the bound of `settings`, or go on where `run` stopped.

    Args:
        photographs: to learn from; `held_back`: to validate on.
        run: a folder for `state.pt`, from which a killed run goes on, and `weights.safetensors`, the averaged weights.
        init: weights to start from (a warm restart: the optimiser starts afresh); None starts from VGG-16 alone.
        report: called with a dictionary of numbers every 20 steps, and after each validation.
        real: sets to validate on as well.
        show: called at each checkpoint with the step, the averaged network and the first batch of synthetic pairs.

    Returns:
        the last validation's numbers (`validation.validate`, `real.RealSet`).

    Raises:
        GlunetError: if the settings bound a run by neither or both of minutes and steps, or the folder holds the state
            of another network.
    """
    if (settings.minutes is None) == (settings.steps is None):
        raise GlunetError("A run is bounded either by minutes or by steps; give one of them.")
    device = torch.device(device)
    torch.manual_seed(settings.seed)
    network = _start(settings, init).to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    live = settings.encoder_lr > 0
    network.encoder.requires_grad_(live)
    averaged = copy.deepcopy(network).eval()  # a running mean of the weights, which is what is saved
    encoder = network if live else _encoder_alone(network, settings.bf16)
    groups = [{"params": [p for n, p in network.named_parameters() if not _is_encoder(n)], "peak": settings.lr}]
    if live:
        groups.append({"params": list(network.encoder.parameters()), "peak": settings.encoder_lr})
    optimiser = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    trained = [p for p in network.parameters() if p.requires_grad]

    step, elapsed, made, due = _resume(run / "state.pt", network, averaged, optimiser, device)
    began = time.monotonic() - elapsed

    def minutes() -> float:
        return (time.monotonic() - began) / 60

    def progress() -> float:
        return step / settings.steps if settings.steps else minutes() / settings.minutes  # type: ignore[operator]

    def save(stage: Stage) -> dict[str, float]:
        if not settings.freeze_norms:
            estimate_statistics(averaged, network, pools, stage, step, settings)
        numbers = validate(averaged, fixed, stage.levels)
        for one in real:
            numbers |= one(averaged, settings.bf16)
        metadata = {
            "training": {"steps": step, "hours": round(minutes() / 60, 3), "stage": stage.name, "seed": settings.seed,
                         "init": str(init or "vgg16"), "recipe": asdict(settings.recipe)},
            "validation": {name: round(value, 4) for name, value in numbers.items()},
        }  # fmt: skip
        save_weights(run / "weights.safetensors", network_state(averaged, live), network.config, metadata)
        made.update({pool.frame: pool.made for pool in pools})
        due.update({pool.frame: pool.due for pool in pools})
        state = {
            "network": network_state(network, live), "averaged": network_state(averaged, live),
            "optimiser": optimiser.state_dict(), "step": step, "elapsed": time.monotonic() - began,
            "made": made, "due": due,
        }  # fmt: skip
        write_state(run / "state.pt", state)
        line = {"step": step, "minutes": minutes(), "progress": progress(), "stage": stage.name, **numbers}
        report(line)
        if show is not None:
            show(step, averaged, fixed[0])
        return numbers

    run.mkdir(parents=True, exist_ok=True)
    fixed = fixed_pairs(encoder, held_back, settings.validation_pairs, keep_images=live)
    pools: list[Pool] = []
    stage: Stage | None = None
    saved, skipped = time.monotonic(), 0
    with _stop_requests() as stopped:
        while progress() < 1 and not stopped():
            now = next(s for s in settings.stages if progress() < s.until)
            if now != stage:
                stage = now
                pools = _pools(pools, stage, encoder, photographs, settings, made, due)
            pool = pools[step % len(pools)]
            pool.due += stage.refresh
            while pool.due >= 1 or (len(pool) < 2 * stage.batch and not pool.full):
                pool.refresh()
                pool.due = max(0.0, pool.due - 1)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * schedule(step, progress(), settings)
            batch = pool.batch(stage.batch, step)
            _train_mode(network, settings.freeze_norms)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=settings.bf16):
                value, error = step_loss(network, batch, stage, int(_chance(settings.seed, step) < stage.extra))
            optimiser.zero_grad(set_to_none=True)
            value.backward()
            norm = nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], settings.clip)
            if torch.isfinite(norm):
                optimiser.step()
                _average(averaged, network, min(settings.ema, (1 + step) / (10 + step)))
            else:
                skipped += 1
                log.warning("step %d: the gradient is not finite; skipped (%d so far)", step, skipped)
            step += 1
            if step % 20 == 0:
                report(
                    {"step": step, "minutes": minutes(), "progress": progress(), "stage": stage.name, "pairs":
                    stage.batch,
                     "loss": float(value.detach()), "error": error, "lr": optimiser.param_groups[0]["lr"],
                     "norm": float(norm), "skipped": skipped}
                )  # fmt: skip
            if time.monotonic() - saved > 60 * settings.every:
                save(stage)
                saved = time.monotonic()
        return save(stage) if stage is not None else validate(averaged, fixed)


def step_loss(network: GLUNet, batch: Batch, stage: Stage, extra: int) -> tuple[Tensor, float]:
    """The loss of one batch, and the mean error of its finest level in pixels of that level's frame."""
    target, source = batch.features(network)
    flows = predict(network, target, source, stage.levels, extra)
    levels = [flow for flow in (flows.flow4, flows.flow3, flows.flow2, flows.flow1) if flow is not None]
    levels += flows.extra
    grids = [tuple(flow.shape[-2:]) for flow in levels]
    true = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, grids)  # type: ignore[arg-type]
    value = loss(levels, true, stage.robust)
    finest = len(stage.levels) - 1
    with torch.no_grad():
        return value, float(level_error(levels[finest], true[finest]))


def write_state(path: Path, state: dict[str, Any]) -> None:
    """What a run goes on from; the old file stays until the new one is whole.

    Raises:
        GlunetError: if it cannot be written.
    """
    try:
        with writing(path) as part:
            torch.save(state, part)
    except RuntimeError as error:  # what torch makes of a full disk
        raise GlunetError(f"{path} cannot be written ({error}); make room, then run the same command again.") from error


def schedule(step: int, progress: float, settings: Settings) -> float:
    """The share of the peak learning rate: warm-up over steps, then a cosine over the run's progress (0..1)."""
    warmup = min(settings.warmup, settings.steps // 10 + 1) if settings.steps else settings.warmup
    least = settings.lr_end / settings.lr
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(1.0, (step + 1) / warmup) * (least + (1 - least) * cosine)


@torch.no_grad()
def estimate_statistics(
    averaged: GLUNet, network: GLUNet, pools: list[Pool], stage: Stage, step: int, settings: Settings
) -> None:
    """BatchNorm's statistics of the averaged weights: their own, over some batches, where the stage reaches."""
    norms = [m for m in averaged.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches that follow
        norm.train()
    filled = [pool for pool in pools if len(pool)]
    for number in range(settings.norm_batches):
        batch = filled[number % len(filled)].batch(stage.batch, (1 << 30) + step + number)
        with torch.autocast(batch.scenes.plane.device.type, dtype=torch.bfloat16, enabled=settings.bf16):
            predict(averaged, *batch.features(averaged), stage.levels)
    for ours, theirs in zip(norms, (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)), strict=True):
        ours.eval()
        if ours.num_batches_tracked == 0:
            ours.load_state_dict(theirs.state_dict())


def _start(settings: Settings, init: str | Path | None) -> GLUNet:
    if init is not None:
        return read_weights(init)[0]
    network = GLUNet(settings.config)
    network.load_state_dict(network_state(network) | encoder_state())
    return network


def _encoder_alone(network: GLUNet, bf16: bool) -> GLUNet:
    """A twin that only encodes, in bfloat16 where that pays: it shares no tensor with the network that learns."""
    twin = GLUNet.__new__(GLUNet)
    nn.Module.__init__(twin)
    twin.encoder = copy.deepcopy(network.encoder).eval().to(torch.bfloat16 if bf16 else torch.float32)
    return twin


def _resume(
    file: Path, network: GLUNet, averaged: GLUNet, optimiser: torch.optim.Optimizer, device: torch.device
) -> tuple[int, float, dict[Any, int], dict[Any, float]]:
    if not file.exists():
        return 0, 0.0, {}, {}
    try:
        state = torch.load(file, map_location=device, weights_only=True)
        for module, name in ((network, "network"), (averaged, "averaged")):
            module.load_state_dict(network_state(module, encoder=True) | state[name])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError, KeyError, EOFError) as error:
        raise GlunetError(
            f"{file} is the state of another network, or damaged; pass a new folder as --out, or remove it."
        ) from error
    log.info("going on at step %d", state["step"])
    return state["step"], state["elapsed"], state["made"], state["due"]


def _pools(
    old: list[Pool], stage: Stage, encoder: GLUNet, photographs: Photographs, settings: Settings,
    made: dict[Any, int], due: dict[Any, float],
) -> list[Pool]:  # fmt: skip
    """A pool for each frame of the stage; one that the stage before had goes on."""
    kept = {pool.frame: pool for pool in old}
    for frame in stage.frames:
        if frame not in kept:
            kept[frame] = Pool(
                encoder, photographs, settings.recipe, frame, memory=settings.pool_memory,
                seed=settings.seed + 7919 * frame[1] + 104729 * frame[0], photometric=settings.photometric,
                keep_images=settings.encoder_lr > 0, made=made.get(frame, 0),
            )  # fmt: skip
            kept[frame].due = due.get(frame, 0.0)
    return [kept[frame] for frame in stage.frames]


@torch.no_grad()
def _average(averaged: GLUNet, network: GLUNet, decay: float) -> None:
    for ours, theirs in zip(averaged.parameters(), network.parameters(), strict=True):
        if theirs.requires_grad:
            ours.lerp_(theirs, 1 - decay)


def _train_mode(network: GLUNet, freeze_norms: bool) -> None:
    network.train()
    if freeze_norms:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()


def _is_encoder(key: str) -> bool:
    return key.startswith("encoder.")


def _chance(seed: int, step: int) -> float:
    return float(torch.rand(1, generator=torch.Generator().manual_seed((seed << 32) + (3 << 30) + step)))


@contextlib.contextmanager
def _stop_requests() -> Iterator[Callable[[], bool]]:
    """SIGTERM and Ctrl-C end the run after the step under way; a second one ends it at once."""
    asked: list[int] = []

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
