"""How to train: stages and settings, as plain values. Measured figures are in docs/weights.md."""

from dataclasses import dataclass, field, replace

from glunet.errors import GlunetError
from glunet.network.family import Config, configure
from glunet.network.glunet import LNET_SIZE, GLUNetConfig
from glunet.training.scenes import SceneParameters

# The levels of each network, coarse to fine, which a loss can be on.
LEVELS = {
    "glunet": (4, 3, 2, 1), "semantic-glunet": (4, 3, 2, 1),
    "local-net": (4, 3, 2), "global-net": (4, 3, 2), "glocal-net": (4, 3, 2),
}  # fmt: skip
SQUARE = (LNET_SIZE, LNET_SIZE)  # the only frame that the networks with three levels learn on

# Residual decoders have half the parameters of dense ones and are trained in a third of the time on a CPU.
SMALL = GLUNetConfig("residual", "residual", "bilinear")


@dataclass(frozen=True)
class Stage:
    """A part of a run.

    Attributes:
        until: share of the run at which it ends.
        levels: which levels learn: (4,), (4, 3) or all that the network has (`LEVELS`).
        batch: pairs a step. BatchNorm in train mode wants at least 8 different scenes.
        refresh: batches of new scenes (4 scenes of 4 views) encoded a step, on average.
        frames: (height, width) of the scenes' views; each has a pool of its own, taken in turn.
        coarse: pairs more a step of the 256 frame for the L-Net's two levels, which cost a tenth of all four.
        extra: share of steps with one extra level.
        robust: see `loss.level_error`.
        detach: no gradient from a level into the flow of the coarser ones (`GLUNet.decode`).
        frozen: levels that learn no more, which needs `detach`: what the others start from stays as it is.
        passes: most passes over a flow (`GLUNet.decode`); a step takes one of 1 to so many, and learns from the last.
        triplets: so many more a step, of two views of a photograph and one of another that shows the same kind of thing
            (`similar.similar`), levels 4 and 3 alone: warp consistency (Truong et al., ICCV 2021).
    """

    name: str
    until: float
    levels: tuple[int, ...]
    batch: int
    refresh: float
    frames: tuple[tuple[int, int], ...] = (SQUARE,)
    coarse: int = 0
    extra: float = 0.0
    robust: bool = False
    detach: bool = False
    frozen: tuple[int, ...] = ()
    passes: int = 1
    triplets: int = 0


# Frames that are not square: decoders read flow in raw pixels, and beyond +-128 they see nothing at 256.
LARGE_FRAMES = ((256, 256), (384, 512), (512, 384), (368, 640))

# glunet train PHOTOS --out RUN --minutes 120
# Two hours on two busy CPU cores, in stages like these, gave the package's first weights: HPatches-240 21.9 px,
# motorcycle 5.8, Middlebury 0.84, TSS 91 %, PF-WILLOW 58 % (parts of the sets; docs/weights.md).
# All large motion hangs on the global level, which sees a hundred pairs a second on two CPU cores and is the last to
# stop getting better: it has a fifth of the run to itself and more pairs than the rest ever after. Level 1 costs four
# times as much as all others together, so that it begins when what it starts from is good.
FULL = (
    Stage("global", 0.20, (4,), batch=64, refresh=0.25),
    Stage("lnet", 0.35, (4, 3), batch=32, refresh=0.25),
    Stage("all", 0.80, (4, 3, 2, 1), batch=12, refresh=0.2, coarse=32),
    Stage("large", 1.0, (4, 3, 2, 1), batch=8, refresh=0.1, frames=LARGE_FRAMES, coarse=32, extra=0.4, robust=True),
)

# glunet train PHOTOS --out RUN --init glunet --minutes 30
# For some hundred photographs of one's own kind: all levels at once from weights that exist, with BatchNorm's
# statistics left as they are; then large frames around level 4, which eight pairs and a robust loss would make worse.
_OWN = {"levels": (4, 3, 2, 1), "coarse": 32, "detach": True, "passes": 2}
FINETUNE = (
    Stage("all", 0.7, batch=12, refresh=0.3, **_OWN),  # type: ignore[arg-type]
    Stage("large", 1.0, batch=8, refresh=0.12, frames=LARGE_FRAMES[:3], robust=True, frozen=(4,), **_OWN),  # type: ignore[arg-type]
)

# glunet train PHOTOS --out RUN --init glunet --recipe global --minutes 60
# The global level of weights that exist, alone, from many scenes: it gets better so and a little worse whenever all
# levels learn. An hour of two CPU cores brought the package's from 12.7 to 12.0 px on validation scenes.
GLOBAL = (Stage("global", 1.0, (4,), batch=64, refresh=0.35),)

# glunet train PHOTOS --out RUN --init glunet --recipe semantic --minutes 40
# Level 4 again, then level 3 around it, from different photographs of one kind of thing as well, which are found first.
SEMANTIC = (
    Stage("semantic", 0.6, (4,), batch=48, refresh=0.3, triplets=32),
    Stage("semantic 3", 1.0, (4, 3), batch=32, refresh=0.2, detach=True, frozen=(4,), passes=3, triplets=16),
)
# Their scenes: milder, since the photographs differ by themselves, and without objects in front.
KIND = SceneParameters(
    amounts=((0.0, 0.25), (0.25, 0.7)), shares=(0.3, 0.7), any_angle=0.0, still=0.0, rotation=0.35, parallax=0.0,
    objects=0, zoom=(0.75, 1.0),
)  # fmt: skip

# glunet train PHOTOS --out RUN --init glunet --recipe fine --minutes 80
# Then the other levels around it, in one to three passes, as they are in use, while it stays. In at most two, 80 min
# of one CPU thread, half of the scenes steep: HPatches-240 8.7 to 8.1 px, its PCK-5 72.7 to 73.5 %; motorcycle,
# Middlebury, KITTI and FlyingChairs within 4 % of what they were. In at most three, levels 2 and 1 alone, 62 minutes:
# the motorcycle 2.36 to 2.31 px, FlyingChairs 3.43 to 3.30 px (parts of the sets; docs/weights.md).
_AROUND = {"levels": (4, 3, 2, 1), "coarse": 24, "detach": True, "frozen": (4,), "passes": 3}
FINE = (
    Stage("all", 0.45, batch=12, refresh=0.15, **_AROUND),  # type: ignore[arg-type]
    Stage("large", 1.0, batch=8, refresh=0.06, frames=LARGE_FRAMES[:3], robust=True, **_AROUND),  # type: ignore[arg-type]
)


# glunet train PHOTOS --out RUN --init glunet --recipe uncertainty --minutes 60
# How far off the flow of weights that exist may be, while it stays.
_ALL = {"levels": (4, 3, 2, 1), "passes": 3}
UNCERTAINTY = (
    Stage("uncertainty", 1.0, batch=10, refresh=0.15, frames=(SQUARE, SQUARE, SQUARE, (384, 512)), **_ALL),  # type: ignore[arg-type]
)


@dataclass(frozen=True)
class Settings:
    """How to train. Either `minutes` or `steps` bounds the run, and the schedule fits it.

    Attributes:
        lr: peak of AdamW's learning rate: 1e-3 is what a short run affords, the paper's 1e-4 needs 250,000 steps.
        lr_end: where the cosine ends, if the peak is above it.
        warmup: steps up to the peak, at most a tenth of a run bounded by steps; of one that leaves BatchNorm's
            statistics alone (from weights that exist) always so many.
        clip: largest gradient norm.
        ema: decay of the averaged weights, which are what is saved.
        norm_batches: how many batches BatchNorm's statistics of the averaged weights are estimated over, at each
        saving.
        freeze_norms: leave BatchNorm's statistics as they are, for fine-tuning on few photographs.
        encoder_lr: of the encoder; 0 keeps VGG-16 frozen, which lets features be kept and is several times as fast.
        every: minutes between checkpoints.
        bf16: encoder and decoders in bfloat16, but for what must not (heads, normalisation, coordinates, loss). The
            command line measures whether it pays.
        compile: decoders through torch.compile, on CUDA only, whatever is asked for elsewhere: compiling takes minutes,
            which a CPU does not earn back. Off until `python -m benchmarks.training --compile` says that it pays there.
        pool_memory: bytes of features kept for each frame size.
        photometric: strength of the photometric differences.
        scenes: how scenes are drawn.
        styles: share of images whose coarse features take on a part of another image's style (`Batch.restyle`).
        uncertainty: nothing but the uncertainty head learns (`glunet.network.uncertainty`), which weights to start from
            that have none are given.
        config: the network; of one that starts from weights its name alone counts.
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
    norm_batches: int = 48
    freeze_norms: bool = False
    encoder_lr: float = 0.0
    seed: int = 0
    every: float = 8.0
    bf16: bool = True
    compile: bool = False
    pool_memory: int = 1 << 30
    photometric: float = 1.0
    scenes: SceneParameters = field(default_factory=SceneParameters)
    validation_pairs: int = 64
    styles: float = 0.0
    uncertainty: bool = False
    config: Config = SMALL


_CAREFUL = Settings(warmup=60, freeze_norms=True, photometric=1.2)  # around what is to stay
RECIPES = {
    "full": Settings(minutes=120),
    "finetune": Settings(minutes=30, stages=FINETUNE, lr=2e-4, warmup=100, freeze_norms=True),
    "global": Settings(minutes=60, stages=GLOBAL, lr=5e-4, warmup=100, scenes=SceneParameters(steep=0.5), styles=0.3),
    "semantic": Settings(
        minutes=40, stages=SEMANTIC, lr=2e-4, warmup=50, scenes=SceneParameters(steep=0.5), styles=0.3
    ),
    "fine": replace(_CAREFUL, minutes=80, stages=FINE, lr=2e-4, scenes=SceneParameters(steep=0.5)),
    "uncertainty": replace(
        _CAREFUL, minutes=60, stages=UNCERTAINTY, lr=1e-3, scenes=SceneParameters(steep=0.25), uncertainty=True
    ),
}


SHORT = 10.0  # minutes
_FEW = 8  # pairs: the least that BatchNorm in train mode wants


def for_time(settings: Settings) -> Settings:
    """A run of a few minutes learns from small batches of one frame, or encoding the first scenes would take it all."""
    if settings.minutes is None or settings.minutes >= SHORT:
        return settings
    stages = tuple(
        replace(
            stage,
            batch=min(stage.batch, _FEW),
            coarse=min(stage.coarse, _FEW),
            frames=stage.frames[:1],
            triplets=min(stage.triplets, _FEW),
        )
        for stage in settings.stages
    )
    return replace(settings, stages=stages, validation_pairs=min(settings.validation_pairs, _FEW))


def for_network(settings: Settings, network: str) -> Settings:
    """The settings for another network of the family (`glunet.network.family`), its stages as far as they fit it.

    The networks with three levels learn on the 256 frame alone, in whose last stage only the loss differs then. A pair
    of the semantic network costs its 4-D convolutions, several times GLU-Net's whole level 4, so that it has smaller
    batches.
    """
    if network == "glunet":
        return settings
    levels, three = LEVELS[network], len(LEVELS[network]) == 3
    stages = []
    for stage in settings.stages:
        stage = replace(stage, levels=tuple(level for level in stage.levels if level in levels))
        if three:
            stage = replace(stage, detach=False, frozen=(), passes=1, triplets=0)
        if three and stage.frames != (SQUARE,):
            stage = replace(stage, name="robust" if stage.robust else stage.name, frames=(SQUARE,), extra=0.0)
        if network == "semantic-glunet":
            stage = replace(
                stage, batch=min(stage.batch, 16), coarse=min(stage.coarse, 8), triplets=min(stage.triplets, 8)
            )
        stages.append(stage)
    small = {} if three else {"upsampling": SMALL.upsampling}
    config = configure(network, decoder=SMALL.decoder, mapping_decoder=SMALL.mapping_decoder, **small)
    return replace(settings, stages=tuple(stages), config=config)


def check_fit(settings: Settings) -> None:
    """Whether the network has what its stages ask of it.

    Raises:
        GlunetError: if not; `for_network` makes stages that fit.
    """
    network = settings.config.network
    if settings.uncertainty and network != "glunet":
        raise GlunetError(f"The uncertainty head is glunet's, but {network} came: choose another recipe.")
    levels = LEVELS[network]
    for stage in settings.stages:
        if stage.levels not in ((4,), (4, 3), levels):
            raise GlunetError(f"Stage '{stage.name}' trains the levels {stage.levels}, but {network} has {levels}.")
        if len(levels) == 3 and (stage.frames != (SQUARE,) or stage.extra):
            raise GlunetError(
                f"Stage '{stage.name}' has other frames than 256 x 256, or extra levels, which {network} does not know."
            )
        if len(levels) == 3 and (stage.detach or stage.passes > 1 or stage.triplets):
            raise GlunetError(
                f"Stage '{stage.name}' detaches levels from each other, or has several passes or triplets, which "
                f"{network} does not."
            )
        if stage.triplets and stage.levels not in ((4,), (4, 3)):
            raise GlunetError(
                f"Stage '{stage.name}' has triplets and trains the levels {stage.levels}: they teach 4 and 3 alone."
            )
        if stage.frozen and not stage.detach:
            raise GlunetError(f"Stage '{stage.name}' has frozen levels, {stage.frozen}: that needs detach=True.")
