"""Many pairs: neighbours of equal sizes together, results as they come, one bad pair named and passed over."""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Generic, NamedTuple, Protocol, TypeVar

import torch

from glunet.errors import GlunetError
from glunet.flow.geometry import Size
from glunet.images.reading import ImageLike
from glunet.inference.encoded import Encoded, MaskLike, alike
from glunet.inference.memory import available_bytes, needed_bytes

M = TypeVar("M")  # a `glunet.match.Match`, of which nothing is known on this floor
M_co = TypeVar("M_co", covariant=True)
Pair = tuple[ImageLike | Encoded, ImageLike | Encoded]
Opened = tuple[Encoded, Encoded]


class Outcome(NamedTuple, Generic[M]):
    """What became of one pair of many.

    Attributes:
        number: of the pair, from 0, in the order they came.
        match: a `glunet.match.Match`; None for a pair that could not be matched.
        error: why, naming the pair; None for a match.
    """

    number: int
    match: M | None
    error: GlunetError | None


class Matching(Protocol):
    """What is asked of a `glunet.Matcher` here."""

    @property
    def device(self) -> torch.device: ...
    def open(self, image: ImageLike | Encoded, mask: MaskLike | None, role: str) -> Encoded: ...
    def tile(self, source_size: Size, target_size: Size, both: bool = True) -> int | None: ...
    def frame(self, target_size: Size) -> Size: ...


class Matches(Protocol[M_co]):
    """Matches of pairs in one batch, all sources of one size, all targets of one size."""

    def __call__(self, sources: list[Encoded], targets: list[Encoded], tile: int | None) -> Sequence[M_co]: ...


def match_many(
    matcher: Matching, pairs: Iterable[Pair], batch: int, both: bool, matches: Matches[M]
) -> Iterator[Outcome[M]]:
    """See `Matcher.match_many`.

    A pair's pixels are copied as soon as it is read, before the next one is asked for: an iterator may use its arrays
    again. Nothing is remembered by an object's identity.
    """
    if batch < 1:
        raise GlunetError(f"A batch of {batch} pairs was asked for: ask for 1 or more.")
    waiting = _Waiting(matcher, both, matches)
    iterator = iter(pairs)
    number = 0
    while True:
        try:
            pair = next(iterator)
        except StopIteration:
            break
        except Exception:  # what was read before is answered first
            yield from waiting.matched()
            raise
        try:
            opened = waiting.opened(pair)
        except Exception as error:
            yield from waiting.matched()
            yield Outcome(number, None, _named(number, error))
        else:
            if not waiting.takes(opened, batch):
                yield from waiting.matched()
            waiting.pairs.append((number, opened))
        number += 1
    yield from waiting.matched()


class _Waiting(Generic[M]):
    """Consecutive pairs of equal sizes that are matched in one batch."""

    def __init__(self, matcher: Matching, both: bool, matches: Matches[M]) -> None:
        self.matcher, self.both, self.matches = matcher, both, matches
        self.pairs: list[tuple[int, Opened]] = []
        self.known: dict[object, Encoded] = {}  # an image that is in several of these pairs is encoded once

    def opened(self, pair: Pair) -> Opened:
        """The pair's own copy of its pixels.

        Raises:
            GlunetError: an image that cannot be used.
        """
        try:
            source, target = pair
        except (TypeError, ValueError):
            raise GlunetError("it is not a source and a target, as (source, target).") from None
        return alike(self._shared(source, "source"), self._shared(target, "target"))

    def _shared(self, image: ImageLike | Encoded, role: str) -> Encoded:
        encoded = self.matcher.open(image, None, role)
        if isinstance(image, Encoded):
            return encoded
        pixels = encoded.pixels.cpu().numpy()
        key = (pixels.shape, hashlib.blake2b(pixels.data, digest_size=16).digest())
        return self.known.setdefault(key, encoded)

    def takes(self, opened: Opened, batch: int) -> bool:
        """Whether a pair can be matched together with those that wait."""
        if not self.pairs:
            return True
        sizes = _sizes(opened)
        return sizes == _sizes(self.pairs[0][1]) and len(self.pairs) < self._fitting(*sizes, batch)

    def matched(self) -> Iterator[Outcome[M]]:
        """Matches what waits, together; where that fails one by one, to tell which pair it was."""
        pairs, self.pairs, self.known = self.pairs, [], {}
        try:
            found = self._matches([opened for _, opened in pairs]) if pairs else []
        except Exception as error:
            if len(pairs) == 1:
                yield Outcome(pairs[0][0], None, _named(pairs[0][0], error))
                return
            for pair in pairs:
                self.pairs = [pair]
                yield from self.matched()
            return
        for (number, _), match in zip(pairs, found, strict=True):
            yield Outcome(number, match, None)

    def _matches(self, pairs: list[Opened]) -> Sequence[M]:
        sources, targets = [source for source, _ in pairs], [target for _, target in pairs]
        tile = self.matcher.tile(*_sizes(pairs[0]), self.both) if len(pairs) == 1 else None
        return self.matches(sources, targets, tile)

    def _fitting(self, source_size: Size, target_size: Size, batch: int) -> int:
        """How many pairs of these sizes go into memory at once, `batch` at most; at least one, which may then fail."""
        available = available_bytes(self.matcher.device)
        directions = 2 if self.both else 1
        while batch > 1 and available is not None:
            frame = self.matcher.frame(target_size)
            if needed_bytes(source_size, target_size, batch * directions, frame=frame) <= available:
                break
            batch -= 1
        return batch


def _sizes(opened: Opened) -> tuple[Size, Size]:
    source, target = opened
    return source.size, target.size


def _named(number: int, error: Exception) -> GlunetError:
    if isinstance(error, GlunetError):
        named = GlunetError(f"Pair {number}: {error}")
    else:
        reason = " ".join(str(error).split()) or "no reason given"
        named = GlunetError(f"Pair {number}: {type(error).__name__}: {reason}.")
    named.__cause__ = error
    return named
