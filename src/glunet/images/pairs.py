"""Which images to match with each other: all, neighbours, or those of a file; and in which order."""

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import combinations
from math import isqrt
from pathlib import Path

from glunet.errors import GlunetError
from glunet.flow.files import writing

FEW = 40  # images, up to which all pairs are matched unless something else is asked for

Numbers = tuple[int, int]  # of two images of a list
Names = tuple[str, str]


def every(count: int) -> list[Numbers]:
    """All pairs of `count` images, (i, j) with i < j."""
    return list(combinations(range(count), 2))


def window(count: int, width: int) -> list[Numbers]:
    """Each image with the `width` next ones."""
    if width < 1:
        raise GlunetError(f"A window of {width} images came: each is matched with 1 or more of the next.")
    return [(i, j) for i in range(count) for j in range(i + 1, min(count, i + width + 1))]


def by_blocks(pairs: Sequence[Numbers], room: int) -> list[Numbers]:
    """The same pairs in an order in which few images are needed again after they went: `room` of them are kept."""
    side = max(1, room // 2)
    return sorted(pairs, key=lambda pair: (pair[0] // side, pair[1] // side, *pair))


def blocks(pairs: Sequence[Names], size: int) -> Iterator[list[Names]]:
    """The same pairs, `size` at a time, in an order in which a block has few different images."""
    numbers = {name: number for number, name in enumerate(sorted({name for pair in pairs for name in pair}))}
    ordered = {tuple(sorted((numbers[a], numbers[b]))): (a, b) for a, b in pairs}
    order = by_blocks([(i, j) for i, j in ordered], 2 * isqrt(size))
    for first in range(0, len(order), size):
        yield [ordered[pair] for pair in order[first : first + size]]


def write(path: Path, pairs: Iterable[Names]) -> None:
    """One pair a line; between its names a space, or a tab where a name holds spaces.

    Raises:
        GlunetError: if the file cannot be written.
    """
    with writing(path) as part, part.open("w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(("\t" if any(" " in name for name in pair) else " ").join(pair) + "\n")


def read(path: Path, names: Collection[str] = ()) -> list[Names]:
    """What `write` wrote, or hloc, or COLMAP. Empty lines and those that begin with # are passed over.

    What comes twice, either way round, is matched once, as it came first.

    Args:
        names: of the images there are; a line may then have spaces in names and between them, as long as only one
            reading of it names two of them. Empty where they are not known.

    Raises:
        GlunetError: no such file, none in it, or a line that does not name two different images.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GlunetError(f"The pairs file '{path}' cannot be read ({reason}): check the path.") from error
    known = set(names)
    found: dict[frozenset[str], Names] = {}
    for place, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        readings = _readings(line, known)
        if len(readings) != 1 or len(set(*readings)) != 2:
            raise GlunetError(
                f"Line {place} of '{path}' is '{line}', but the names of two different images are expected, with a tab "
                "between them where a name holds spaces."
            )
        pair = readings.pop()
        found.setdefault(frozenset(pair), pair)
    if not found:
        raise GlunetError(f"'{path}' holds no pairs: write one a line, two names with a space between.")
    return list(found.values())


def _readings(line: str, known: set[str]) -> set[Names]:
    """The pairs of names that a line may mean."""
    if not known:
        words = [name.strip() for name in (line.split("\t") if "\t" in line else line.split())]
        return {(words[0], words[1])} if len(words) == 2 and all(words) else set()
    words = line.strip().replace("\t", " ").split(" ")
    splits = {(" ".join(words[:at]).strip(), " ".join(words[at:]).strip()) for at in range(1, len(words))}
    return {pair for pair in splits if known.issuperset(pair)}
