"""Real sets to steer by: `glunet train PHOTOS --out RUN --validate-on hpatches-240=ROOT --validate-on all:6=DEVSET`.

The network alone by the paper's protocol (one pass, no pyramid), without search and polish, which would hide what it
learns; beside the figures of its last level stand the first metric's of level 4 alone.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from glunet.errors import GlunetError
from glunet.evaluation import BENCHMARKS, Dataset, Glunet, benchmark, evaluate
from glunet.evaluation.baselines import Flow, Image
from glunet.evaluation.run_all import find
from glunet.flow.geometry import as_array, as_tensor, frame_flow_to_source
from glunet.inference import frames
from glunet.matcher import Matcher
from glunet.network.family import Network
from glunet.network.glunet import LNET_SIZE

PAIRS = 24  # of a set, spread evenly: a checkpoint should not wait for minutes
SHARE = 0.05  # of a run's time, at most, that real sets may take
_LNET = (LNET_SIZE, LNET_SIZE)


@dataclass(frozen=True)
class RealSet:
    """An evaluation set to measure the weights on.

    Attributes:
        pairs: at most so many of it.
    """

    dataset: Dataset
    pairs: int = PAIRS

    def __call__(self, network: Network, bfloat16: bool = False) -> dict[str, float]:
        """The set's own figures as `glunet eval` makes them, named "hpatches-240 aepe": pixels, or shares 0..1.

        Of a network with a global level also "hpatches-240 aepe level 4", of the first metric.

        Args:
            network: as it is now, at full size (`Matcher`); its mode is evaluation afterwards.
            bfloat16: encode in bfloat16 (`evaluation.Glunet`).
        """
        matcher = Matcher(network, "training")
        results = evaluate(self.dataset, Glunet(matcher, bfloat16=bfloat16), self.pairs)
        name, metrics = self.dataset.benchmark.name, self.dataset.benchmark.metrics
        figures = {f"{name} {metric}": results.figure(metric) for metric in metrics}
        if network.two_frames:
            coarse = evaluate(self.dataset, Level4(matcher, bfloat16=bfloat16), self.pairs)
            figures[f"{name} {metrics[0]} level 4"] = coarse.figure(metrics[0])
        return figures

    def __str__(self) -> str:
        count = len(self.dataset.limited(self.pairs))
        return f"{self.dataset.benchmark.name}, {count} of {len(self.dataset.pairs)} pairs"


class RealSets:
    """Real sets, measured at a checkpoint if all of them so far took at most a twentieth of the run.

    Attributes:
        seconds: what they took.
    """

    def __init__(self, sets: Sequence[RealSet]) -> None:
        self.sets, self.seconds = tuple(sets), 0.0

    def __call__(self, network: Network, bfloat16: bool, elapsed: float, last: bool) -> dict[str, float]:
        """The figures of all sets; none where it is too early for them again.

        Args:
            elapsed: seconds of the run so far.
            last: of the run; then they are measured whatever it takes.
        """
        if self.seconds > SHARE * elapsed and not last:
            return {}
        began = time.monotonic()
        figures: dict[str, float] = {}
        for one in self.sets:
            figures |= one(network, bfloat16)
        self.seconds += time.monotonic() - began
        return figures


class Level4(Glunet):
    """The global level alone, its flow at 16 x 16 brought to the target's size."""

    @torch.inference_mode()
    def match_many(self, pairs: list[tuple[Image, Image]]) -> list[Flow]:
        computation, flows = self.matcher.computation, []
        for source, target in pairs:
            images = (as_tensor(image).float() for image in (target, source))
            ours, theirs = (computation.encode(image.to(self.matcher.device), _LNET) for image in images)
            network: Any = computation.inference
            size = (target.shape[0], target.shape[1])
            flow = frames.finish(network.level4(ours, theirs).float(), size, _LNET)
            flow = frame_flow_to_source(flow, (source.shape[0], source.shape[1]))
            flows.append(as_array(flow[0]))
        return flows


def open_real(text: str) -> list[RealSet]:
    """Sets from NAME=ROOT, as `glunet eval NAME ROOT` has it, or all=ROOT; NAME:N=ROOT takes N pairs of each.

    Raises:
        GlunetError: it is not of that form, there is no such set, or it is not there.
    """
    name, equals, root = text.partition("=")
    name, colon, count = name.partition(":")
    if not equals or not root or (colon and not (count.isdigit() and int(count))):
        raise GlunetError(
            f"'{text}' names no set to validate on; expected NAME=ROOT or NAME:PAIRS=ROOT, e.g. "
            "hpatches-240=data/hpatches."
        )
    pairs = int(count) if colon else PAIRS
    if name == "all":
        return [RealSet(one.open(folder), pairs) for one, folder in find(root)]
    if name not in BENCHMARKS:
        raise GlunetError(f"no evaluation set {name!r} to validate on; there are all, {', '.join(BENCHMARKS)}.")
    return [RealSet(benchmark(name).open(root), pairs)]
