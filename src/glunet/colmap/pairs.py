"""Which images to match with each other."""

from collections.abc import Sequence
from itertools import combinations
from pathlib import Path

from glunet.errors import GlunetError

FEW = 40  # images, up to which all pairs are matched unless something else is asked for

Pair = tuple[int, int]


def every(count: int) -> list[Pair]:
    """All pairs of `count` images, (i, j) with i < j."""
    return list(combinations(range(count), 2))


def window(count: int, width: int) -> list[Pair]:
    """Each image with the `width` next ones."""
    if width < 1:
        raise GlunetError(f"A window of {width} images came: each is matched with 1 or more of the next.")
    return [(i, j) for i in range(count) for j in range(i + 1, min(count, i + width + 1))]


def read(path: Path, names: Sequence[str]) -> list[Pair]:
    """Pairs from a text file: two names a line, separated by spaces, as COLMAP and hloc write them.

    Names may hold spaces, as long as only one reading of the line names two images. Empty lines and those that begin
    with # are passed over, and what comes twice is matched once.

    Raises:
        GlunetError: no such file, or a line that does not name two images.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GlunetError(f"The pairs file '{path}' cannot be read ({reason}): check the path.") from error
    numbers = {name: number for number, name in enumerate(names)}
    found: dict[Pair, None] = {}
    for place, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        words = line.strip().replace("\t", " ").split(" ")
        splits = [(" ".join(words[:at]).strip(), " ".join(words[at:]).strip()) for at in range(1, len(words))]
        pairs = {(numbers[a], numbers[b]) for a, b in splits if a in numbers and b in numbers}
        if len(pairs) != 1 or len(set(*pairs)) != 2:
            raise GlunetError(
                f"Line {place} of '{path}' is '{line}', but the names of two different images are expected."
            )
        a, b = pairs.pop()
        found[min(a, b), max(a, b)] = None
    if not found:
        raise GlunetError(f"'{path}' holds no pairs: write one a line, two names with a space between.")
    return list(found)


def by_blocks(pairs: Sequence[Pair], room: int) -> list[Pair]:
    """The same pairs in an order in which few images are needed again after they went: `room` of them are kept."""
    side = max(1, room // 2)
    return sorted(pairs, key=lambda pair: (pair[0] // side, pair[1] // side, *pair))
