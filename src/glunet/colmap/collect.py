"""Matches the pairs, and finds which keypoints of one image belong to which of the other."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import NamedTuple

import numpy as np

from glunet.colmap.journal import Journal, Kept
from glunet.colmap.keypoints import NONE, Keypoints
from glunet.errors import GlunetError
from glunet.images.folders import Picture, smaller, smaller_size
from glunet.images.pairs import Numbers, by_blocks
from glunet.inference.encoded import Encoded
from glunet.inference.shelf import Shelf, room
from glunet.match import Match
from glunet.matcher import Matcher


@dataclass(frozen=True)
class Settings:
    """How keypoints come about.

    Attributes:
        size: longer side that images are brought down to for matching; None for no limit. The rest is in pixels of
            these smaller images.
        cell: an image holds at most one keypoint in each cell of so many pixels.
        reach: a match that ends so near an existing keypoint ends at it; one that ends up to twice as far is dropped,
            as it would make a second keypoint of one thing. Half a cell at most.
        least: lowest confidence (`Match.confidence_kind`).
        round_trip: how far from its place a point may end that goes there and back.
    """

    size: int | None = 1024
    cell: int = 8
    reach: float = 2.0
    least: float = 0.5
    round_trip: float = 2.0


class Matched(NamedTuple):
    """One pair.

    Attributes:
        pair: numbers of the two images, the first the smaller.
        matches: (N, 2) uint32, keypoint numbers in the one and the other; each at most once.
        scores: (N,) float32, confidence.
        verdict: a sentence for a pair that does not show the same thing and has no matches; else "".
    """

    pair: Numbers
    matches: np.ndarray
    scores: np.ndarray
    verdict: str = ""


class Collected(NamedTuple):
    """What there is to write.

    Attributes:
        images: the images.
        points: for each the keypoints, (N, 2) float32, pixels as stored, pixel centres at integers.
        scores: for each (N,) float32.
        pairs: all that were matched.
        scale: a matched pixel in pixels as stored, of the image where it is largest.
    """

    images: list[Picture]
    points: list[np.ndarray]
    scores: list[np.ndarray]
    pairs: list[Matched]
    scale: float = 1.0


def collect(
    matcher: Matcher,
    images: list[Picture],
    pairs: list[Numbers],
    settings: Settings,
    watch: Callable[[Matched, int], None] = lambda *done: None,
    journal: Journal | None = None,
    keep_going: bool = False,
) -> Collected:
    """Matches pair after pair, each image encoded once as long as memory has room.

    Args:
        watch: called with each pair and how many are done.
        journal: keeps each pair as it is done, and has those that an earlier run kept.
        keep_going: pairs of an image that cannot be used are left out, with the reason as their verdict.

    Raises:
        GlunetError: an image that cannot be used (without `keep_going`), or a pair too large for the memory there is.
    """
    sizes = [smaller_size(image.size, settings.size) for image in images]
    kept = [Keypoints(size, settings.cell) for size in sizes]

    def pixels(number: int) -> np.ndarray:
        return smaller(images[number].pixels(), settings.size)

    pixels_kept = room(matcher.device)
    shelf = Shelf(matcher.encode, pixels, pixels_kept)
    images_kept = max(2, pixels_kept // max(map(prod, sizes)))
    done: list[Matched] = []
    for before in journal or ():
        for which, new, new_scores in zip(before.pair, before.points, before.point_scores, strict=True):
            kept[which].add(new, new_scores)
        done.append(Matched(before.pair, before.matches, before.scores, before.verdict))
        watch(done[-1], len(done))
    known = {matched.pair for matched in done}
    for i, j in (pair for pair in by_blocks(pairs, images_kept) if pair not in known):
        counts = len(kept[i]), len(kept[j])
        done.append(_matched(matcher, (i, j), partial(_encoded, shelf, images), kept, settings, keep_going))
        if journal is not None:
            first, second = counts
            journal.keep(
                Kept(
                    (i, j),
                    done[-1].matches,
                    done[-1].scores,
                    done[-1].verdict,
                    (kept[i].points[first:], kept[j].points[second:]),
                    (kept[i].scores[first:], kept[j].scores[second:]),
                )
            )
        watch(done[-1], len(done))
    points, largest = [], 1.0
    for image, matched, own in zip(images, sizes, kept, strict=True):
        scale = np.array((image.size[1] / matched[1], image.size[0] / matched[0]), np.float32)
        largest = max(largest, float(scale.max()))
        points.append(((own.points + 0.5) * scale - 0.5).astype(np.float32))
    return Collected(images, points, [own.scores for own in kept], done, largest)


def _encoded(shelf: Shelf[int], images: list[Picture], number: int) -> Encoded:
    try:
        return shelf[number]
    except GlunetError as error:
        raise GlunetError(f"'{images[number].path}': {error}") from error


def _matched(
    matcher: Matcher,
    pair: Numbers,
    encoded: Callable[[int], Encoded],
    kept: list[Keypoints],
    settings: Settings,
    keep_going: bool,
) -> Matched:
    i, j = pair
    nothing = np.empty((0, 2), np.uint32), np.empty(0, np.float32)
    try:
        match = matcher.match(encoded(j), encoded(i), backward=True)
    except GlunetError as error:
        if not keep_going:
            raise
        return Matched(pair, *nothing, str(error))
    if match.verdict.same is False:
        return Matched(pair, *nothing, str(match.verdict))
    return Matched(pair, *meet(match, kept[i], kept[j], settings))


def meet(match: Match, target: Keypoints, source: Keypoints, settings: Settings) -> tuple[np.ndarray, np.ndarray]:
    """Which keypoints of the target are which of the source; new ones are made in both where cells are free.

    A keypoint keeps the place where it was first found, and its partner is looked up there, between pixels: what is
    rounded is only where two ways to the same keypoint meet (by `reach` at most).

    Returns:
        (N, 2) uint32, numbers in target and source, and (N,) float32, confidence. The surest first; each number once.
    """
    found = [
        _follow(match, target, source, target.points, False, settings),
        _follow(match.reverse, source, target, source.points, False, settings)[:, [1, 0, 2]],
    ]
    fresh = target.candidates(match.confidence, settings.least)
    found.append(_follow(match, target, source, fresh, True, settings))
    rows = np.concatenate(found)
    rows = rows[np.argsort(-rows[:, 2], kind="stable")]
    for column in (0, 1):  # the surest of each keypoint's
        rows = rows[np.sort(np.unique(rows[:, column], return_index=True)[1])]
    return rows[:, :2].astype(np.uint32), rows[:, 2].astype(np.float32)


def _follow(
    match: Match, here: Keypoints, there: Keypoints, points: np.ndarray, fresh: bool, settings: Settings
) -> np.ndarray:
    """From points of the target to keypoints of the source, found or new.

    Args:
        points: (M, 2), of `here`: its keypoints, or, if fresh, others, which become such if they lead somewhere.

    Returns:
        (N, 3) float64: number here, number there, confidence.
    """
    if not len(points):
        return np.empty((0, 3))
    ends, confidence = match.at(points, least=settings.least)
    good = np.flatnonzero(np.isfinite(ends).all(axis=1))
    back, _ = match.at(ends[good], of="source")
    good = good[np.linalg.norm(back - points[good], axis=1) <= settings.round_trip]  # NaN is not
    good = good[np.argsort(-confidence[good], kind="stable")]
    numbers = there.nearest(ends[good], settings.reach)
    new = there.nearest(ends[good], 2 * settings.reach) == NONE
    numbers[new] = there.add(ends[good[new]], confidence[good[new]])
    good, numbers = good[numbers != NONE], numbers[numbers != NONE]
    own = good if not fresh else here.add(points[good], confidence[good])
    rows = np.stack((own, numbers, confidence[good]), axis=-1).astype(np.float64)
    return rows[rows[:, 0] != NONE]
