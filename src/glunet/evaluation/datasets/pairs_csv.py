"""Anybody's own benchmark: a CSV of image pairs with a flow file, a homography or points as truth."""

from functools import partial
from pathlib import Path

import numpy as np

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, FlowTruth, Pair, PointTruth, Sample
from glunet.evaluation.datasets.read import (
    expect_size,
    homography_flow,
    lines,
    read_image,
    read_mask,
    read_matrix,
    read_truth,
    table,
)
from glunet.evaluation.metrics import reference_size

COLUMNS = (
    "source, target and one of flow (.flo, KITTI .png, .npz on the target's grid), homography (nine numbers in a file,"
    " source to target) or points (a text file of lines x_target y_target x_source y_source); optionally name,"
    " group, mask"
)


def load(row: dict[str, str], folder: Path) -> Sample:
    """Images as they are; pixel centres at integers; a mask as a matcher reads it."""
    source, target = read_image(folder / row["source"]), read_image(folder / row["target"])
    references = {"": reference_size("image", image=source.shape[:2])}
    valid = np.ones(target.shape[:2], bool)
    if row.get("mask"):
        valid = read_mask(folder / row["mask"], target.shape, row["target"])
    if row.get("points"):
        path = folder / row["points"]
        content = lines(path, "a file of points")
        try:
            values = np.array([line.replace(",", " ").split() for line in content], np.float64)
            points = values.reshape(-1, 4)
        except ValueError as error:
            raise GlunetError(f"{path}: expected four numbers a line, x_target y_target x_source y_source.") from error
        x, y = np.nan_to_num(np.rint(points[:, :2])).astype(int).clip(0, np.array(valid.shape[::-1]) - 1).T
        points = points[valid[y, x]]
        return Sample(source, target, PointTruth(points[:, :2], points[:, 2:]), references)
    if row.get("flow"):
        path = folder / row["flow"]
        flow, known = read_truth(path)
        expect_size(path, flow.shape, target.shape, row["target"])
    else:
        flow, known = homography_flow(read_matrix(folder / row["homography"]), source.shape[:2], target.shape[:2])
    return Sample(source, target, FlowTruth(flow, valid & known), references)


def pairs(root: Path) -> list[Pair]:
    path = root / "pairs.csv" if root.is_dir() else root
    out = []
    for number, row in table(path, ("source", "target"), f"a CSV with the columns {COLUMNS}"):
        if not (row["source"] and row["target"]):
            raise GlunetError(f"{path}, line {number}: no source or no target; expected the columns {COLUMNS}.")
        truths = [kind for kind in ("flow", "homography", "points") if row.get(kind)]
        if len(truths) != 1:
            raise GlunetError(
                f"{path}, line {number}: {' and '.join(truths) or 'no truth'} given; expected exactly one of flow,"
                " homography and points."
            )
        name = row.get("name") or f"{number - 1:04d} {Path(row['source']).stem}-{Path(row['target']).stem}"
        out.append(Pair(name, partial(load, row, path.parent), row.get("group", ""), unit=name))
    return out


PAIRS = Benchmark(
    name="pairs",
    title="Your own pairs",
    task="geometric",
    pairs=pairs,
    metrics=("aepe", "median", "pck1", "pck3", "pck5", "pck10", "pck_0.05"),
    summary=("median", "pck5", "pck10"),
    by_group=("aepe", "median", "pck5", "pck10"),
    alphas=(0.05,),
    layout=f"a CSV, or a folder with pairs.csv: columns {COLUMNS}",
    origin="your own photographs; docs/examples/pairs is a worked example",
    licence="yours",
    protocol="Images as they are; mean and median of the pairs' means; PCK at alpha times the source's longer side.",
)
