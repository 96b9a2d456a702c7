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
from glunet.network.glunet import LNET_SIZE, Features
from glunet.training.averaging import average, estimate_statistics, train_mode
from glunet.training.loss import (
    bipath_error,
    consistency_loss,
    descriptor_loss,
    level_error,
    loss,
    truths,
    uncertainty_loss,
)
from glunet.training.photographs import Photographs
from glunet.training.pool import Batch, Pool, detours, encoder_alone, read
from glunet.training.ranks import Alone, Computed, join
from glunet.training.real import RealSet, RealSets
from glunet.training.recipes import KIND, LEVELS, Settings, Stage, check_fit
from glunet.training.scenes import Truth
from glunet.training.similar import similar
from glunet.training.state import read_state, restore, stop_requests, write_state
from glunet.training.validation import fixed_pairs, predict, validate

log = logging.getLogger(__name__)

CONSISTENCY = 0.5  # weight of what triplets teach
UNRELATED = 0.125  # share of pairs that show nothing in common, for the uncertainty head
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
    training = _Training(photographs, run, settings, init, ranks)
    run.mkdir(parents=True, exist_ok=True)
    for part in run.glob(".part-*") if ranks.rank == 0 else ():  # of a run that was killed while it wrote
        part.unlink(missing_ok=True)
    if training.progress >= 1 and (done := ranks.from_first(_finished(run / "weights.safetensors", training.step))):
        return done
    training.check_with(held_back, real, report, show)
    saved = training.elapsed
    with stop_requests(patient=ranks.world > 1) as stopped:
        while training.progress < 1 and not training.stop:
            training.enter(next(stage for stage in settings.stages if training.progress < stage.until))
            training.learn()
            training.tick(stopped())
            if training.step % 20 == 0:
                training.tell()
            if training.elapsed - saved > 60 * settings.every and training.progress < 1 and not training.stop:
                training.checkpoint()
                training.tick(stopped())
                saved = training.elapsed
        if training.stage is None and training.progress < 1:
            return {}
        if training.stage is None:  # ended, but killed before its weights were written
            training.enter(settings.stages[-1])
        return training.checkpoint()


class _Training:
    """A run under way: its networks, its pools of scenes, and where it is.

    Attributes:
        network, averaged: what learns, and a running mean of its weights, which is what is saved.
        step: steps done; `elapsed`: seconds, of all ranks the same; `stop`: whether one of them was asked to stop.
        stage: the one it is in; None before the first step.
        pools: one for each frame of the stage; `kinds`: one of similar photographs' scenes, if the stage has triplets.
    """

    def __init__(
        self, photographs: Photographs, run: Path, settings: Settings, init: str | Path | None, ranks: Alone
    ) -> None:
        self.photographs, self.run, self.settings, self.init, self.ranks = photographs, run, settings, init, ranks
        self.live = live = settings.encoder_lr > 0
        network = _start(settings, init)
        network = network.to(device=ranks.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        network.encoder.requires_grad_(live)
        if settings.uncertainty:
            network.requires_grad_(False)
        if network.has_uncertainty:  # learns alone or not at all
            network.uncertainty.requires_grad_(settings.uncertainty)
        self.network, self.averaged = network, copy.deepcopy(network).eval()
        precision = torch.bfloat16 if settings.bf16 else torch.float32
        self.encoder = network if live else encoder_alone(network.encoder, precision)
        learned = [p for n, p in network.named_parameters() if p.requires_grad and not _is_encoder(n)]
        groups = [{"params": learned, "peak": settings.lr}]
        if live:
            groups.append({"params": list(network.encoder.parameters()), "peak": settings.encoder_lr})
        self.optimiser = torch.optim.AdamW(groups, weight_decay=settings.weight_decay)
        self.trained = [p for p in network.parameters() if p.requires_grad]

        self.step, self.began = 0, time.monotonic()
        self.made: dict[Any, int] = {}
        self.due: dict[Any, float] = {}
        self.pools: list[Pool] = []
        self.kinds: Pool | None = None
        self.similar: list[tuple[int, int]] = []
        self.stage: Stage | None = None
        self.skipped = self.in_a_row = 0
        self._resume()
        if settings.compile:
            compile_decoders(network, ranks.device)
        self.learner = ranks.learner(network)
        self.elapsed, self.stop = 0.0, False
        self.tick(False)

    def _resume(self) -> None:
        """Goes on where the folder's run stopped, if there is one."""
        run, ranks = self.run, self.ranks
        state = ranks.from_first(read_state(run / "state.pt") if ranks.rank == 0 else None)
        if state is None:
            return
        restore(run / "state.pt", state, self.network, self.averaged, self.optimiser)
        self.step, self.made, self.due = state["step"], state["made"], state["due"]
        self.similar = state.get("similar", [])
        self.began -= state["elapsed"]
        if state.get("photographs", self.photographs.fingerprint()) != self.photographs.fingerprint():
            raise GlunetError(
                f"{run} holds a run on other photographs: give it the same ones, or name another --out for a run from "
                f"its weights (--init {run / 'weights.safetensors'})."
            )
        if state.get("ranks", 1) != ranks.world:
            log.warning("%d processes go on with the run of %d: on other data", ranks.world, state.get("ranks", 1))

    def check_with(self, held_back: Photographs, real: Sequence[RealSet], report: Report, show: Show | None) -> None:
        """What a checkpoint is measured on, and who hears of it."""
        ranks, settings = self.ranks, self.settings
        self.fixed = fixed_pairs(
            self.encoder, held_back, settings.validation_pairs, keep_images=self.live, part=(ranks.rank, ranks.world)
        )
        self.sets, self.report, self.show = RealSets(real), report, show

    @property
    def progress(self) -> float:
        """The share of the run that is done; 1 and more at its end."""
        settings = self.settings
        if settings.steps:
            return self.step / settings.steps
        return self.elapsed / 60 / settings.minutes  # type: ignore[operator]

    def tick(self, stopped: bool) -> None:
        """What time it is, and whether to stop, of all ranks the same."""
        self.elapsed, self.stop = self.ranks.agree(time.monotonic() - self.began, stopped)

    def enter(self, stage: Stage) -> None:
        """Makes this the stage, with a pool for each of its frames; one that the stage before had goes on."""
        if stage == self.stage:
            return
        kept = {pool.frame: pool for pool in self.pools}
        for frame in stage.frames:
            if frame not in kept:
                seed = self.settings.seed + 7919 * frame[1] + 104729 * frame[0]
                kept[frame] = self._pool(frame, seed, frame=frame, parameters=self.settings.scenes)
        self.stage, self.pools = stage, [kept[frame] for frame in stage.frames]
        if not stage.triplets:
            self.kinds = None
        elif self.kinds is None:
            if not self.similar:
                first = self.ranks.rank == 0
                dtype = torch.bfloat16 if self.settings.bf16 else torch.float32
                found = similar(self.averaged, self.photographs, self.settings.seed, dtype) if first else None
                self.similar = self.ranks.from_first(found)
            seed = self.settings.seed + 15485863
            self.kinds = self._pool("similar", seed, parameters=KIND, similar=self.similar, views=2)

    def _pool(self, key: Any, seed: int, **which: Any) -> Pool:
        """A new pool, or the one that a resumed run had by this key."""
        settings, part = self.settings, (self.ranks.rank, self.ranks.world)
        pool = Pool(
            self.encoder, self.photographs, memory=settings.pool_memory, seed=seed, photometric=settings.photometric,
            keep_images=self.live, made=self.made.get(key, 0), part=part, **which,
        )  # fmt: skip
        pool.due = self.due.get(key, 0.0)
        return pool

    def learn(self) -> None:
        """One step: new scenes where they are due, a batch, its loss, the optimiser, the running mean."""
        settings, stage, step = self.settings, self.stage, self.step
        assert stage is not None
        pool = self.pools[step % len(self.pools)]
        _refresh(pool, stage.refresh, stage.batch)
        if self.kinds is not None:
            _refresh(self.kinds, stage.refresh, stage.triplets)
        for group in self.optimiser.param_groups:
            group["lr"] = group["peak"] * schedule(step, self.progress, settings)
        batch, extra = pool.batch(stage.batch, step), int(_chance(settings.seed, step) < stage.extra)
        passes = 1 + int(stage.passes * _chance(settings.seed, step, 1))
        coarse = self.pools[0].batch(stage.coarse, (1 << 29) + step) if stage.coarse else None
        triplets = self.kinds.triplets(stage.triplets, step) if self.kinds is not None else ()
        if settings.styles and isinstance(batch.target, Features):
            generator = torch.Generator().manual_seed((settings.seed << 32) + step)
            for some in (batch, *triplets):
                some.restyle(settings.styles, generator)
        train_mode(self.network, settings.freeze_norms)
        self.value, self.error = self.learner(_computation(batch, coarse, stage, extra, passes, settings, triplets))
        self.optimiser.zero_grad(set_to_none=True)
        self.ranks.backward(self.value)
        self.norm = nn.utils.clip_grad_norm_([p for p in self.trained if p.grad is not None], settings.clip)
        if torch.isfinite(self.norm):
            self.optimiser.step()
            average(self.averaged, self.network, min(settings.ema, (1 + step) / (10 + step)))
            self.in_a_row = 0
        else:
            self._skip()
        self.step += 1

    def _skip(self) -> None:
        self.skipped, self.in_a_row = self.skipped + 1, self.in_a_row + 1
        log.warning("step %d: the gradient is not finite; skipped (%d so far)", self.step, self.skipped)
        if self.in_a_row == HOPELESS:
            raise GlunetError(
                f"The gradients of the last {HOPELESS} steps were not finite; the last checkpoint in {self.run} is "
                "from before: start another run from its weights (--init) with a lower --lr."
            )

    def tell(self) -> None:
        """Reports the last step."""
        stage, ranks = self.stage, self.ranks
        assert stage is not None
        means = ranks.sum(torch.tensor((float(self.value.detach()), self.error))) / ranks.world
        line = {
            "step": self.step, "minutes": self.elapsed / 60, "progress": self.progress, "stage": stage.name,
            "pairs": stage.batch * ranks.world, "loss": float(means[0]), "error": float(means[1]),
            "lr": self.optimiser.param_groups[0]["lr"], "norm": float(self.norm), "skipped": self.skipped,
        }  # fmt: skip
        if ranks.rank == 0:
            self.report(line)

    def checkpoint(self) -> dict[str, float]:
        """Writes the state, then validates the averaged weights and writes them; the validation's numbers."""
        stage, ranks, settings = self.stage, self.ranks, self.settings
        assert stage is not None
        pools: dict[Any, Pool] = {pool.frame: pool for pool in self.pools}
        pools |= {"similar": self.kinds} if self.kinds is not None else {}
        self.made.update({key: pool.made for key, pool in pools.items()})
        self.due.update({key: pool.due for key, pool in pools.items()})
        if ranks.rank == 0:  # before all else: who stops a run may not wait for what follows
            self._write_state()
        if not settings.freeze_norms:
            statistics = (self.pools, stage, self.step, settings, ranks, self.kinds)
            estimate_statistics(self.averaged, self.network, *statistics)
        numbers = validate(self.averaged, self.fixed, stage.levels, ranks, stage.passes)
        if ranks.rank > 0:
            return numbers
        numbers |= self.sets(self.averaged, settings.bf16, self.elapsed, self.progress >= 1)
        metadata = {
            "training": {"steps": self.step, "hours": round(self.elapsed / 3600, 3), "stage": stage.name,
                         "seed": settings.seed, "init": str(self.init or "vgg16"),
                         "recipe": dataclasses.asdict(settings.scenes), "processes": ranks.world},
            # How a matcher computes with them (`glunet.load`).
            "pyramid": 1 in LEVELS[self.network.config.network], "anchor": self.network.two_frames,
            "ensemble": self.network.two_frames, "looks": 1 + self.network.two_frames,
            "passes": min(stage.passes, 2), "enlarge_to": LNET_SIZE,
            "search": "auto", "polish": "auto", "plane": True, "speed": "auto",
            "validation": {name: round(value, 4) for name, value in numbers.items()},
        }  # fmt: skip
        weights = network_state(self.averaged, self.live)
        save_weights(self.run / "weights.safetensors", weights, self.network.config, metadata)
        minutes = self.elapsed / 60
        self.report({"step": self.step, "minutes": minutes, "progress": self.progress, "stage": stage.name, **numbers})
        if self.show is not None:
            self.show(self.step, self.averaged, self.fixed[0])
        return numbers

    def _write_state(self) -> None:
        state = {
            "network": network_state(self.network, self.live), "averaged": network_state(self.averaged, self.live),
            "optimiser": self.optimiser.state_dict(), "step": self.step, "elapsed": time.monotonic() - self.began,
            "made": self.made, "due": self.due, "ranks": self.ranks.world, "bf16": self.settings.bf16,
            "photographs": self.photographs.fingerprint(), "similar": self.similar,
        }  # fmt: skip
        write_state(self.run / "state.pt", state)


def compile_decoders(network: Network, device: torch.device) -> bool:
    """Compile the decoders in place, on CUDA only; whether it was done."""
    if device.type != "cuda":
        return False
    for name, part in network.named_children():
        if name.startswith("decoder"):
            part.compile()
    return True


def _refresh(pool: Pool, rate: float, batch: int) -> None:
    """New scenes where they are due, at least twice as many as a batch has pairs."""
    pool.due += rate
    while pool.due >= 1 or (len(pool) < 2 * batch and not pool.full):
        pool.refresh()
        pool.due = max(0.0, pool.due - 1)


def _computation(
    batch: Batch,
    coarse: Batch | None,
    stage: Stage,
    extra: int,
    passes: int,
    settings: Settings,
    triplets: Sequence[Batch] = (),
) -> Callable[[Network], Computed]:
    def compute(network: Network) -> Computed:
        with torch.autocast(batch.scenes.plane.device.type, dtype=torch.bfloat16, enabled=settings.bf16):
            if settings.uncertainty:
                return uncertainty_step(network, batch, passes)
            if triplets:
                pairs, others = triplets
                return triplet_step(network, stage, batch, pairs, others, passes)
            value, error = step_loss(network, batch, stage, extra, passes)
            if coarse is not None:
                lnet = dataclasses.replace(stage, levels=(4, 3), robust=False)
                value = value + step_loss(network, coarse, lnet, 0, passes)[0]
            return value, error

    return compute


def step_loss(network: Any, batch: Batch, stage: Stage, extra: int = 0, passes: int = 1) -> tuple[Tensor, float]:
    """The loss of one batch, and the mean error of its finest level in pixels of that level's frame."""
    target, source = batch.features(network, high=1 in stage.levels or len(LEVELS[network.config.network]) == 3)
    flows = predict(network, target, source, stage.levels, extra, stage.detach, passes)
    levels = [*flows.levels, *flows.extra]
    grids = [tuple(flow.shape[-2:]) for flow in levels]
    true = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, grids)  # type: ignore[arg-type]
    learn = [level not in stage.frozen for level in stage.levels] + [True] * len(flows.extra)
    value = loss(levels, true, stage.robust, learn)
    if network.has_descriptors and learn[0]:
        value = value + descriptor_loss(network.descriptor_logits(target, source), true[0])
    finest = len(flows.levels) - 1
    with torch.no_grad():
        return value, float(level_error(levels[finest], true[finest]))


def triplet_step(
    network: Any, stage: Stage, batch: Batch, pairs: Batch, others: Batch, passes: int = 1
) -> tuple[Tensor, float]:
    """As `step_loss` of levels 4 and 3, with warp consistency from `pairs`' target by `others`' to `pairs`' source."""
    target, source = (read(held, network, high=False) for held in detours(batch, pairs, others))
    parts = [len(some.target_view) for some in (batch, pairs, others)]
    flows = predict(network, target, source, stage.levels, 0, stage.detach, passes).levels
    grids = [tuple(flow.shape[-2:]) for flow in flows]
    true, around = (
        truths(some.scenes, some.target_view, some.source_view, some.frame, grids)  # type: ignore[arg-type]
        for some in (batch, pairs)
    )
    losses = []
    for level, flow, direct, detour in zip(stage.levels, flows, true, around, strict=True):
        if level not in stage.frozen:
            there, first, second = flow.float().split(parts)
            error = level_error(there, direct)
            losses += [error, CONSISTENCY * bipath_error(first, second, detour)]
    if network.has_descriptors and 4 not in stage.frozen:
        there, first, second = network.descriptor_logits(target, source).split(parts)
        losses += [descriptor_loss(there, true[0]), CONSISTENCY * consistency_loss(first, second, around[0])]
    return torch.stack(losses).sum(), float(error.detach())


def uncertainty_step(network: Any, batch: Batch, passes: int = 1) -> tuple[Tensor, float]:
    """As `step_loss`, of the uncertainty head: the sources of an eighth of the pairs are exchanged for each other's."""
    related = batch.mixed(UNRELATED)
    with torch.no_grad():
        target, source = batch.features(network)
        flow = network.decode(target, source, passes=passes).flow1
        true = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, [flow.shape[-2:]] * 3)[-1]
    value = uncertainty_loss(network.mixture(target, source, flow), flow, true, related)
    shown = Truth(true.flow[related], true.in_view[related], true.visible[related])
    return value, float(level_error(flow[related], shown))


def schedule(step: int, progress: float, settings: Settings) -> float:
    """The share of the peak learning rate: warm-up over steps, then a cosine over the run's progress (0..1)."""
    warmup = settings.warmup
    if settings.steps and not settings.freeze_norms:  # from weights that exist a few steps at the peak do harm
        warmup = min(warmup, settings.steps // 10 + 1)
    least = min(1.0, settings.lr_end / settings.lr)
    cosine = 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))
    return min(1.0, (step + 1) / warmup) * (least + (1 - least) * cosine)


def _start(settings: Settings, init: str | Path | None) -> Network:
    if init is None and settings.uncertainty:
        raise GlunetError("What the uncertainty head says is of a network that has learned: name its weights (--init).")
    if init is None:
        fresh = build(settings.config)
        fresh.load_state_dict(network_state(fresh) | encoder_state())
        return fresh
    network: Any = read_network(init)[0]
    there, wanted = network.config.network, settings.config.network
    if there == wanted and (not settings.uncertainty or network.has_uncertainty):
        return network
    if there == wanted:
        headed: Network = build(dataclasses.replace(network.config, uncertainty=True))
        headed.load_state_dict(headed.state_dict() | network.state_dict())
        return headed
    if (there, wanted) != ("glunet", "semantic-glunet"):
        raise GlunetError(f"Weights '{init}' are {there}'s, of which {wanted} cannot start; expected {wanted}'s own.")
    # All that GLU-Net has the semantic network has in the same place; its consensus starts afresh.
    semantic = build(dataclasses.replace(network.config, network=wanted))
    semantic.load_state_dict(semantic.state_dict() | network.state_dict())
    return semantic


def _finished(weights: Path, step: int) -> dict[str, float] | None:
    """The validation of weights that were written at this step; None if there are none."""
    if not weights.exists():
        return None
    metadata = read_network(weights)[1]
    return metadata["validation"] if metadata["training"]["steps"] == step else None


def _is_encoder(key: str) -> bool:
    return key.startswith("encoder.")


def _chance(seed: int, step: int, what: int = 3) -> float:
    return float(torch.rand(1, generator=torch.Generator().manual_seed((seed << 32) + (what << 30) + step)))
