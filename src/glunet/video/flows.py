"""The flow of a video's frames: of consecutive ones, or of each against a fixed one. Each frame is encoded once."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, NamedTuple

from glunet.errors import GlunetError
from glunet.images.folders import smaller
from glunet.inference import memory
from glunet.inference.encoded import Encoded
from glunet.inference.search import Search
from glunet.match import Match
from glunet.video.reader import Frame, Frames

if TYPE_CHECKING:
    from glunet.matcher import Matcher

Direction = Literal["forward", "backward"]


class Step(NamedTuple):
    """What became of one pair of frames, or of a frame without a picture.

    Attributes:
        target, source: numbers of the frames; the flow lives on the target's grid. For a broken frame both are its own.
        time: seconds; of consecutive frames the target's, else that of the frame that is not the fixed one.
        match: None for a broken frame, a pair that could not be matched, and one that was known already.
        problem: why there is none; "" where nothing is wrong.
        size: (height, width) of the target's frame as it is in the video.
    """

    target: int
    source: int
    time: float
    match: Match | None
    problem: str = ""
    size: tuple[int, int] | None = None


@dataclass
class _Seen:
    """A frame, encoded when it is first needed."""

    frame: Frame
    size: int | None
    _encoded: Encoded | None = None

    def encoded(self, matcher: "Matcher") -> Encoded:
        if self._encoded is None:
            assert self.frame.pixels is not None
            self._encoded = matcher.encode(smaller(self.frame.pixels, self.size))
        return self._encoded


def flows(
    matcher: "Matcher",
    frames: Frames,
    wanted: range,
    *,
    against: int | None = None,
    direction: Direction = "forward",
    size: int | None = None,
    confidence: bool = True,
    known: Callable[[int, int], bool] = lambda target, source: False,
    search: Search | None = None,
) -> Iterator[Step]:
    """Matches frame by frame; no more than two frames are in memory at a time.

    Args:
        wanted: numbers of the frames to take. A broken one is passed over: its neighbours are matched with each other.
        against: number of a fixed frame, which need not be wanted; None for consecutive frames.
        direction: "forward": the target is the earlier of two frames (or the fixed one), and the flow points into the
            later (or the other) one. "backward": the other way round.
        size: longer side that frames are brought down to; the flow is in pixels of these smaller frames.
        confidence: tell how far to trust each flow.
        search: as for `glunet.load`, of every pair. None searches, if the matcher does, on pairs with a fixed frame, on
            the first pair, and wherever one that was matched without a search does not look like the same thing, as at
            a cut.
        known: asked with target and source; pairs for which it is true are not matched.

    Yields:
        A `Step` for each pair, and one for each broken frame.

    Raises:
        GlunetError: if the fixed frame has no picture or is not there.
    """
    fixed = None if against is None else _Seen(_one(frames, against), size)
    before: _Seen | None = None
    first = True
    for frame in frames.read(wanted):
        if frame.pixels is None:
            yield Step(frame.number, frame.number, frame.time, None, frame.problem)
            continue
        now = _Seen(frame, size)
        other = before if fixed is None else fixed
        before = now if fixed is None else None
        if other is None or other.frame.number == frame.number:
            continue
        target, source = (other, now) if direction == "forward" else (now, other)
        time = target.frame.time if fixed is None else frame.time
        numbers = (target.frame.number, source.frame.number)
        if known(*numbers):
            yield Step(*numbers, time, None)
            continue
        try:
            pair = source.encoded(matcher), target.encoded(matcher)
            plain = search is None and fixed is None and not first
            match = matcher.match(*pair, confidence=confidence, search="none" if plain else search)
            if plain and match.verdict.same is False:
                match = matcher.match(*pair, confidence=confidence)
            del pair
            first = False
        except GlunetError as error:
            yield Step(*numbers, time, None, str(error).rstrip("."))
        else:
            assert target.frame.pixels is not None
            yield Step(*numbers, time, match, size=(target.frame.pixels.shape[0], target.frame.pixels.shape[1]))
            del match
            memory.give_back()  # glibc would keep some 7 MB a frame of 640 x 360, in pieces that fit nothing


def check_fixed(frames: Frames, number: int | None) -> None:
    """Raises a GlunetError if there is no such frame to match against."""
    if number is not None and not 0 <= number < frames.count:
        raise GlunetError(
            f"Frame {number} was named to match against, but '{frames.path}' has frames 0 to {frames.count - 1}."
        )


def _one(frames: Frames, number: int) -> Frame:
    check_fixed(frames, number)
    frame = next(frames.read(range(number, number + 1)), None)
    if frame is None or frame.pixels is None:
        problem = frame.problem if frame else "no picture came of it"
        raise GlunetError(f"Frame {number} of '{frames.path}', to match against, is broken ({problem}): name another.")
    return frame
