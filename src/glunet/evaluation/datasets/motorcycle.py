"""One stereo pair of Middlebury 2014 that scikit-image carries: needs no folder."""

from pathlib import Path

import numpy as np

from glunet.errors import needed
from glunet.evaluation.datasets.base import Benchmark, FlowTruth, Pair, Sample


def load() -> Sample:
    """Target = left, source = right: the flow is minus the disparity along x."""
    with needed("motorcycle needs scikit-image", "eval"):
        from skimage.data import stereo_motorcycle
    left, right, disparity = stereo_motorcycle()
    valid = np.isfinite(disparity) & (disparity > 0)
    flow = np.zeros((*disparity.shape, 2), np.float32)
    flow[..., 0] = np.where(valid, -disparity, 0)
    return Sample(np.ascontiguousarray(right[..., :3]), np.ascontiguousarray(left[..., :3]), FlowTruth(flow, valid))


def pairs(root: Path) -> list[Pair]:
    return [Pair("motorcycle", load, unit="motorcycle")]


MOTORCYCLE = Benchmark(
    name="motorcycle",
    title="Motorcycle (stereo)",
    task="geometric",
    pairs=pairs,
    metrics=("aepe", "pck1", "pck3", "pck5"),
    full=1,
    layout="nothing: the pair comes with scikit-image",
    origin="scikit-image (skimage.data.stereo_motorcycle), from Middlebury Stereo 2014",
    licence="CC0 (Scharstein et al., GCPR 2014, with their permission)",
    protocol="Target left, source right, half size; flow is minus the disparity where that is known.",
    needs_root=False,
)
