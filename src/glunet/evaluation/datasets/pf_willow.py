"""PF-WILLOW: ten key points on each of ten photographs of ten classes, every ordered pair within a class."""

from functools import partial
from itertools import permutations
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, Pair, PointTruth, Sample
from glunet.evaluation.datasets.read import below, folders, need, read_image, read_mat
from glunet.evaluation.metrics import reference_size

FOLDERS = ("PF-dataset-WILLOW", "PF-WILLOW", "PF-dataset")
LAYOUT = "ROOT/CLASS/NAME.png and NAME.mat"


def key_points(path: Path) -> NDArray[np.float64]:
    """N x 2 key points of a .mat file, from MATLAB's 1-based pixels to ours."""
    points = read_mat(path, "pts_coord")
    if points.shape[0] != 2 or not np.isfinite(points).all():
        raise GlunetError(f"{path}: expected pts_coord to be 2 x 10 finite numbers, got shape {points.shape}.")
    return points.T - 1


def load(source: Path, target: Path) -> Sample:
    """Key points of the target carried to the source; the reference is the box of the source's key points."""
    source_points, target_points = key_points(source.with_suffix(".mat")), key_points(target.with_suffix(".mat"))
    if source_points.shape != target_points.shape:
        raise GlunetError(
            f"{source.with_suffix('.mat')} has {len(source_points)} key points, "
            f"{target.with_suffix('.mat').name} {len(target_points)}; expected as many."
        )
    truth = PointTruth(target_points, source_points)
    return Sample(
        read_image(source), read_image(target), truth, {"": reference_size("keypoints", points=source_points)}
    )


def pairs(root: Path) -> list[Pair]:
    root = below(root, *FOLDERS)
    out = []
    for folder in folders(root):
        images = sorted({path.with_suffix(".png") for kind in ("*.png", "*.mat") for path in folder.glob(kind)})
        for image in images:
            need(image, "the image of the key points of that name")
            need(image.with_suffix(".mat"), "the key points of the image of that name")
        for source, target in permutations(images, 2):
            name = f"{folder.name}/{source.stem}-{target.stem}"
            out.append(Pair(name, partial(load, source, target), folder.name, unit=name))
    return out


PF_WILLOW = Benchmark(
    name="pf-willow",
    title="PF-WILLOW",
    task="semantic",
    pairs=pairs,
    metrics=("pck_0.1", "pck_0.05"),
    alphas=(0.1, 0.05),
    unit="ordered pairs",
    full=900,
    folders=FOLDERS,
    layout=LAYOUT,
    origin="https://www.di.ens.fr/willow/research/proposalflow/ (PF-dataset.zip)",
    licence="for research; the authors ask to be cited (Ham et al., CVPR 2016)",
    protocol="Ten key points carried from target to source, all ordered pairs within a class; PCK at alpha times the"
    " longer side of the box of the source's key points, mean over pairs.",
)
