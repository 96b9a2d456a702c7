"""Robust models of a match, by OpenCV's USAC with MAGSAC++ (Barath et al. 2020): homography, fundamental, essential.

All of them go from the target to the source, as the flow does.
"""

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np

from glunet.errors import GlunetError
from glunet.geometry.points import Correspondences

Name = Literal["homography", "fundamental", "essential"]
FEWEST = {"homography": 4, "fundamental": 8, "essential": 5}


@dataclass(frozen=True)
class Model:
    """A matrix that many correspondences agree on.

    Attributes:
        matrix: 3 x 3 float64. Homography: source ~ matrix @ target, in pixels, [2, 2] = 1. Fundamental: source^T matrix
            target = 0, in pixels. Essential: the same for normalised coordinates, inv(K) @ pixel.
        points: the correspondences that were asked.
        inliers: (N,) bool, which of them agree.
        rotation, translation: of an essential matrix, from the target's camera to the source's, 3 x 3 and a unit
            3-vector; None for the others.
    """

    matrix: np.ndarray
    points: Correspondences
    inliers: np.ndarray
    rotation: np.ndarray | None = None
    translation: np.ndarray | None = None


def estimate(
    name: Name,
    points: Correspondences,
    threshold: float = 1.0,
    cameras: tuple[np.ndarray, np.ndarray] | None = None,
) -> Model:
    """The model that most correspondences agree on; the same for the same points, always.

    Args:
        threshold: largest error of an inlier, in pixels of the source (homography), or from the epipolar line.
        cameras: for "essential", the 3 x 3 camera matrices of target and source.

    Raises:
        GlunetError: if a camera matrix is none, there are too few points, or no model was found.
    """
    if threshold <= 0:
        raise GlunetError(f"The threshold is {threshold} pixels, but a positive number is expected.")
    target, source = points.target.astype(np.float64), points.source.astype(np.float64)
    if len(target) < FEWEST[name]:
        raise GlunetError(
            f"{_article(name)} needs {FEWEST[name]} or more confident correspondences, but the match has "
            f"{len(target)}: the images may not show the same thing; or lower `least`."
        )
    if name == "essential":
        if cameras is None:
            raise GlunetError("An essential matrix needs the camera matrices of target and source.")
        first, second = (_camera(camera, which) for camera, which in zip(cameras, ("first", "second"), strict=True))
        target, source = _normalised(target, first), _normalised(source, second)
        threshold /= float(np.mean([first[0, 0], first[1, 1], second[0, 0], second[1, 1]]))
    try:
        matrix, mask = _solved(name, target, source, threshold)
    except cv2.error as error:  # all points on one line, say
        raise _none(name, len(target)) from error
    if matrix is None or mask is None or matrix.shape != (3, 3) or not np.isfinite(matrix).all():
        raise _none(name, len(target))
    inliers = mask.ravel().astype(bool)
    if inliers.sum() < FEWEST[name]:
        raise _none(name, len(target))
    if name == "homography" and (_folds(matrix, target[inliers]) or _huddles(target[inliers], target)):
        raise _none(name, len(target))
    if name != "essential":
        return Model(np.asarray(matrix, np.float64), points, inliers)
    _, rotation, translation, _ = cv2.recoverPose(matrix, target, source, np.eye(3), mask=mask.copy())
    return Model(np.asarray(matrix, np.float64), points, inliers, rotation, translation.ravel())


def robust_homography(
    target: np.ndarray, source: np.ndarray, threshold: float, iterations: int = 5000
) -> tuple[np.ndarray, np.ndarray] | None:
    """The homography from N x 2 target points to their source points that most agree on, and who does (N, bool).

    The same for the same points, always; None where there is none, as of fewer than four points or all on one line.

    Args:
        threshold: largest error of an inlier, pixels of the source.
    """
    if len(target) < FEWEST["homography"]:
        return None
    cv2.setRNGSeed(0)
    try:
        matrix, mask = cv2.findHomography(
            target, source, cv2.USAC_MAGSAC, threshold, maxIters=iterations, confidence=0.9999
        )
    except cv2.error:
        return None
    if matrix is None or mask is None or not np.isfinite(matrix).all():
        return None
    return np.asarray(matrix, np.float64), mask.ravel().astype(bool)


def robust_affinity(
    target: np.ndarray, source: np.ndarray, threshold: float, iterations: int = 20_000
) -> tuple[np.ndarray, np.ndarray] | None:
    """As `robust_homography`, an affine map (3 x 3, its last row 0, 0, 1); by RANSAC (Fischler and Bolles 1981)."""
    cv2.setRNGSeed(0)
    matrix, mask = cv2.estimateAffine2D(
        target, source, ransacReprojThreshold=threshold, maxIters=iterations, confidence=0.9999
    )
    if matrix is None or not np.isfinite(matrix).all():
        return None
    return np.vstack((matrix, (0, 0, 1))), mask.ravel().astype(bool)


def _solved(name: Name, target: np.ndarray, source: np.ndarray, threshold: float) -> tuple[Any, Any]:
    """The matrix and its mask of inliers, as OpenCV gives them; None where there is none."""
    if name == "homography":
        return robust_homography(target, source, threshold) or (None, None)
    cv2.setRNGSeed(0)
    if name == "fundamental":
        return cv2.findFundamentalMat(target, source, cv2.USAC_MAGSAC, threshold, 0.9999, 5000)
    return cv2.findEssentialMat(
        target, source, np.eye(3), method=cv2.USAC_MAGSAC, prob=0.9999, threshold=threshold, maxIters=5000
    )


def _folds(matrix: np.ndarray, points: np.ndarray) -> bool:
    """Whether a homography mirrors the rectangle around its points, or has its horizon across it."""
    low, high = points.min(axis=0), points.max(axis=0)
    corners = np.array((low, (high[0], low[1]), high, (low[0], high[1])))
    depth = corners @ matrix[2, :2] + matrix[2, 2]
    return bool((depth * np.sign(depth[0]) <= 0).any() or np.linalg.det(matrix) * depth[0] <= 0)


def _huddles(points: np.ndarray, among: np.ndarray) -> bool:
    """Whether points lie on a line or a dot, by what all points span."""
    spread = np.linalg.svd(points - points.mean(axis=0), compute_uv=False)[-1] / len(points) ** 0.5
    return bool(spread < 0.01 * np.linalg.norm(np.ptp(among, axis=0)))


def apply_homography(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Points (... x 2) through a 3 x 3 homography; NaN on its horizon and beyond (where the denominator is <= 0)."""
    # Not as a product of matrices: NumPy's own threads would keep the cores busy for a while after it.
    across, down, depth = (row[0] * points[..., 0] + row[1] * points[..., 1] + row[2] for row in matrix.tolist())
    depth = np.where(depth > 1e-9, depth, np.nan)
    return np.stack((across / depth, down / depth), axis=-1)


def resizing(size: tuple[int, ...], other: tuple[int, ...]) -> np.ndarray:
    """3 x 3: from the pixels of an image (height, width, ...) to those of the same image resized to `other`."""
    y, x = other[0] / size[0], other[1] / size[1]
    return np.array(((x, 0, (x - 1) / 2), (0, y, (y - 1) / 2), (0, 0, 1)))


def _normalised(points: np.ndarray, camera: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(apply_homography(np.linalg.inv(camera), points))


def _camera(camera: np.ndarray, which: str) -> np.ndarray:
    matrix = np.asarray(camera)
    if matrix.shape != (3, 3) or matrix.dtype.kind not in "iuf" or not np.isfinite(matrix).all():
        raise GlunetError(
            f"The {which} camera matrix is of shape {matrix.shape}, but 3 x 3 finite numbers are expected."
        )
    if matrix[0, 0] <= 0 or matrix[1, 1] <= 0 or not np.allclose(matrix[2], (0, 0, 1)):
        raise GlunetError(
            f"The {which} camera matrix should read [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with positive focal lengths, "
            "in pixels."
        )
    return matrix.astype(np.float64)


def _article(name: str) -> str:
    return {"homography": "A homography", "fundamental": "A fundamental matrix", "essential": "An essential matrix"}[
        name
    ]


def _none(name: str, count: int) -> GlunetError:
    return GlunetError(
        f"{_article(name)} was not found: no one explains enough of the {count} correspondences. The images may not "
        "show the same thing, or not a rigid one; or raise `threshold`."
    )
