"""From one pair's predicted flow and truth to its score."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, FlowTruth, HomographyTruth, Pair, PointTruth, Sample
from glunet.evaluation.metrics import corner_error, epe, fl_outliers
from glunet.evaluation.results import Score

PIXEL_THRESHOLDS = (1, 3, 5, 10)


def check_sample(sample: Sample) -> None:
    """Raise when a truth cannot be measured against: another size, nothing valid, a sentinel or NaN among the valid."""
    truth, size = sample.truth, sample.target.shape[:2]
    if isinstance(truth, FlowTruth):
        if truth.flow.shape != (*size, 2) or truth.valid.shape != size:
            raise GlunetError(
                f"truth of {truth.flow.shape[1]}x{truth.flow.shape[0]} pixels for a target of {size[1]}x{size[0]}."
            )
        if not truth.valid.any():
            raise GlunetError(
                "no pixel of the truth is valid; the mask is empty or every value is the sign of unknown."
            )
        known = truth.flow[truth.valid]
        if not np.isfinite(known).all() or np.abs(known).max() > 1e6:
            raise GlunetError("the truth has values beyond any image among its valid pixels; is a mask missing?")
    elif isinstance(truth, PointTruth):
        if truth.target.shape != truth.source.shape or truth.target.ndim != 2 or truth.target.shape[1] != 2:
            raise GlunetError(
                f"expected as many points in both images, got {truth.target.shape}, {truth.source.shape}."
            )
        if not len(truth.target):
            raise GlunetError("no point is annotated in both images.")
        if not (np.isfinite(truth.target).all() and np.isfinite(truth.source).all()):
            raise GlunetError("the truth has points that are not finite.")
        if not _inside(truth.target, size, margin=1).all():
            raise GlunetError(f"the truth has points outside its target of {size[1]}x{size[0]} pixels.")


def score(benchmark: Benchmark, pair: Pair, sample: Sample, flow: NDArray[Any]) -> Score:
    """Measure one prediction.

    Args:
        flow: H x W x 2 on the target's grid in source pixels.

    Raises:
        GlunetError: the prediction has another size than the target, or is not finite.
    """
    if flow.shape != (*sample.target.shape[:2], 2):
        raise GlunetError(f"{pair.name}: the method returned {flow.shape}, expected {(*sample.target.shape[:2], 2)}.")
    if not np.isfinite(flow).all():
        raise GlunetError(f"{pair.name}: the method returned a flow that is not finite.")
    truth = sample.truth
    labels = (pair.name, pair.group, pair.subgroup, pair.unit or pair.name)
    if isinstance(truth, HomographyTruth):
        from glunet.evaluation.homography import homography_of_flow

        estimate = homography_of_flow(flow, sample.source.shape[:2])
        error = corner_error(estimate, truth.matrix, sample.source.shape[:2])
        return Score(*labels, count=1, corner_error=error)
    expected: NDArray[Any]
    got: NDArray[Any]
    if isinstance(truth, FlowTruth):
        expected, got = truth.flow[truth.valid], flow[truth.valid]
    else:
        expected, got = truth.source - truth.target, at_points(flow, truth.target, truth.nearest)
    errors = epe(got, expected)
    within = {f"pck{t}": errors <= t for t in PIXEL_THRESHOLDS}
    for kind, reference in sample.references.items():
        suffix = f"_{kind}" if kind else ""
        within |= {f"pck_{alpha:g}{suffix}": errors <= alpha * reference for alpha in benchmark.alphas}
    sums = {"aepe": float(errors.sum())} | {name: float(hit.sum()) for name, hit in within.items()}
    sums["fl"] = float(fl_outliers(errors, np.linalg.norm(expected, axis=-1)).sum())
    return Score(*labels, count=len(errors), sums=sums)


def at_points(flow: NDArray[Any], points: NDArray[np.float64], nearest: bool = False) -> NDArray[np.float64]:
    """The flow read at target points (N x 2), at the nearest pixel or bilinearly, clamped to the image."""
    height, width = flow.shape[:2]
    points = np.clip(points, 0, (width - 1, height - 1))
    if nearest:
        # Halves are rounded up, not to even: what a person expects of the nearest pixel.
        x, y = np.floor(points + 0.5).astype(int).T
        return flow[np.minimum(y, height - 1), np.minimum(x, width - 1)].astype(np.float64)
    x0, y0 = np.minimum(np.floor(points).astype(int), (max(width - 2, 0), max(height - 2, 0))).T
    x1, y1 = np.minimum(x0 + 1, width - 1), np.minimum(y0 + 1, height - 1)
    fx, fy = (points - np.stack((x0, y0), axis=-1)).T[..., None]
    upper = flow[y0, x0] * (1 - fx) + flow[y0, x1] * fx
    lower = flow[y1, x0] * (1 - fx) + flow[y1, x1] * fx
    return np.asarray(upper * (1 - fy) + lower * fy, np.float64)


def _inside(points: NDArray[np.float64], size: tuple[int, ...], margin: float) -> NDArray[np.bool_]:
    height, width = size
    x, y = points.T
    return (x >= -margin) & (x <= width - 1 + margin) & (y >= -margin) & (y <= height - 1 + margin)
