"""What a predicted flow is measured by: end-point error, PCK, Fl, and the area under a recall curve.

Plain functions on numpy arrays. A flow is ... x 2 in pixels, x first. Every one of them refuses an empty set of pixels,
because the mean of nothing is NaN and would spoil every mean above it.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glunet.errors import GlunetError
from glunet.geometry.estimation import apply_homography


def epe(flow: ArrayLike, truth: ArrayLike) -> NDArray[np.float64]:
    """End-point error ||flow - truth||_2 of every pixel or point.

    Args:
        flow, truth: two arrays of one shape ... x 2, pixels.

    Returns:
        Array of shape ..., float64, pixels.
    """
    flow, truth = np.asarray(flow, np.float64), np.asarray(truth, np.float64)
    if flow.shape != truth.shape or flow.shape[-1:] != (2,):
        raise GlunetError(f"flow and truth must have one shape ... x 2, but are {flow.shape} and {truth.shape}.")
    difference = flow - truth
    return np.hypot(difference[..., 0], difference[..., 1])


def aepe(flow: ArrayLike, truth: ArrayLike, valid: ArrayLike | None = None) -> float:
    """Mean end-point error over the valid pixels (`valid`: bool, flow's shape without the 2), pixels."""
    return float(_chosen(epe(flow, truth), valid).mean())


def pck(errors: ArrayLike, threshold: ArrayLike) -> float:
    """Share of errors at most `threshold` (inclusive), 0..1. The threshold may be one an error."""
    errors = _chosen(errors, None)
    return float((errors <= np.asarray(threshold, np.float64)).mean())


def fl_outliers(errors: ArrayLike, magnitude: ArrayLike) -> NDArray[np.bool_]:
    """Which pixels KITTI counts as outliers: error above 3 px and above 5 % of the true flow's length.

    Args:
        errors: end-point errors, pixels.
        magnitude: length of the true flow of the same pixels.
    """
    errors, magnitude = np.asarray(errors, np.float64), np.asarray(magnitude, np.float64)
    # Multiplied out: a true flow of length zero then needs no special case.
    return (errors > 3) & (errors > 0.05 * magnitude)


def reference_size(
    kind: str,
    image: tuple[int, int] | None = None,
    points: ArrayLike | None = None,
    box: Sequence[float] | None = None,
) -> float:
    """The size that PCK's alpha multiplies, of the image in which the error is measured, pixels.

    Args:
        kind: "image" (longer side of the image), "keypoints" (longer side of the key points' box) or "box" (longer
            side of the annotated object's box).
        image: (height, width), for "image".
        points: N x 2, for "keypoints".
        box: x0, y0, x1, y1, for "box".
    """
    if kind == "image" and image is not None:
        return float(max(image))
    if kind == "keypoints" and points is not None:
        points = np.asarray(points, np.float64)
        return float((points.max(axis=0) - points.min(axis=0)).max())
    if kind == "box" and box is not None:
        return float(max(box[2] - box[0], box[3] - box[1]))
    raise GlunetError(
        f"reference size {kind!r}: expected 'image', 'keypoints' or 'box', with the argument of that name."
    )


def corner_error(estimate: ArrayLike | None, truth: ArrayLike, size: tuple[int, int]) -> float:
    """Mean distance of the four corners of an image of (height, width) carried by two homographies, pixels.

    No estimate, or one that throws a corner behind the camera, counts as infinitely wrong.
    """
    height, width = size
    corners = np.array(((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)))
    if estimate is None:
        return float("inf")
    expected, got = (apply_homography(_signed(matrix), corners) for matrix in (truth, estimate))
    if not np.isfinite(expected).all():
        raise GlunetError("the true homography carries a corner of the image to infinity; is the file damaged?")
    if not np.isfinite(got).all():
        return float("inf")
    return float(epe(got, expected).mean())


def recall_auc(errors: ArrayLike, threshold: float) -> float:
    """Area under the curve of recall over error from 0 to `threshold`, as a share of the whole, 0..1.

    The curve joins (0, 0) and (e_i, i / n) of the sorted errors by straight lines and is flat after the last one below
    the threshold, as in the papers whose figures stand beside ours (SuperGlue, LoFTR). Errors may be infinite.
    """
    errors = np.sort(_chosen(errors, None))
    recall = np.arange(1, len(errors) + 1) / len(errors)
    below = int((errors < threshold).sum())
    x = np.concatenate(([0.0], errors[:below], [threshold]))
    y = np.concatenate(([0.0], recall[:below], [recall[below - 1] if below else 0.0]))
    return float((np.diff(x) * (y[1:] + y[:-1]) / 2).sum() / threshold)


def _signed(homography: ArrayLike) -> NDArray[np.float64]:
    """The homography with the sign for which points in front of the camera have w > 0."""
    matrix = np.asarray(homography, np.float64)
    return -matrix if matrix[2, 2] < 0 else matrix


def _chosen(values: ArrayLike, valid: ArrayLike | None) -> NDArray[np.float64]:
    values = np.asarray(values, np.float64)
    values = values.ravel() if valid is None else values[np.asarray(valid, bool)]
    if not values.size:
        raise GlunetError("no valid pixel to measure on: expected at least one.")
    return values
