"""Scenes that are one plane, most of them: its homography, eight numbers, is exacter than a flow and holds everywhere.

A wall, a page, a map, an aerial photograph, or whatever a camera sees that only turned.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from glunet.geometry.estimation import apply_homography, robust_homography
from glunet.inference.confidence import tolerance
from glunet.inference.hypotheses import FEWEST, oriented
from glunet.inference.likeness import Views, grid, length

logger = logging.getLogger(__name__)

ONE_PLANE = 0.8  # share of what comes back that must lie on a plane for it to be continued
ROUGHLY = 0.016  # of the source's longer side, within which it must lie on a plane that keypoints stand for
WELL = 0.9  # share of the image above which nothing is left to continue it to
SMALLEST = 0.1  # share of the image below which what comes back is too little to go by
MOST = 0.7  # share of what the flow is sure of that must lie on a plane for the flow to be brought onto it
CLOSE = 0.002  # of the longer side (at least 1 px), within which it does
# How many times as far from the plane as from the flow keypoints may lie: walls reach 1.5, scenes in space 4.1 to 6.7
# (docs/matches.md).
AS_WELL = 2.5
OFF = 4  # times the median distance from the plane, beyond which what the flow is sure of lies elsewhere


class RoundTrip(Protocol):
    """A flow, H x W x 2, target into source, that knows how far from its place each target pixel comes back."""

    @property
    def flow(self) -> np.ndarray: ...
    def round_trip(self) -> np.ndarray: ...


def flattened(
    ways: RoundTrip, views: Views, keypoints: Callable[..., tuple[np.ndarray, np.ndarray]]
) -> np.ndarray | None:
    """The flow on the one plane of the scene, wherever it is not sure of another place; None if the scene is no plane.

    Two things make a scene a plane: most of what the flow is sure of lies on it, and so do keypoints, which are exact
    and know nothing of the flow. Where little moves, all is near some plane; only keypoints tell it from a scene in
    space.

    Args:
        ways: the flow; it is sure of what comes back to within a tolerance.
        keypoints: makes those that match, N x 2 in the target and N x 2 in the source, pixels; asked with
            `simulate` True, for simulated views, where plain ones are too few.

    Returns:
        H x W x 2 float32. What the flow is sure of and lies farther off than it errs elsewhere stays: the street before
        the wall, the walker before a still background, the slope that slid.
    """
    flow, sure = ways.flow, _comes_back(ways, views)
    near = max(1.0, CLOSE * max(flow.shape))
    matrix = _fitted(flow, sure, near, views)
    if matrix is None:
        return None
    on_it = homography_flow(matrix, flow.shape)
    off = length(flow - on_it)
    here = sure & (off <= near)
    logger.debug("%.2f of what comes back lies on one plane", here.sum() / sure.sum())
    if here.sum() < MOST * sure.sum() or here.mean() < SMALLEST:
        return None
    for simulate in (False, True):
        target, source = keypoints(simulate=simulate)
        by_flow, by_plane = (missed(way, target, source) for way in (flow, on_it))
        counted = np.maximum(by_flow, by_plane) < 2 * near
        if counted.sum() >= FEWEST:
            break
    else:
        return None
    logger.debug("keypoints lie %.2f px from the flow, %.2f from it", by_flow[counted].mean(), by_plane[counted].mean())
    if by_plane[counted].mean() > AS_WELL * by_flow[counted].mean():
        return None
    stays = (sure & (off > OFF * np.median(off[here]))) | ~views.in_view(on_it)
    return np.where(stays[..., None], flow, on_it)


def missed(flow: np.ndarray, target: np.ndarray, source: np.ndarray) -> np.ndarray:
    """How far from points of the source, N x 2, a flow leads those of the target: N, pixels."""
    at = np.rint(target).astype(int).clip(0, np.array(flow.shape[1::-1]) - 1)
    return np.linalg.norm(target + flow[at[:, 1], at[:, 0]] - source, axis=1)


def one_plane(ways: RoundTrip, views: Views, matrices: Sequence[np.ndarray]) -> np.ndarray | None:
    """The homography, of these or the match's own, on which nearly everything lies that comes back; None if on none."""
    back = _comes_back(ways, views)
    near = max(1.0, 0.004 * max(views.source.shape))
    step = max(1, round((back.sum() / 10_000) ** 0.5))
    y, x = (step * place for place in np.nonzero(back[::step, ::step]))
    if not len(x):
        return None
    at = np.stack((x, y), axis=-1)
    ends = at + ways.flow[y, x]

    def explains(matrix: np.ndarray) -> bool:
        return bool((np.linalg.norm(apply_homography(matrix, at) - ends, axis=-1) <= near).mean() > ONE_PLANE)

    known = next(filter(explains, matrices), None)
    if known is not None or back.mean() <= SMALLEST or back.mean() > WELL:
        return known
    own = own_homography(ways, views)
    return own if own is not None and explains(own) else None


def brought_onto(ways: Sequence[tuple[RoundTrip, Views, np.ndarray]]) -> list[np.ndarray] | None:
    """Flows on a plane that points of the images stand for, if nearly all that comes back lies near it.

    Seen from far to its side, a flow comes near a plane and no closer.

    Args:
        ways: there and back, each with the plane's homography, 3 x 3.

    Returns:
        H x W x 2 float32, there and back; None if the scene is no plane. There what comes back and lies farther off
        stays, all else is the plane's; back only what came back near it is, so that confidence stays low elsewhere.
    """
    flows: list[np.ndarray] = []
    all_near = all_back = 0
    for way, views, plane in ways:
        on_it = homography_flow(plane, way.flow.shape)
        back = _comes_back(way, views)
        near = back & (length(way.flow - on_it) <= ROUGHLY * max(views.source.shape))
        all_near, all_back = all_near + near.sum(), all_back + back.sum()
        moved = near if flows else (near | ~back) & (np.abs(on_it) < 1e5).all(-1)
        flows.append(np.where(moved[..., None], on_it, way.flow))
    return flows if all_near > ONE_PLANE * all_back else None


def extended(ways: RoundTrip, views: Views, plane: np.ndarray) -> np.ndarray:
    """The flow, where it does not come back that of the one plane (3 x 3) on which nearly everything lies that does.

    There it is a guess anyway. The way back stays as it is, so that confidence stays low.
    """
    flow = homography_flow(plane, ways.flow.shape)
    kept = _comes_back(ways, views) | (np.abs(flow) > 1e5).any(-1)
    return np.where(kept[..., None], ways.flow, flow)


def _comes_back(ways: RoundTrip, views: Views) -> np.ndarray:
    return views.in_view(ways.flow) & (ways.round_trip() <= 1)


def own_homography(ways: RoundTrip, views: Views, points: int = 3000) -> np.ndarray | None:
    """The homography that most pixels agree on of those that come back; None where it is none or few do."""
    kept = views.in_view(ways.flow) & (ways.round_trip() <= 2)
    return _fitted(ways.flow, kept, tolerance(views.source.shape[:2]), views, points)


def _fitted(
    flow: np.ndarray, kept: np.ndarray, threshold: float, views: Views, points: int = 4000
) -> np.ndarray | None:
    """The homography that most of the kept pixels agree on to within a threshold; None where few do."""
    step = max(1, round((kept.sum() / points) ** 0.5))
    y, x = np.nonzero(kept[::step, ::step])
    target = np.stack((x, y), axis=-1).astype(np.float64) * step
    source = target + flow[y * step, x * step]
    model = robust_homography(target, source, threshold) if len(target) >= 50 else None
    if model is None or model[1].sum() < 50:
        return None
    return oriented(model[0], target[model[1]], flow.shape[:2], views.source.shape[:2])


def homography_flow(matrix: np.ndarray, size: tuple[int, ...]) -> np.ndarray:
    """The flow of a target -> source homography, H x W x 2 float32; far outside on its horizon and beyond."""
    at = grid(size)
    return finite(apply_homography(matrix, at) - at)


def finite(flow: np.ndarray) -> np.ndarray:
    """The flow as float32, with what is nowhere (NaN, infinite) far outside."""
    return np.nan_to_num(flow, nan=-1e6, posinf=1e6, neginf=-1e6).clip(-1e6, 1e6).astype(np.float32)
