"""Every evaluation set by its name. A new one is a module of the same shape and a line here."""

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, Dataset, FlowTruth, HomographyTruth, Pair, PointTruth, Sample
from glunet.evaluation.datasets.flyingchairs import FLYINGCHAIRS
from glunet.evaluation.datasets.hpatches import HPATCHES, HPATCHES_240
from glunet.evaluation.datasets.kitti import KITTI2012
from glunet.evaluation.datasets.middlebury import MIDDLEBURY
from glunet.evaluation.datasets.motorcycle import MOTORCYCLE
from glunet.evaluation.datasets.pf_willow import PF_WILLOW
from glunet.evaluation.datasets.tss import TSS

_ALL = (
    HPATCHES_240,
    HPATCHES,
    MOTORCYCLE,
    MIDDLEBURY,
    KITTI2012,
    FLYINGCHAIRS,
    TSS,
    PF_WILLOW,
)
BENCHMARKS: dict[str, Benchmark] = {benchmark.name: benchmark for benchmark in _ALL}


def benchmark(name: str) -> Benchmark:
    """The benchmark of that name.

    Raises:
        GlunetError: there is none.
    """
    if name not in BENCHMARKS:
        raise GlunetError(f"no evaluation set {name!r}; there are {', '.join(BENCHMARKS)}.")
    return BENCHMARKS[name]


__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "Dataset",
    "FlowTruth",
    "HomographyTruth",
    "Pair",
    "PointTruth",
    "Sample",
    "benchmark",
]
