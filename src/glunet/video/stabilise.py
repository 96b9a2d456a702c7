"""How the camera moved, and what it would have shown had it not shaken.

Against a fixed frame, each frame is shown through the homography that most of its match agrees on. Of consecutive
frames, similarities (shift, turn, scale) add up to a path; what each frame is off a smooth one is taken back.
"""

from itertools import pairwise

import cv2
import numpy as np

from glunet.errors import GlunetError
from glunet.geometry.estimation import apply_homography
from glunet.inference.confidence import tolerance
from glunet.match import Match

FEWEST = 0.25  # share of the points that must agree on a motion


def homography(match: Match) -> np.ndarray | None:
    """The 3 x 3 homography, target -> source, of most of the match; None where there is none."""
    try:
        model = match.model("homography", threshold=tolerance(match.source_size), count=3000, least=0.3)
    except GlunetError:
        return None
    return model.matrix if model.inliers.mean() >= FEWEST and _sane(model.matrix, match) else None


def similarity(match: Match) -> np.ndarray | None:
    """The 3 x 3 similarity, target -> source, of most of the match; None where there is none."""
    points = match.sample(3000, least=0.3)
    if len(points.target) < 10:
        return None
    cv2.setRNGSeed(0)
    matrix, mask = cv2.estimateAffinePartial2D(
        points.target, points.source, method=cv2.RANSAC, ransacReprojThreshold=tolerance(match.source_size)
    )
    if matrix is None or mask.mean() < FEWEST:
        return None
    whole = np.vstack((matrix, (0, 0, 1)))
    return whole if _sane(whole, match) else None


def smooth_path(
    motions: list[np.ndarray | None], times: np.ndarray, size: tuple[int, int], seconds: float
) -> list[np.ndarray]:
    """For each frame, what carries pixels of the stabilised picture to pixels of the frame, 3 x 3.

    Args:
        motions: of the n - 1 pairs of n frames, the similarity from the earlier frame to the later; None where none is
            known: a cut. The path begins anew there.
        times: of the n frames, seconds.
        size: (height, width) of the frames.
        seconds: motion slower than this is meant, what is quicker is a shake (standard deviation of the weights).
    """
    middle = np.array(((1, 0, (size[1] - 1) / 2), (0, 1, (size[0] - 1) / 2), (0, 0, 1)))
    starts = [0, *(i + 1 for i, motion in enumerate(motions) if motion is None), len(motions) + 1]
    shown: list[np.ndarray] = []
    for start, stop in pairwise(starts):
        position, path = np.eye(3), [np.eye(3)]
        for motion in motions[start : stop - 1]:
            assert motion is not None
            position = np.linalg.inv(middle) @ motion @ middle @ position
            path.append(position)
        meant = _smooth(_parameters(np.stack(path)), times[start:stop], seconds)
        shown += [
            middle @ at @ np.linalg.inv(_matrix(wish)) @ np.linalg.inv(middle)
            for at, wish in zip(path, meant, strict=True)
        ]
    return shown


def seen_through(pixels: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """A frame, H x W x 3 uint8, as a picture of `size` whose pixel x shows the frame's `matrix` @ x; black outside."""
    return cv2.warpPerspective(pixels, matrix, size[::-1], flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)


def _smooth(values: np.ndarray, times: np.ndarray, seconds: float) -> np.ndarray:
    """Each of n x k values replaced by a line's through its neighbours, weighted by a bell of `seconds`.

    A line, not a mean: at both ends, where neighbours are on one side only, a steady motion stays what it is.
    """
    smooth = np.empty_like(values)
    for i, time in enumerate(times):
        first, last = np.searchsorted(times, (time - 4 * seconds, time + 4 * seconds))
        away = times[first : last + 1] - time
        weight = np.exp(-0.5 * (away / seconds) ** 2)
        near = values[first : last + 1]
        mean, centre = weight @ near / weight.sum(), weight @ away / weight.sum()
        spread = weight @ (away - centre) ** 2
        slope = (weight * (away - centre)) @ (near - mean) / spread if spread > 1e-12 else 0.0
        smooth[i] = mean - slope * centre
    return smooth


def _parameters(path: np.ndarray) -> np.ndarray:
    """n x 3 x 3 similarities -> n x 4: logarithm of the scale, angle (without jumps), shift in x and y."""
    scale = 0.5 * np.log(path[:, 0, 0] ** 2 + path[:, 1, 0] ** 2)
    angle = np.unwrap(np.arctan2(path[:, 1, 0], path[:, 0, 0]))
    return np.stack((scale, angle, path[:, 0, 2], path[:, 1, 2]), axis=-1)


def _matrix(parameters: np.ndarray) -> np.ndarray:
    scale, angle, x, y = parameters
    a, b = np.exp(scale) * np.cos(angle), np.exp(scale) * np.sin(angle)
    return np.array(((a, -b, x), (b, a, y), (0, 0, 1)))


def _sane(matrix: np.ndarray, match: Match) -> bool:
    """Whether the target, so moved, is still a quadrangle of a size like it was."""
    height, width = match.target_size
    corners = apply_homography(matrix, np.array(((0, 0), (width, 0), (width, height), (0, height)), np.float64))
    if not np.isfinite(corners).all():
        return False
    x, y = corners.T
    area = 0.5 * float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y)) / (width * height)
    return 0.05 < area < 20
