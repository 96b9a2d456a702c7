"""The training loop: photographs in, weights out. It reads from top to bottom.

    glunet train PHOTOS --out RUN --minutes 120 [--network glunet]

Views of synthetic scenes are encoded once by a frozen VGG-16 and learned from in pairs (`pool`), in the stages of a
recipe (`recipes`). What a step learns from is a function of the seed and the step alone.
"""

import copy
import dataclasses
import logging
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from glunet.errors import GlunetError
from glunet.loading import encoder_state, network_state, read_network, save_weights
from glunet.network.family import Network, build
from glunet.training.averaging import average, estimate_statistics, train_mode
from glunet.training.loss import level_error, loss, truths
from glunet.training.photographs import Photographs
from glunet.training.pool import Batch, Pool, encoder_alone
from glunet.training.ranks import Alone, Computed, join
from glunet.training.real import RealSet, RealSets
from glunet.training.recipes import LEVELS, Settings, Stage, check_fit
from glunet.training.state import read_state, restore, stop_requests, write_state
from glunet.training.validation import fixed_pairs, predict, validate

log = logging.getLogger(__name__)

HOPELESS = 50  # steps in a row whose gradient is not finite
Report = Callable[[dict[str, Any]], None]
Show = Callable[[int, Network, Batch], None]


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
    ranks: Alone | None = None,
) -> dict[str, float]:
    """Train until the bound of `settings`, or go on where `run` stopped.

    Args:
        photographs: to learn from; `held_back`: to validate on.
        run: a folder for `state.pt`, from which a killed run goes on, and `weights.safetensors`, the averaged weights.
        init: weights to start from (a warm restart: the optimiser starts afresh), of the network that `settings.config`
            names; None starts from VGG-16 alone.
        report: called with a dictionary of numbers every 20 steps, and after each validation; by rank 0 only.
        real: sets to validate on as well, for a twentieth of the time.
        show: called at each checkpoint with the step, the averaged network and the first batch of synthetic pairs.
        ranks: `ranks.join(device)`, where it was called already.

    Returns:
        the last validation's numbers (`validation.validate`, `real.RealSet`); none if stopped before the first step.

    Raises:
        GlunetError: if the settings bound a run by neither or both of minutes and steps, or ask of the network what it
            has not, or `init` or the folder's state is another network's, or the folder cannot be written.
    """
    if (settings.minutes is None) == (settings.steps is None):
        raise GlunetError("A run is bounded either by minutes or by steps; give one of them.")
    check_fit(settings)
    ranks = ranks or join(device)
    torch.manual_seed(settings.seed)
    network = _start(settings, init)
    network = network.to(device=ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    live = settings.encoder_lr > 0
    network.encoder.requires_grad_(live)
    averaged = copy.deepcopy(network).eval()  # a running mean of the weights, which is what is saved
    encoder = network if live else encoder_alone(network.encoder, torch.bfloat16 if settings.bf16 else torch.float32)
    groups = [{"params": [p for n, p in network.named_parameters() if not _is_encoder(n)], "peak": settings.lr}]
    if live:
        groups.append({"params": list(network.encoder.parameters()), "peak": settings.encoder_lr})
    optimiser = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
    trained = [p for p in network.parameters() if p.requires_grad]

    step, began = 0, time.monotonic()
    made: dict[Any, int] = {}
    due: dict[Any, float] = {}
    state = ranks.from_first(read_state(run / "state.pt") if ranks.rank == 0 else None)
    if state is not None:
        restore(run / "state.pt", state, network, averaged, optimiser)
        step, began, made, due = state["step"], began - state["elapsed"], state["made"], state["due"]
        if state.get("photographs", photographs.fingerprint()) != photographs.fingerprint():
            raise GlunetError(
                f"{run} holds a run on other photographs: give it the same ones, or name another --out for a run from "
                f"its weights (--init {run / 'weights.safetensors'})."
            )
        if state.get("ranks", 1) != ranks.world:
            log.warning("%d processes go on with the run of %d: on other data", ranks.world, state.get("ranks", 1))
    if settings.compile:
        compile_decoders(network, ranks.device)
    learner, sets = ranks.learner(network), RealSets(real)
    elapsed, stop = ranks.agree(time.monotonic() - began, False)

    def progress() -> float:
        return step / settings.steps if settings.steps else elapsed / 60 / settings.minutes  # type: ignore[operator]

    def save(stage: Stage) -> dict[str, float]:
        made.update({pool.frame: pool.made for pool in pools})
        due.update({pool.frame: pool.due for pool in pools})
        if ranks.rank == 0:  # before all else: who stops a run may not wait for what follows
            state = {
                "network": network_state(network, live), "averaged": network_state(averaged, live),
                "optimiser": optimiser.state_dict(), "step": step, "elapsed": time.monotonic() - began,
                "made": made, "due": due, "ranks": ranks.world, "bf16": settings.bf16,
                "photographs": photographs.fingerprint(),
            }  # fmt: skip
            write_state(run / "state.pt", state)
        if not settings.freeze_norms:
            estimate_statistics(averaged, network, pools, stage, step, settings, ranks)
        numbers = validate(averaged, fixed, stage.levels, ranks, stage.passes)
        if ranks.rank > 0:
            return numbers
        numbers |= sets(averaged, settings.bf16, elapsed, progress() >= 1)
        metadata = {
            "training": {"steps": step, "hours": round(elapsed / 3600, 3), "stage": stage.name, "seed": settings.seed,
                         "init": str(init or "vgg16"), "recipe": dataclasses.asdict(settings.recipe),
                         "processes": ranks.world},
            # How a matcher computes with them (`glunet.load`).
            "pyramid": 1 in LEVELS[network.config.network], "passes": stage.passes,
            "search": "auto", "polish": "auto", "speed": "auto",
            "validation": {name: round(value, 4) for name, value in numbers.items()},
        }  # fmt: skip
        save_weights(run / "weights.safetensors", network_state(averaged, live), network.config, metadata)
        report({"step": step, "minutes": elapsed / 60, "progress": progress(), "stage": stage.name, **numbers})
        if show is not None:
            show(step, averaged, fixed[0])
        return numbers

    run.mkdir(parents=True, exist_ok=True)
    for part in run.glob(".part-*") if ranks.rank == 0 else ():  # of a run that was killed while it wrote
        part.unlink(missing_ok=True)
    if progress() >= 1 and (done := ranks.from_first(_finished(run / "weights.safetensors", step))):
        return done
    fixed = fixed_pairs(encoder, held_back, settings.validation_pairs, keep_images=live, part=(ranks.rank, ranks.world))
    pools: list[Pool] = []
    stage: Stage | None = None
    saved, skipped, in_a_row = elapsed, 0, 0
    with stop_requests(patient=ranks.world > 1) as stopped:
        while progress() < 1 and not stop:
            now = next(s for s in settings.stages if progress() < s.until)
            if now != stage:
                stage = now
                pools = _pools(pools, stage, encoder, photographs, settings, made, due, ranks)
            pool = pools[step % len(pools)]
            pool.due += stage.refresh
            while pool.due >= 1 or (len(pool) < 2 * stage.batch and not pool.full):
                pool.refresh()
                pool.due = max(0.0, pool.due - 1)
            for group in optimiser.param_groups:
                group["lr"] = group["peak"] * schedule(step, progress(), settings)
            batch, extra = pool.batch(stage.batch, step), int(_chance(settings.seed, step) < stage.extra)
            passes = 1 + int(stage.passes * _chance(settings.seed, step, 1))
            coarse = pools[0].batch(stage.coarse, (1 << 29) + step) if stage.coarse else None
            train_mode(network, settings.freeze_norms)
            value, error = learner(_computation(batch, coarse, stage, extra, passes, settings.bf16))
            optimiser.zero_grad(set_to_none=True)
            ranks.backward(value)
            norm = nn.utils.clip_grad_norm_([p for p in trained if p.grad is not None], settings.clip)
            if torch.isfinite(norm):
                optimiser.step()
                average(averaged, network, min(settings.ema, (1 + step) / (10 + step)))
                in_a_row = 0
            else:
                skipped, in_a_row = skipped + 1, in_a_row + 1
                log.warning("step %d: the gradient is not finite; skipped (%d so far)", step, skipped)
                if in_a_row == HOPELESS:
                    raise GlunetError(
                        f"The gradients of the last {HOPELESS} steps were not finite; the last checkpoint in {run} is "
                        "from before: start another run from its weights (--init) with a lower --lr."
                    )
            step += 1
            elapsed, stop = ranks.agree(time.monotonic() - began, stopped())
            if step % 20 == 0:
                means = ranks.sum(torch.tensor((float(value.detach()), error))) / ranks.world
                line = {
                    "step": step, "minutes": elapsed / 60, "progress": progress(), "stage": stage.name,
                    "pairs": stage.batch * ranks.world, "loss": float(means[0]), "error": float(means[1]),
                    "lr": optimiser.param_groups[0]["lr"], "norm": float(norm), "skipped": skipped,
                }  # fmt: skip
                if ranks.rank == 0:
                    report(line)
            if elapsed - saved > 60 * settings.every and progress() < 1 and not stop:
                save(stage)
                elapsed, stop = ranks.agree(time.monotonic() - began, stopped())
                saved = elapsed
        if stage is None and progress() < 1:
            return {}
        if stage is None:  # ended, but killed before its weights were written
            stage = settings.stages[-1]
            pools = _pools(pools, stage, encoder, photographs, settings, made, due, ranks)
        return save(stage)


def compile_decoders(network: Network, device: torch.device) -> bool:
    """Compile the decoders in place, on CUDA only; whether it was done."""
    if device.type != "cuda":
        return False
    for name, part in network.named_children():
        if name.startswith("decoder"):
            part.compile()
    return True


def _computation(
    batch: Batch, coarse: Batch | None, stage: Stage, extra: int, passes: int, bf16: bool
) -> Callable[[Network], Computed]:
    def compute(network: Network) -> Computed:
        with torch.autocast(batch.scenes.plane.device.type, dtype=torch.bfloat16, enabled=bf16):
            value, error = step_loss(network, batch, stage, extra, passes)
            if coarse is None:
                return value, error
            lnet = dataclasses.replace(stage, levels=(4, 3), robust=False)
            return value + step_loss(network, coarse, lnet, 0, passes)[0], error

    return compute


def step_loss(network: Network, batch: Batch, stage: Stage, extra: int = 0, passes: int = 1) -> tuple[Tensor, float]:
    """The loss of one batch, and the mean error of its finest level in pixels of that level's frame."""
    target, source = batch.features(network)
    flows = predict(network, target, source, stage.levels, extra, stage.apart, passes)
    levels = [*flows.levels, *flows.extra]
    grids = [tuple(flow.shape[-2:]) for flow in levels]
    true = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, grids)  # type: ignore[arg-type]
    learn = [level not in stage.held for level in stage.levels] + [True] * len(flows.extra)
    value = loss(levels, true, stage.robust, learn)
    finest = len(flows.levels) - 1
    with torch.no_grad():
        return value, float(level_error(levels[finest], true[finest]))


def schedule(step: int, progress: float, settings: Settings) -> float:
    """The share of the peak learning rate: warm-up over steps, then a cosine over the run's progress (0..1)."""
    warmup = settings.warmup
    if settings.steps and not settings.freeze_norms:  # from weights that exist a few steps at the peak do harm
        warmup = min(warmup, settings.steps // 10 + 1)
    least = min(1.0, settings.lr_end / settings.lr)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(1.0, (step + 1) / warmup) * (least + (1 - least) * cosine)


def _start(settings: Settings, init: str | Path | None) -> Network:
    if init is None:
        network = build(settings.config)
        network.load_state_dict(network_state(network) | encoder_state())
        return network
    network = read_network(init)[0]
    there, wanted = network.config.network, settings.config.network
    if there == wanted:
        return network
    if (there, wanted) != ("glunet", "semantic-glunet"):
        raise GlunetError(f"Weights '{init}' are {there}'s, of which {wanted} cannot start; expected {wanted}'s own.")
    # All that GLU-Net has the semantic network has in the same place; its consensus starts afresh.
    semantic = build(dataclasses.replace(network.config, network=wanted))  # type: ignore[arg-type]
    semantic.load_state_dict(semantic.state_dict() | network.state_dict())
    return semantic


def _finished(weights: Path, step: int) -> dict[str, float] | None:
    """The validation of weights that were written at this step; None if there are none."""
    if not weights.exists():
        return None
    metadata = read_network(weights)[1]
    return metadata["validation"] if metadata["training"]["steps"] == step else None


def _pools(
    old: list[Pool], stage: Stage, encoder: Network, photographs: Photographs, settings: Settings,
    made: dict[Any, int], due: dict[Any, float], ranks: Alone,
) -> list[Pool]:  # fmt: skip
    """A pool for each frame of the stage; one that the stage before had goes on."""
    kept = {pool.frame: pool for pool in old}
    for frame in stage.frames:
        if frame not in kept:
            kept[frame] = Pool(
                encoder, photographs, settings.recipe, frame, memory=settings.pool_memory,
                seed=settings.seed + 7919 * frame[1] + 104729 * frame[0], photometric=settings.photometric,
                keep_images=settings.encoder_lr > 0, made=made.get(frame, 0), part=(ranks.rank, ranks.world),
            )  # fmt: skip
            kept[frame].due = due.get(frame, 0.0)
    return [kept[frame] for frame in stage.frames]


def _is_encoder(key: str) -> bool:
    return key.startswith("encoder.")


def _chance(seed: int, step: int, what: int = 3) -> float:
    return float(torch.rand(1, generator=torch.Generator().manual_seed((seed << 32) + (what << 30) + step)))
