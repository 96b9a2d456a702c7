"""Multi-stage inference of PDC-Net (paper section 3.5, SPEC 13): a homography of what it is sure of, then again.

"D" is the direct pass. "H" fits a homography to the first pass where the network says that it may be right, warps the
source by it and passes once more; the answer goes through both. "MS" makes that first pass at several scales of one
image against the other, and keeps the one whose homography explains the largest share of its positions: for views that
differ in scale. What search does for networks that say nothing of themselves (`glunet.inference.search`) is the same
idea with other witnesses; a pass through a homography and its composition are shared with it.
"""

from collections.abc import Callable
from typing import Literal, NamedTuple, get_args

import cv2
import numpy as np

from glunet.errors import GlunetError
from glunet.flow.geometry import as_tensor
from glunet.geometry.estimation import apply_homography, resizing
from glunet.inference.likeness import grid, warp
from glunet.network.glunet import Coarse
from glunet.network.uncertainty import Mixture

Stages = Literal["D", "H", "MS"]

RATIOS = (0.5, 0.6, 0.88, 1.0, 1.33, 1.66, 2.0)  # of the target to the source; below 1 the target is shrunk
SMALLEST = 32  # px of an image's side
LEAST = 0.05  # P_1 from which on a position counts
QUARTER = 4  # positions are those of a quarter of the size
ERROR, ITERATIONS, FEWEST = 1.0, 3000, 200  # of RANSAC: pixels there, tries, inliers
SHARE = 0.002  # of the positions that a scale's inliers must be
WHOLE = 0.98  # of a pixel that must be seen through the homography


class Ways(NamedTuple):
    """What the network says of one pair.

    Attributes:
        flow: H x W x 2 float32, target into source, pixels.
        backward: H_source x W_source x 2, the way back; None where it was not asked for.
        mixture: H x W x 4 float32, as `Match.mixture`; None for networks that do not predict it.
        plane: the target -> source homography that the network saw the source through, 3 x 3; None for none.
        coarse: flow4 and flow3 of the way back, where the global level has been asked for them.
    """

    flow: np.ndarray
    backward: np.ndarray | None = None
    mixture: np.ndarray | None = None
    plane: np.ndarray | None = None
    coarse: Coarse | None = None


# A pass with the source warped by a target -> source homography: its answer from the target's grid into itself, and
# where the warped source shows something, H x W bool.
Again = Callable[[np.ndarray], tuple[Ways, np.ndarray]]
# A pass with target and source of these sizes, (height, width) each.
Resized = Callable[[tuple[int, int], tuple[int, int]], Ways]


def check_stages(stages: Stages) -> Stages:
    """Raises a GlunetError for a word that `stages` cannot be."""
    if stages not in get_args(Stages):
        raise GlunetError(f"stages={stages!r} came: it is one of {', '.join(map(repr, get_args(Stages)))}.")
    return stages


def confident_homography(way: Ways) -> tuple[np.ndarray, float] | None:
    """The target -> source homography of what may be right, and the share of positions that agree; or None.

    It is none that mirrors, or in which a direction shrinks or grows beyond reason.
    """
    height, width = (max(1, side // QUARTER) for side in way.flow.shape[:2])
    factor = np.array((way.flow.shape[1] / width, way.flow.shape[0] / height))
    at = (grid((height, width)) + 0.5) * factor - 0.5
    flow, mixture = (
        cv2.remap(values, at.astype(np.float32), None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
        for values in (way.flow, _mixture(way))
    )
    counts = Mixture.unpacked(as_tensor(mixture)).probability()[0].numpy() >= LEAST
    if counts.sum() < FEWEST:
        return None
    target, source = at[counts], (at + flow)[counts]
    cv2.setRNGSeed(0)
    matrix, inliers = cv2.findHomography(
        target / QUARTER, source / QUARTER, cv2.RANSAC, ERROR, maxIters=ITERATIONS, confidence=0.9999
    )
    if matrix is None or inliers.sum() < FEWEST or not np.isfinite(matrix).all():
        return None
    lengths = np.linalg.norm(matrix[:2, :2], axis=0)
    if np.linalg.det(matrix[:2, :2]) < 0 or (lengths < 0.001).any() or (lengths > 100).any():
        return None
    scale = np.diag((QUARTER, QUARTER, 1.0))
    return scale @ matrix @ np.linalg.inv(scale), float(inliers.sum() / counts.size)


def through(matrix: np.ndarray, first: Ways, again: Again) -> Ways:
    """The answer of a pass through a homography, and of the first pass where that leaves what it shows."""
    second, shown = again(matrix)
    at = grid(first.flow.shape)
    whole = warp(shown.astype(np.float32), second.flow) >= WHOLE
    y, x = np.moveaxis(at + second.flow, -1, 0)[::-1]
    whole &= (x >= 0) & (y >= 0) & (x <= shown.shape[1] - 1) & (y <= shown.shape[0] - 1)
    flow = apply_homography(matrix, (at + second.flow).astype(np.float64)) - at
    whole &= np.isfinite(flow).all(-1)
    return first._replace(
        flow=np.where(whole[..., None], np.nan_to_num(flow), first.flow).astype(np.float32),
        mixture=np.where(whole[..., None], _mixture(second), _mixture(first)),
    )


def homography_stage(first: Ways, again: Again) -> Ways:
    """Stage H; the first pass where it finds no homography."""
    found = confident_homography(first)
    return first if found is None else through(found[0], first, again)


def multi_scale(
    first: Ways, target_size: tuple[int, int], source_size: tuple[int, int], resized: Resized, again: Again
) -> Ways:
    """Stage MS; the first pass where no scale finds a homography that explains more than 0.2 % of its positions."""
    best: tuple[float, np.ndarray] | None = None
    for ratio in RATIOS:
        sizes = scaled(target_size, min(1.0, ratio)), scaled(source_size, min(1.0, 1 / ratio))
        if min(*sizes[0], *sizes[1]) < SMALLEST:
            continue
        found = confident_homography(first if ratio == 1 else resized(*sizes))
        if found is None or found[1] <= max(SHARE, best[0] if best else 0.0):
            continue
        best = found[1], resizing(sizes[1], source_size) @ found[0] @ resizing(target_size, sizes[0])
    return first if best is None else through(best[1], first, again)


def scaled(size: tuple[int, int], ratio: float) -> tuple[int, int]:
    """(height, width) times the ratio, whole pixels."""
    return round(size[0] * ratio), round(size[1] * ratio)


def _mixture(way: Ways) -> np.ndarray:
    assert way.mixture is not None
    return way.mixture
