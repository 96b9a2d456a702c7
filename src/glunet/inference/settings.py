"""How a matcher works: one set of settings, for `glunet.load`, `Matcher.with_`, the commands and the provenance."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from glunet.errors import GlunetError
from glunet.inference.confidence import CONFIDENCES, Confidence
from glunet.inference.polish import Polish, check_polish
from glunet.inference.search import Search, check_search
from glunet.inference.speed import SPEEDS, Speed
from glunet.inference.stages import Stages, check_stages

# What networks without a pyramid of passes do not know (`glunet.inference.frames.Framing.again`).
AGAIN = ("iterative_refinement", "pyramid", "passes", "enlarge_to", "anchor", "ensemble", "looks")


@dataclass(frozen=True)
class Settings:
    """The settings of a matcher. The defaults are the published protocol, and what official checkpoints get.

    Weights of ours carry their own defaults for all but the first two; `glunet.load` takes those unless told otherwise.

    Attributes:
        uint8_truncation: cut resized grey levels to whole numbers as the first public implementation does; an official
            checkpoint's keys cannot tell whether it was trained so.
        flipping: try each pair with the target mirrored as well: for two objects of one kind
            (`glunet.inference.flipping`).
        iterative_refinement: extra levels between L-Net and H-Net for large images.
        pyramid: instead of extra levels, match smaller copies of large images first and start from their flow
            (`glunet.inference.frames.pyramid`).
        passes: how often each local level goes over its flow (`GLUNet.decode`); if more than once, once more in the
            first frame, whose flow starts from level 4's.
        anchor: where two images do not look alike along the finest flow, level 4's stays if its features agree better
            with it (`glunet.network.anchor`): for things of one kind.
        ensemble: levels 4 and 3 decode the mirrored pair, too, and the mean of both flows counts (`GLUNet.encode`).
        looks: 2 lets the network look again where its global level finds one plane: at the source through that plane's
            homography (`glunet.inference.nearer`); more is no more. 1, as published: at the images as they lie.
        enlarge_to: a target of fewer pixels than a square of this side is matched in a frame of that many, at most
            twice as high and wide (`glunet.inference.frames.enlarged`): small motion is sharper, for as much more time.
            Frames are rounded up, and what becomes larger is interpolated. 0, as published: frames are rounded down.
        speed: "auto" (and its synonym "fast") computes in bfloat16 (float16 on a GPU without it) where that is measured
            to be faster on this device, for a flow that differs by some hundredths of a pixel, and else in float32;
            "exact" in float32 throughout (docs/speed.md).
        search: "auto" finds pairs that one pass of the network loses: keypoints are asked on every pair, and further
            hypotheses tried on those that agree badly with themselves (`glunet.inference.search`); "full" tries every
            one; "none" is the network's one pass.
        polish: "auto" sharpens the flow by the images themselves where these look alike (`glunet.inference.polish`),
            True everywhere, False not at all.
        plane: where a search finds that the scene is one plane, its homography takes the flow's place, but for what is
            sure to lie elsewhere (`glunet.inference.plane.flattened`). Not for measuring relief or small motion on it.
        confidence: what tells where a flow may be trusted (`Match.confidence_kind`): "learned" is the network itself,
            in one pass, "roundtrip" the way back; "auto" is "learned" with networks that have learned it.
        stages: of PDC-Net, which says how sure it is: "D" passes directly, "H" again through a homography, "MS" at
            several scales first (`glunet.inference.stages`). The way back is always direct.

    Raises:
        GlunetError: a value that is none of these.
    """

    uint8_truncation: bool = False
    flipping: bool = False
    iterative_refinement: bool = True
    pyramid: bool = False
    passes: int = 1
    anchor: bool = False
    ensemble: bool = False
    looks: int = 1
    enlarge_to: int = 0
    speed: Speed = "exact"
    search: Search = "none"
    polish: Polish = False
    plane: bool = False
    confidence: Confidence = "auto"
    stages: Stages = "D"

    def __post_init__(self) -> None:
        for name in ("passes", "looks"):
            count = getattr(self, name)
            if not isinstance(count, int) or isinstance(count, bool) or count < 1:
                asked = f"{count!r} {name} were asked for"
                raise GlunetError(f"{asked}: ask for a whole number, 1 (as in the paper) or more.")
        if not isinstance(self.enlarge_to, int) or isinstance(self.enlarge_to, bool) or self.enlarge_to < 0:
            raise GlunetError(
                f"enlarge_to={self.enlarge_to!r} came: it is a whole number of pixels, a square's side; 0 for none."
            )
        for name in ("plane", "anchor", "ensemble"):
            if not isinstance(getattr(self, name), bool):
                raise GlunetError(f"{name}={getattr(self, name)!r} came: it is True or False.")
        if self.speed not in SPEEDS:
            raise GlunetError(f"speed={self.speed!r} came: it is one of {', '.join(map(repr, SPEEDS))}.")
        if self.confidence not in CONFIDENCES:
            words = ", ".join(map(repr, CONFIDENCES))
            raise GlunetError(f"confidence={self.confidence!r} came: it is one of {words}.")
        check_search(self.search), check_polish(self.polish), check_stages(self.stages)

    @property
    def first_passes(self) -> int:
        """The passes in the first frame."""
        return self.passes + (self.passes > 1)

    @classmethod
    def of(cls, metadata: Mapping[str, Any], asked: Mapping[str, Any]) -> "Settings":
        """What was asked for, and where that says nothing (or None) what the metadata of weights say."""
        # "confidence" in a file is its calibration.
        known = {f.name: metadata[f.name] for f in fields(cls) if f.name in metadata and f.name != "confidence"}
        return cls(**known | {name: value for name, value in asked.items() if value is not None})

    def as_dict(self) -> dict[str, Any]:
        """For a match's provenance: what differs from the published protocol, and always what published ones differ in.

        "polish" is "on" where it is True, so that a reader of the line understands it.
        """
        plain, told = asdict(Settings()), {"uint8_truncation", "iterative_refinement"}
        said = {name: value for name, value in asdict(self).items() if name in told or value != plain[name]}
        return said | ({"polish": "on"} if said.get("polish") is True else {})
