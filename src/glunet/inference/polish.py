"""Polish: what the images themselves say more than the network, at the target's full size.

Three steps:

1. refine at half the size: OpenCV's variational refinement (Brox et al. 2004, "High accuracy optical flow estimation
   based on a theory for warping") moves the flow to where grey levels and their slopes agree and the flow is smooth.
   A pixel whose neighbourhood then looks clearly less alike keeps its flow;
2. borrow: a pixel takes over the flow of one some pixels away, as it differs from the flow of the plane that most of
   the scene lies on: a wall seen from the side moves otherwise there. The network's finest level has a quarter of the
   size, so that the flow of what is thin or at an edge is often right a few pixels beside it. Costs are compared after
   an edge-aware filter of the target (He et al. 2010, "Guided image filtering"; Hosni et al. 2013 for costs);
3. refine at the whole size.

Where the flow is smoother beyond that plane's, smoothness is asked of it there: a wall seen from the side, or a camera
that turns or comes nearer, has a flow that is not smooth itself.

Pairs that do not look alike, two objects of a kind say, are left alone ("auto").
"""

from itertools import product
from typing import Literal

import cv2
import numpy as np

from glunet.errors import GlunetError
from glunet.geometry.estimation import apply_homography, resizing
from glunet.inference.likeness import Views, blur, bytes_of, grid, length, warp
from glunet.inference.plane import homography_flow, own_homography
from glunet.inference.search import OneWay

Polish = Literal["auto"] | bool

ALIKE = 0.4  # median correlation where there is texture; two objects of a kind reach 0.35, two views of one thing 0.5
LONGEST = 8.0  # pixels by which one refinement may move a pixel
LOSS = 0.1  # of correlation, which a refinement may cost a pixel: right flows of noisy images lose some to overfit ones
SMOOTHER = 0.75  # of the flow's median slope, which what is left of it beyond the plane's must be below
# Pixels by which a flow is borrowed: x, y.
STEPS = [step for step in product((-6, 0, 6), repeat=2) if any(step)] + [(-16, 0), (16, 0), (0, -16), (0, 16)]
GAIN = 1.0  # grey levels by which a borrowed flow must fit better
FITS = 20.0  # and how well it must fit, in grey levels
APART = 1.0  # pixels by which a borrowed flow must differ: what differs less is left to the refinement
_CAPS = (30, 30, 30, 0)  # of the cost: grey level, and its slopes, doubled
_WINDOW, _EDGE = 3, 100.0  # of the edge-aware filter: radius, and the variance that counts as an edge


def check_polish(polish: Polish) -> Polish:
    """Raises a GlunetError for what `polish` cannot be."""
    if polish not in ("auto", True, False) or (isinstance(polish, int | float) and not isinstance(polish, bool)):
        raise GlunetError(f"polish={polish!r} came: it is 'auto' (where the images look alike), True or False.")
    return polish


def refined(flow: np.ndarray, views: Views) -> np.ndarray:
    """The flow, sharper where the images say so.

    Args:
        flow: H x W x 2 float32, target into source, pixels.
        views: the two images.

    Returns:
        H x W x 2 float32. A pixel that led out of the source, or to an invalid one, keeps its flow, and none comes to
        do so.
    """
    plane = own_homography(OneWay(flow, np.ones(flow.shape[:2], np.float32)), views)
    base = resizing(views.target.shape, views.source.shape)
    if plane is not None and _slope(_beyond(flow, plane)) < SMOOTHER * _slope(_beyond(flow, base)):
        base = plane
    flow = borrow(refine(flow, views, base, shrink=2), views, base if plane is None else plane)
    return refine(flow, views, base)


def looks_alike(flow: np.ndarray, views: Views) -> bool:
    """Whether the two images look alike where the flow says that they show the same."""
    counted = views.in_view(flow) & views.textured
    return bool(counted.any()) and float(np.median(views.correlation(flow)[counted])) >= ALIKE


def refine(flow: np.ndarray, views: Views, base: np.ndarray, shrink: int = 1) -> np.ndarray:
    """The flow by variational refinement, where the images do not look clearly less alike for it.

    Args:
        base: 3 x 3 homography, target -> source, beyond which the flow is smooth.
        shrink: refine at one part in so many of the size.
    """
    rest = _beyond(flow, base)
    # Cubic: what is refined below a pixel should not be blurred twice.
    at = grid(flow.shape)
    seen = cv2.remap(
        views.source, at + homography_flow(base, flow.shape), None, cv2.INTER_CUBIC, borderMode=cv2.BORDER_REPLICATE
    )
    there = cv2.inRange(at + rest, (0, 0), (flow.shape[1] - 1, flow.shape[0] - 1)).view(bool)
    moved = _variational(views.target, seen, np.where(there[..., None], rest, 0), shrink)
    found = apply_homography(base, at + rest + moved) - at
    there &= np.isfinite(found).all(-1)
    found = np.where(there[..., None], found, flow).astype(np.float32)
    better = (length(found - flow) < LONGEST) & (views.correlation(found) > views.correlation(flow) - LOSS)
    return np.where((better & views.in_view(flow) & views.in_view(found))[..., None], found, flow)


def borrow(flow: np.ndarray, views: Views, plane: np.ndarray) -> np.ndarray:
    """The flow, where another's from some pixels away fits clearly better; both beyond that of the plane (3 x 3)."""
    cost = _Cost(views)
    (height, width), far = flow.shape[:2], max(max(step) for step in STEPS)
    plane = homography_flow(plane, flow.shape)
    padded = cv2.copyMakeBorder(flow - plane, far, far, far, far, cv2.BORDER_REPLICATE)
    best = np.minimum(cost(flow) - GAIN, FITS)
    lender = np.zeros((height, width), np.uint8)  # which step leads to it; 0 for none
    for number, (right, down) in enumerate(STEPS, start=1):
        other = padded[far + down : far + down + height, far + right : far + right + width] + plane
        costs = cost(other)
        differs = cv2.transform((other - flow) ** 2, np.ones((1, 2), np.float32)) > APART**2
        better = differs & (costs < best) & views.in_view(other)
        np.copyto(best, costs, where=better)
        np.copyto(lender, number, where=better)
    y, x = np.nonzero(lender)
    step = np.array(STEPS)[lender[y, x] - 1]
    chosen = flow.copy()
    chosen[y, x] = padded[far + y + step[:, 1], far + x + step[:, 0]] + plane[y, x]
    return chosen


class _Cost:
    """How badly a flow fits at each pixel, in grey levels: truncated differences, filtered along the target's edges."""

    def __init__(self, views: Views) -> None:
        self.target, self.source = _planes(views.target), _planes(views.source)
        self.grey = views.target
        self.mean = blur(self.grey, _WINDOW)
        self.variance = blur(self.grey * self.grey, _WINDOW) - self.mean**2 + _EDGE

    def __call__(self, flow: np.ndarray) -> np.ndarray:
        apart = cv2.min(cv2.absdiff(self.target, warp(self.source, flow)), _CAPS).astype(np.float32)
        apart = cv2.transform(apart, np.ones((1, 3), np.float32))
        mean = blur(apart, _WINDOW)
        slope = (blur(self.grey * apart, _WINDOW) - self.mean * mean) / self.variance
        return blur(slope, _WINDOW) * self.grey + blur(mean - slope * self.mean, _WINDOW)


def _planes(image: np.ndarray) -> np.ndarray:
    """Grey level and slopes (doubled, 0 at 128) of each pixel, H x W x 3 uint8."""
    slopes = [128 + 2 * cv2.Sobel(image, cv2.CV_32F, *axis, scale=1 / 8) for axis in ((1, 0), (0, 1))]
    return np.dstack([bytes_of(plane) for plane in (image, *slopes)])


def _variational(target: np.ndarray, seen: np.ndarray, flow: np.ndarray, shrink: int) -> np.ndarray:
    """By how much the flow from the target into an image of its size, H x W x 2, is to change."""
    height, width = target.shape
    size = (width // shrink, height // shrink)
    scale = np.array((size[0] / width, size[1] / height), np.float32)
    if shrink > 1:
        target, seen, flow = (cv2.resize(image, size, interpolation=cv2.INTER_AREA) for image in (target, seen, flow))
    solver = cv2.VariationalRefinement_create()
    solver.setFixedPointIterations(3), solver.setSorIterations(15)
    before = np.ascontiguousarray(flow * scale)
    after = before.copy()  # the solver writes into what it is given
    images = bytes_of(target), bytes_of(seen)
    for _ in range(4):
        after = solver.calc(*images, after)
    return cv2.resize(after - before, (width, height)) / scale


def _beyond(flow: np.ndarray, base: np.ndarray) -> np.ndarray:
    """What is left of a flow when the source is warped by a homography (3 x 3, target -> source): H x W x 2 float32."""
    at = grid(flow.shape)
    return np.nan_to_num(apply_homography(np.linalg.inv(base), at + flow) - at, nan=1e6).astype(np.float32)


def _slope(flow: np.ndarray) -> float:
    """The median by which a flow changes from a pixel to the next."""
    across, down = flow[:-1, 1:] - flow[:-1, :-1], flow[1:, :-1] - flow[:-1, :-1]
    return float(np.median(np.hypot(length(across), length(down)))) if across.size else 0.0
