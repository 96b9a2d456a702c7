"""Where a search may start from: homographies that could bring the source onto the target.

They come from keypoints (SIFT, and SIFT of simulated views; or a user's own `PointSource`), from points that match by
the encoder's features (`glunet.inference.features`), or from a coarse grid of turns, zooms and tilts. Of the last two
the network's global level tells the likeliest (`glunet.inference.search`). All matrices lead from the target into the
source, in pixels, as the flow does.
"""

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import cv2
import numpy as np
import torch

from glunet.geometry.estimation import apply_homography, robust_affinity, robust_homography
from glunet.inference.likeness import Views, bytes_of

# From the source and the target, H x W x 3 uint8, RGB, to points that match: N x 2 in the source, N x 2 in the target.
PointSource: TypeAlias = Callable[[np.ndarray, np.ndarray], tuple[np.ndarray, np.ndarray]]

RATIO = 0.85  # of the distances to the nearest and second nearest descriptor (Lowe 2004)
MOST_MODELS = 3  # homographies of one set of matches, each of what the earlier left over
MOST_THROUGH = 3  # times that keypoints are looked for through a homography
FEWEST = 12  # inliers of a homography
ROUGHLY = 0.04  # of the source's longer side, within which positions of the encoder's features agree
CONTRAST = 0.02  # SIFT's threshold: half of the usual one, for dim and blurred images
LONGEST, LONGEST_QUICK, LONGEST_SIMULATED = 1024, 400, 400  # px of the longer side that keypoints are looked for at
MOST_POINTS, MOST_SIMULATED = 4000, 500  # keypoints of an image, and of each simulated view
TILT = 4  # of the simulated views: OpenCV's AffineFeature simulates 1, 1.4, 2, 2.8 and 4 in several directions each


class Hypothesis(NamedTuple):
    """A guess at how the target lies in the source.

    Attributes:
        matrix: 3 x 3 homography, target to source, pixels.
        origin: in words, for people: "keypoints", "turned by 90 degrees, zoomed by 2".
        target, source: the points that agree on it, N x 2 pixels each; none where it came from none.
        exact: whether the points were found with another guess undone (`through`).
    """

    matrix: np.ndarray
    origin: str
    target: np.ndarray = np.empty((0, 2))
    source: np.ndarray = np.empty((0, 2))
    exact: bool = False

    @property
    def inliers(self) -> int:
        """How many points agree on it."""
        return len(self.target)


def from_keypoints(views: Views, longest: int | None = None, simulate: bool = False) -> list[Hypothesis]:
    """Homographies of SIFT matches (Lowe 2004), most inliers first.

    Args:
        longest: px of the longer side that the images are brought down to; None for what is usual.
        simulate: match simulated views of both images, tilted and turned (ASIFT, Morel and Yu 2009): for strong
            changes of viewpoint, at several times the cost.
    """
    target, source = keypoints(views, longest, simulate)
    return homographies(source, target, views, "keypoints of simulated views" if simulate else "keypoints")


def keypoints(views: Views, longest: int | None = None, simulate: bool = False) -> tuple[np.ndarray, np.ndarray]:
    """SIFT keypoints that match, N x 2 in the target and N x 2 in the source; arguments as for `from_keypoints`."""
    longest = longest or (LONGEST_SIMULATED if simulate else LONGEST)
    # One after the other: OpenCV uses all threads for each, and two at once stand in each other's way.
    ours, theirs = (_features(image, longest, simulate) for image in (views.target, views.source))
    return matched(ours, theirs)


def through(guesses: list[Hypothesis], views: Views) -> list[Hypothesis]:
    """What keypoints say once a rough homography is undone and little is left for the views to differ in.

    SIFT matches of the target and the source warped by each guess, and again by what that finds while more agree.
    """
    found = []
    for guess in guesses:
        for _ in range(MOST_THROUGH):
            nearer = _through(guess, views)
            if not nearer or nearer[0].inliers <= guess.inliers * guess.exact:
                break
            found += nearer
            guess = nearer[0]
    return found


def _through(guess: Hypothesis, views: Views) -> list[Hypothesis]:
    size = views.target.shape[::-1]
    warped = cv2.warpPerspective(views.source, guess.matrix, size, flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    target, seen = keypoints(Views(warped, views.target))
    source = apply_homography(guess.matrix, seen)
    return [near._replace(exact=True) for near in homographies(source, target, views, guess.origin)]


def from_points(found: tuple[np.ndarray, np.ndarray], views: Views, origin: str) -> list[Hypothesis]:
    """Homographies of what a user's `PointSource` returned: N x 2 in the source, N x 2 in the target."""
    source, target = (np.asarray(points, np.float64).reshape(-1, 2) for points in found)
    known = np.isfinite(source).all(axis=1) & np.isfinite(target).all(axis=1)
    return homographies(source[known], target[known], views, origin)


def from_features(found: tuple[np.ndarray, np.ndarray], views: Views) -> list[Hypothesis]:
    """Affine maps and homographies of points that match by features, N x 2 in the source, N x 2 in the target.

    Most of the points are wrong and all are rough: six numbers are found among them where eight are not, and on steep
    planes it is the other way round.
    """
    within = ROUGHLY * max(views.source.shape)
    return [
        guess._replace(target=np.empty((0, 2)), source=np.empty((0, 2)))  # too rough to measure a flow by
        for model, most in ((robust_affinity, 2), (robust_homography, 1))
        for guess in homographies(*found, views, "the encoder's features", within, model, most)
    ]


def homographies(
    source: np.ndarray,
    target: np.ndarray,
    views: Views,
    origin: str,
    threshold: float | None = None,
    robust: Callable[..., tuple[np.ndarray, np.ndarray] | None] = robust_homography,
    most: int = MOST_MODELS,
) -> list[Hypothesis]:
    """Up to `most` plausible homographies by MAGSAC, the later ones of what the earlier left over.

    Args:
        threshold: largest error of an inlier, pixels of the source; None for what keypoints are exact to.
        robust: estimates one; `robust_affinity` for affine maps.
        most: how many at most.
    """
    threshold = max(1.5, 0.004 * max(views.source.shape)) if threshold is None else threshold
    found = []
    for _ in range(most):
        model = robust(target, source, threshold) if len(target) >= FEWEST else None
        if model is None or model[1].sum() < FEWEST:
            break
        inliers = model[1]
        matrix = oriented(model[0], target[inliers], views.target.shape, views.source.shape)
        if matrix is not None:
            found.append(Hypothesis(matrix, origin, target[inliers], source[inliers]))
        source, target = source[~inliers], target[~inliers]
    return found


def oriented(
    matrix: np.ndarray, points: np.ndarray, target_size: tuple[int, ...], source_size: tuple[int, ...]
) -> np.ndarray | None:
    """The homography with the sign that puts its points (N x 2, of the target) before its horizon; None if none does.

    None does if it mirrors, or if what is at the points grows or shrinks more than it does between two photographs.
    Their corners say less: the horizon of a steep plane crosses its image.
    """
    depth = points @ matrix[2, :2] + matrix[2, 2]
    sign = 1 if np.median(depth) > 0 else -1
    matrix, depth = matrix * sign, depth * sign
    if not (depth > 0).all():
        return None
    area = np.median(np.linalg.det(matrix) / depth**3) * np.prod(target_size) / np.prod(source_size)
    return matrix if 0.001 < area < 1000 else None


def matched(
    ours: tuple[np.ndarray, np.ndarray], theirs: tuple[np.ndarray, np.ndarray], ratio: float | None = RATIO
) -> tuple[np.ndarray, np.ndarray]:
    """Points (N x 2 each) whose descriptors are each other's nearest, and clearly nearer than the second.

    Args:
        ratio: that the distance may have to that of the second nearest; None for any.
    """
    (points, words), (other_points, other_words) = ours, theirs
    if min(len(words), len(other_words)) < 2:
        return np.empty((0, 2)), np.empty((0, 2))
    # By PyTorch, since NumPy's own threads would keep the cores busy for a while after it.
    alike = (torch.from_numpy(words) @ torch.from_numpy(other_words).T).numpy()
    nearest = alike.argmax(axis=1)
    rows = np.arange(len(words))
    first = alike[rows, nearest]
    mutual = first >= alike.max(axis=0)[nearest]
    if ratio is None:
        return points[mutual], other_points[nearest[mutual]]
    alike[rows, nearest] = -1
    # Distances of unit vectors: |a - b|^2 = 2 - 2 a b.
    clear = 1 - first < ratio**2 * (1 - alike.max(axis=1))
    return points[mutual & clear], other_points[nearest[mutual & clear]]


def _features(image: np.ndarray, longest: int, simulate: bool) -> tuple[np.ndarray, np.ndarray]:
    """Keypoints N x 2, pixels, and descriptors N x 128, unit length (RootSIFT, Arandjelovic and Zisserman 2012)."""
    height, width = image.shape
    shrink = min(1.0, longest / max(height, width))
    size = (max(1, round(width * shrink)), max(1, round(height * shrink)))
    grey = bytes_of(image if shrink == 1 else cv2.resize(image, size, interpolation=cv2.INTER_AREA))
    finder: cv2.Feature2D = cv2.SIFT_create(MOST_SIMULATED if simulate else MOST_POINTS, contrastThreshold=CONTRAST)
    if simulate:
        finder = cv2.AffineFeature_create(finder, maxTilt=TILT)
    found, words = finder.detectAndCompute(grey, None)
    if words is None or not len(found):
        return np.empty((0, 2)), np.empty((0, 128), np.float32)
    points = (np.array([point.pt for point in found]) + 0.5) * (width / size[0], height / size[1]) - 0.5
    return points, np.sqrt(words / np.maximum(words.sum(axis=1, keepdims=True), 1e-6))


def coarse(target_size: tuple[int, ...], source_size: tuple[int, ...], every: bool = True) -> list[Hypothesis]:
    """The grid of turns, zooms and tilts about the images' middles; turns alone where not `every` one is wanted."""
    scale = (np.prod(source_size) / np.prod(target_size)) ** 0.5
    grid = []
    for turn in range(0, 360, 45):
        for zoom in (1.0, 0.5, 2.0) if every and turn % 90 == 0 else (1.0,):
            if turn or zoom != 1:
                grid.append((f"turned by {turn} degrees, zoomed by {zoom:g}", scale * zoom * _turned(turn)))
    for axis in range(0, 180, 45) if every else ():
        tilt = _turned(axis) @ np.diag((0.5, 1.0)) @ _turned(-axis)
        grid.append((f"tilted by 60 degrees about {(axis + 90) % 180}", 1.2 * scale * tilt))
    return [Hypothesis(_about_middles(linear, target_size, source_size), words) for words, linear in grid]


def _about_middles(linear: np.ndarray, target_size: tuple[int, ...], source_size: tuple[int, ...]) -> np.ndarray:
    """The affine map, 3 x 3, with this linear part that brings the target's middle onto the source's."""
    middles = [(np.array(size[::-1]) - 1) / 2 for size in (target_size, source_size)]
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, middles[1] - linear @ middles[0]
    return matrix


def _turned(degrees: float) -> np.ndarray:
    angle = np.deg2rad(degrees)
    return np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
