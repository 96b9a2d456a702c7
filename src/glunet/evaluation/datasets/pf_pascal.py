"""PF-PASCAL: key points of objects of twenty classes, the official list of 308 test pairs."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, Pair, PointTruth, Sample
from glunet.evaluation.datasets.read import below, read_image, read_mat, separated, table
from glunet.evaluation.metrics import reference_size

FOLDERS = ("PF-PASCAL", "PF-Pascal", "PF-dataset-PASCAL")
LISTS = ("test_pairs_pf_pascal.csv", "test_pairs.csv")
LAYOUT = (
    "ROOT/test_pairs.csv, ROOT/PF-dataset-PASCAL/JPEGImages/*.jpg and, where the list has no points,"
    " Annotations/CLASS/*.mat"
)
CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow", "diningtable", "dog"),
    *("horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)


def load(source_path: Path, target_path: Path, points: tuple[NDArray[np.float64], ...] | tuple[Path, ...]) -> Sample:
    """Key points known in both images, carried from target to source; both usual reference sizes, of the source."""
    # MATLAB's pixels, 1-based, in the list as in the annotations; unannotated ones are NaN.
    source_points, target_points = (
        (read_mat(item, "kps") if isinstance(item, Path) else item)[:, :2] - 1 for item in points
    )
    if source_points.shape != target_points.shape:
        raise GlunetError(
            f"{source_path.stem} and {target_path.stem} have not as many key points: expected the same ones."
        )
    known = np.isfinite(source_points).all(axis=1) & np.isfinite(target_points).all(axis=1)
    if not known.any():
        raise GlunetError(f"{source_path.stem} and {target_path.stem} have no key point in common.")
    source = read_image(source_path)
    references = {
        "img": reference_size("image", image=source.shape[:2]),
        "kp": reference_size("keypoints", points=source_points[known]),
    }
    return Sample(source, read_image(target_path), PointTruth(target_points[known], source_points[known]), references)


def pairs(root: Path) -> list[Pair]:
    root = below(root, *FOLDERS[:2])
    path = next((folder / name for folder in (root, root.parent) for name in LISTS if (folder / name).is_file()), None)
    if path is None:
        raise GlunetError(f"{root}: no list {' or '.join(LISTS)}; expected {LAYOUT}.")
    data = below(root, "PF-dataset-PASCAL")
    out = []
    for number, row in table(path, ("source_image", "target_image", "class"), "the list of test pairs"):
        source, target = (data / "JPEGImages" / Path(row[k]).name for k in ("source_image", "target_image"))
        label = row["class"]
        try:
            group = CLASSES[int(label) - 1] if label.isdigit() else label
            if "XA" in row:
                a, b = (np.stack((separated(row["X" + k]), separated(row["Y" + k])), axis=1) for k in "AB")
                load_pair = partial(load, source, target, (a, b))
            else:
                mats = tuple(data / "Annotations" / group / f"{image.stem}.mat" for image in (source, target))
                load_pair = partial(load, source, target, mats)
        except (KeyError, ValueError, IndexError) as error:
            raise GlunetError(
                f"{path}, line {number}: expected source_image, target_image, class and, with points, XA, YA,"
                f" XB, YB"
                f" of one length ({error})."
            ) from error
        name = f"{group}/{source.stem}-{target.stem}"
        out.append(Pair(name, load_pair, group, unit=name))
    return out


PF_PASCAL = Benchmark(
    name="pf-pascal",
    title="PF-PASCAL",
    task="semantic",
    pairs=pairs,
    metrics=("pck_0.1_img", "pck_0.05_img", "pck_0.1_kp", "pck_0.05_kp"),
    alphas=(0.1, 0.05),
    unit="test pairs",
    full=308,
    folders=FOLDERS,
    layout=LAYOUT,
    origin="https://www.di.ens.fr/willow/research/proposalflow/ (PF-dataset-PASCAL.zip; the test list is that of"
    " SCNet)",
    licence="for research; the authors ask to be cited (Ham et al., TPAMI 2018); images from PASCAL VOC (Flickr terms)",
    protocol="Key points carried from target to source; PCK at alpha times the longer side of the source (img) and"
    " of the box"
    " of its key points (kp), mean over pairs.",
)
