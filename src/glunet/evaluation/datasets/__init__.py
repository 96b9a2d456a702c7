"""Every evaluation set by its name. A new one is a module of the same shape and a line here."""

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, FlowTruth, HomographyTruth, Pair, PointTruth, Sample
from glunet.evaluation.datasets.eth3d import ETH3D
from glunet.evaluation.datasets.flyingchairs import FLYINGCHAIRS
from glunet.evaluation.datasets.hpatches import HPATCHES, HPATCHES_240, HPATCHES_HOMOGRAPHY
from glunet.evaluation.datasets.kitti import KITTI2012, KITTI2015
from glunet.evaluation.datasets.middlebury import MIDDLEBURY
from glunet.evaluation.datasets.motorcycle import MOTORCYCLE
from glunet.evaluation.datasets.oxford_affine import OXFORD_AFFINE
from glunet.evaluation.datasets.pairs_csv import PAIRS
from glunet.evaluation.datasets.pf_pascal import PF_PASCAL
from glunet.evaluation.datasets.pf_willow import PF_WILLOW
from glunet.evaluation.datasets.point_lists import MEGADEPTH, ROBOTCAR
from glunet.evaluation.datasets.sintel import SINTEL
from glunet.evaluation.datasets.spair import SPAIR
from glunet.evaluation.datasets.tss import TSS

_ALL = (
    HPATCHES_240,
    HPATCHES,
    HPATCHES_HOMOGRAPHY,
    OXFORD_AFFINE,
    ETH3D,
    MEGADEPTH,
    ROBOTCAR,
    MOTORCYCLE,
    MIDDLEBURY,
    KITTI2012,
    KITTI2015,
    SINTEL,
    FLYINGCHAIRS,
    TSS,
    PF_WILLOW,
    PF_PASCAL,
    SPAIR,
    PAIRS,
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
    "FlowTruth",
    "HomographyTruth",
    "Pair",
    "PointTruth",
    "Sample",
    "benchmark",
]
