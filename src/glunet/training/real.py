"""Validation on a real set: `glunet train PHOTOS --out RUN --validate-on hpatches-240=ROOT`."""

from dataclasses import dataclass

from glunet.errors import GlunetError
from glunet.evaluation import BENCHMARKS, Dataset, Glunet, benchmark, evaluate
from glunet.evaluation.datasets import FlowTruth
from glunet.matcher import Matcher
from glunet.network.family import Network

PAIRS = 24  # of a set, spread evenly: a checkpoint should not wait for minutes


@dataclass(frozen=True)
class RealSet:
    """An evaluation set to measure the weights on at every checkpoint.

    Attributes:
        pairs: at most so many of it.
    """

    dataset: Dataset
    pairs: int = PAIRS

    def __call__(self, network: Network, bfloat16: bool = False) -> dict[str, float]:
        """The set's own figures as `glunet eval` makes them, named "hpatches-240 aepe": pixels, or shares 0..1.

        Args:
            network: as it is now, at full size (`Matcher`); its mode is evaluation afterwards.
            bfloat16: encode in bfloat16 (`evaluation.Glunet`).
        """
        results = evaluate(self.dataset, Glunet(Matcher(network, "training"), bfloat16=bfloat16), self.pairs)
        name, metrics = self.dataset.benchmark.name, self.dataset.benchmark.metrics
        return {f"{name} {metric}": results.figure(metric) for metric in metrics}

    def __str__(self) -> str:
        count = len(self.dataset.limited(self.pairs))
        return f"{self.dataset.benchmark.name}, {count} of {len(self.dataset.pairs)} pairs"


def open_real(text: str) -> RealSet:
    """A set from NAME=ROOT, as `glunet eval NAME ROOT` has it.

    Raises:
        GlunetError: it is not of that form, there is no such set, it is not there, or its truth is not dense.
    """
    name, equals, root = text.partition("=")
    if not equals or not root:
        raise GlunetError(f"'{text}' names no set to validate on; expected NAME=ROOT, e.g. hpatches-240=data/hpatches.")
    if name not in BENCHMARKS:
        raise GlunetError(f"no evaluation set {name!r} to validate on; there are {', '.join(BENCHMARKS)}.")
    dataset = benchmark(name).open(root)
    if not isinstance(dataset.pairs[0].load().truth, FlowTruth):
        raise GlunetError(f"{name} has no dense truth to validate on; take a set with one, e.g. hpatches-240.")
    return RealSet(dataset)
