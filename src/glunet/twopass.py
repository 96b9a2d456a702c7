"""Matching twice: upright first, or through a homography, so that the network meets the change it handles best.

A second pass is an offer: it is taken only where the pair, and then each part of it, agrees with itself better than
before. What decides is the round trip (`glunet.confidence`), which needs no truth.
"""

import logging
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch.nn import functional as F

from glunet.confidence import flow_tensor, tolerance
from glunet.encoded import Encoded
from glunet.errors import GlunetError
from glunet.flow import geometry
from glunet.match import Match
from glunet.models import Model, apply_homography
from glunet.network.family import Network

logger = logging.getLogger(__name__)

Pair = Callable[[Encoded, Encoded], Match]  # source, target -> a match in both directions

UPRIGHT_BONUS = 1.05  # a turned source must look this much more alike: most pairs are upright
FEWEST_INLIERS = 0.15  # share of the points that a homography must explain to be worth a pass
CLEARLY = 0.95  # how much smaller the second pass's round trips must be for any of it to be taken
LOST = 4.0  # median round trip, in tolerances, from which on a second pass is as lost as the first
SMALL_CHANGE = 0.04  # of the longer side: a homography that moves no corner further changes nothing for the network


@torch.inference_mode()
def best_turn(network: Network, source: Encoded, target: Encoded, prepare: Callable[[Encoded], Any]) -> int:
    """By how many quarter turns, against the clock, the source looks most like the target: 0 to 3.

    Asked is the global level alone, on 16 x 16 positions: how alike the best partners are that positions have, which
    VGG's features, made from upright photographs, tell well.

    Args:
        prepare: an image as the network's `encode` takes it, 256 x 256.
    """
    encode: Any = network.encode
    level = encode(*prepare(target)).level4.flatten(2)
    level = F.normalize(level - level.mean(dim=2, keepdim=True), dim=1)
    scores = []
    for quarters in range(4):
        other = encode(*prepare(source.turned(quarters))).level4.flatten(2)
        alike = level.transpose(1, 2) @ F.normalize(other - other.mean(dim=2, keepdim=True), dim=1)
        scores.append(float(alike.amax(dim=2).mean() + alike.amax(dim=1).mean()))
    scores[0] *= UPRIGHT_BONUS
    logger.debug("scores of the four orientations: %s", scores)
    return int(np.argmax(scores))


def agreement(match: Match) -> float:
    """The share of the target that lies in the source and comes back from there within a tolerance, 0 to 1."""
    return float((match.in_view & (match.round_trip <= tolerance(match.target_size))).mean())


def turn_back(match: Match, quarters: int, source: Encoded) -> Match:
    """From a match of `source` turned by quarters to one of the source as it came."""
    height, width = source.size
    x, y = match.map[..., 0], match.map[..., 1]
    for turned in range(quarters, 0, -1):  # one quarter less at a time
        high = width if turned % 2 else height  # of the image that was turned: its width became the height
        x, y = high - 1 - y, x
    there = np.stack((x, y), axis=-1)
    flow = there - _grid(match.target_size)
    backward = None
    if match.backward is not None:
        mapping = match.backward + _grid(match.source_size)
        backward = np.rot90(mapping, -quarters) - _grid(source.size)
    return replace(
        match,
        flow=np.ascontiguousarray(flow, np.float32),
        backward=None if backward is None else np.ascontiguousarray(backward, np.float32),
        source_size=source.size,
        source_valid=source.valid,
        pictures=None if match.pictures is None else (source.picture, match.pictures[1]),
    )


def through_homography(pair: Pair, source: Encoded, target: Encoded, first: Match) -> Match:
    """Matches again with the source warped by the first pass's homography (stage "H" of Truong et al.'s PDC-Net).

    Args:
        first: the first pass, in both directions.

    Returns:
        The composition, or the first pass where that agrees with itself better: for single parts, or as a whole.

    Raises:
        GlunetError: if OpenCV is missing.
    """
    model = _homography(first)
    if model is None:
        return first
    second = pair(_warped(source, model.matrix, first.target_size), target)
    return better_parts(first, compose(first, second, model.matrix), second)


def compose(first: Match, second: Match, matrix: np.ndarray) -> Match:
    """The second pass in the coordinates of the source as it came; what its way back lacks the first pass has."""
    there = apply_homography(matrix, second.map.astype(np.float64))
    grid = _grid(first.target_size)
    flow = np.where(np.isfinite(there), there - grid, first.flow)
    assert first.backward is not None
    assert second.backward is not None
    seen_at = apply_homography(np.linalg.inv(matrix), _grid(first.source_size).astype(np.float64))
    height, width = first.target_size
    inside = np.isfinite(seen_at).all(-1) & (seen_at >= 0).all(-1) & (seen_at <= (width - 1, height - 1)).all(-1)
    positions = torch.from_numpy(np.where(inside[..., None], seen_at, 0).transpose(2, 0, 1)[None]).float()
    back = geometry.sample(flow_tensor(second.backward), positions, "border")[0].numpy().transpose(1, 2, 0)
    backward = seen_at + back - _grid(first.source_size)
    return replace(
        first,
        flow=flow.astype(np.float32),
        backward=np.where(inside[..., None], backward, first.backward).astype(np.float32),
    )


def better_parts(first: Match, composed: Match, second: Match) -> Match:
    """Part by part what agrees with itself better; the first pass alone where the second is no better as a whole."""
    tolerated = tolerance(first.target_size)
    offered = second.in_view & composed.in_view
    trips = [np.log(match.round_trip / tolerated + 0.1) for match in (first, second)]
    if offered.mean() < 0.1:
        return first
    before, after = (float(np.median(match.round_trip[offered])) / tolerated for match in (first, second))
    logger.debug("median round trip, in tolerances: %.2f before, %.2f after", before, after)
    if after > min(CLEARLY * before, LOST):
        return first
    smooth = [_smooth(np.where(offered, trip, trips[0])) for trip in trips]
    taken = offered & (smooth[1] < smooth[0])
    logger.debug("the second pass is taken for %.0f %% of the target", 100 * taken.mean())
    flow = np.where(taken[..., None], composed.flow, first.flow)
    return replace(composed, flow=flow)


def _homography(match: Match) -> Model | None:
    """The match's homography, if it explains enough, is no folding, and changes the view at all."""
    height, width = match.target_size
    try:
        model = match.model("homography", threshold=tolerance(match.source_size), count=3000, least=0.1)
    except GlunetError:
        from glunet.models import opencv

        opencv()  # that it is missing is no reason to go on without a word
        return None
    corners = np.array(((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)), np.float64)
    there = apply_homography(model.matrix, corners)
    if model.inliers.mean() < FEWEST_INLIERS or model.inliers.sum() < 50 or not np.isfinite(there).all():
        return None
    side, next_side = np.roll(there, -1, axis=0) - there, np.roll(there, -2, axis=0) - np.roll(there, -1, axis=0)
    turns = side[:, 0] * next_side[:, 1] - side[:, 1] * next_side[:, 0]
    area = abs(_area(there)) / (match.source_size[0] * match.source_size[1])
    if not (turns > 0).all() or not 0.02 < area < 50:
        return None
    scale = np.array((match.source_size[1] / width, match.source_size[0] / height))
    moved = there - ((corners + 0.5) * scale - 0.5)
    return model if np.abs(moved).max() > SMALL_CHANGE * max(match.source_size) else None


def _warped(source: Encoded, matrix: np.ndarray, size: tuple[int, int]) -> Encoded:
    """The source on the target's grid, through a homography; its mean colour where it shows nothing."""
    there = apply_homography(matrix, _grid(size).astype(np.float64))
    height, width = source.size
    inside = np.isfinite(there).all(-1) & (there >= -0.5).all(-1) & (there <= (width - 0.5, height - 0.5)).all(-1)
    there = np.where(np.isfinite(there), there, -1e6).astype(np.float32)
    device = source.pixels.device
    pixels = source.pixels
    # What becomes much smaller is averaged first, or fine texture would flicker.
    shrink = max(1, int((abs(_area(there[[0, 0, -1, -1], [0, -1, -1, 0]])) / (size[0] * size[1])) ** 0.5))
    if shrink > 1 and inside.mean() > 0.2:
        small = geometry.resize_area(pixels, (max(32, height // shrink), max(32, width // shrink)))
        factor = np.array((small.shape[-1] / width, small.shape[-2] / height), np.float32)
        there, pixels = (there + 0.5) * factor - 0.5, small
    positions = torch.from_numpy(there.transpose(2, 0, 1)[None]).to(device)
    seen = geometry.sample(pixels, positions, "border")
    valid = inside
    if source.valid is not None:
        mask = torch.from_numpy(source.valid)[None, None].float().to(device)
        mask = geometry.resize_area(mask, pixels.shape[-2:])
        valid = inside & (geometry.sample(mask, positions, "border")[0, 0] > 0.5).cpu().numpy()
    mean = source.pixels.mean(dim=(2, 3), keepdim=True)
    return Encoded(torch.where(torch.from_numpy(valid).to(device), seen, mean), valid, source.settings)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean over a window of a sixteenth of the longer side."""
    radius = max(2, max(values.shape) // 32)
    window = 2 * radius + 1
    tensor = F.pad(torch.from_numpy(values)[None, None], (radius,) * 4, mode="replicate")
    return F.avg_pool2d(F.avg_pool2d(tensor, (window, 1), 1), (1, window), 1)[0, 0].numpy()


def _area(corners: np.ndarray) -> float:
    x, y = corners[:, 0], corners[:, 1]
    return float(np.sum(x * np.roll(y, -1) - np.roll(x, -1) * y) / 2)


def _grid(size: tuple[int, int]) -> np.ndarray:
    """H x W x 2, x and y of each pixel."""
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float32)
    return np.stack((x, y), axis=-1)
