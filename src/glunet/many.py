"""Many pairs: equal sizes together, results as they come, one bad pair named and passed over."""

from collections import defaultdict
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

from glunet.encoded import Encoded, Size
from glunet.errors import GlunetError
from glunet.images import ImageLike
from glunet.match import Match
from glunet.memory import available_bytes, needed_bytes

if TYPE_CHECKING:
    from glunet.matcher import Matcher

AHEAD = 4  # batches that are looked through for pairs of equal sizes


class Outcome(NamedTuple):
    """What became of one pair of many.

    Attributes:
        number: of the pair, from 0, in the order they came.
        match: None for a pair that could not be matched.
        error: why, naming the image; None for a match.
    """

    number: int
    match: Match | None
    error: GlunetError | None


Pair = tuple[ImageLike | Encoded, ImageLike | Encoded]


def match_many(matcher: "Matcher", pairs: Iterable[Pair], batch: int, confidence: bool) -> Iterator[Outcome]:
    """See `Matcher.match_many`."""
    if batch < 1:
        raise GlunetError(f"A batch of {batch} pairs was asked for: ask for 1 or more.")
    numbered = enumerate(pairs)
    while window := list(islice(numbered, batch * AHEAD)):
        outcomes: dict[int, Outcome] = {}
        groups: dict[tuple[Size, Size], list[tuple[int, Pair]]] = defaultdict(list)
        for number, pair in window:
            try:
                source, target = pair
                sizes = matcher.size(source, "source"), matcher.size(target, "target")
            except GlunetError as error:
                outcomes[number] = Outcome(number, None, _named(number, error))
            except (TypeError, ValueError):
                wrong = GlunetError("it is not a source and a target, as (source, target)")
                outcomes[number] = Outcome(number, None, _named(number, wrong))
            else:
                groups[sizes].append((number, pair))
        for (source_size, target_size), group in groups.items():
            size = _fitting(matcher, source_size, target_size, batch, confidence)
            for start in range(0, len(group), size):
                outcomes |= _batch(matcher, group[start : start + size], confidence)
        for number, _ in window:
            yield outcomes.pop(number)


def _batch(matcher: "Matcher", group: list[tuple[int, Pair]], confidence: bool) -> dict[int, Outcome]:
    outcomes, opened = {}, []
    same: dict[int, Encoded] = {}  # an image that is in several of these pairs is opened and encoded once
    for number, pair in group:
        try:
            images = []
            for image, role in zip(pair, ("source", "target"), strict=True):
                if id(image) not in same:
                    same[id(image)] = matcher.open(image, None, role)
                images.append(same[id(image)])
            opened.append((number, images))
        except GlunetError as error:
            outcomes[number] = Outcome(number, None, _named(number, error))
    if not opened:
        return outcomes
    try:
        sources, targets = [s for _, (s, _) in opened], [t for _, (_, t) in opened]
        tile = matcher.tile(sources[0].size, targets[0].size, confidence) if len(opened) == 1 else None
        matches = matcher.matches(sources, targets, confidence, tile)
    except GlunetError as error:
        return outcomes | {number: Outcome(number, None, _named(number, error)) for number, _ in opened}
    return outcomes | {number: Outcome(number, match, None) for (number, _), match in zip(opened, matches, strict=True)}


def _fitting(
    matcher: "Matcher", source_size: tuple[int, int], target_size: tuple[int, int], batch: int, confidence: bool
) -> int:
    """How many pairs of these sizes go into memory at once, `batch` at most; at least one, which may then fail."""
    available = available_bytes(matcher.device)
    directions = 2 if confidence else 1
    while batch > 1 and available is not None:
        if needed_bytes(source_size, target_size, batch * directions, matcher.device) <= available:
            break
        batch -= 1
    return batch


def _named(number: int, error: GlunetError) -> GlunetError:
    return GlunetError(f"Pair {number}: {error}")
