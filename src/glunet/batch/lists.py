"""Lists of pairs as files, and as blocks that are matched together."""

from collections.abc import Iterable, Iterator, Sequence
from math import isqrt
from pathlib import Path

from glunet.colmap.pairs import by_blocks
from glunet.errors import GlunetError
from glunet.flow.files import writing

Named = tuple[str, str]  # names of source and target


def write(path: Path, pairs: Iterable[Named]) -> None:
    """One pair a line; between its names a space, or a tab where a name holds spaces.

    Raises:
        GlunetError: if the file cannot be written.
    """
    with writing(path) as part, part.open("w", encoding="utf-8") as file:
        for pair in pairs:
            file.write(("\t" if any(" " in name for name in pair) else " ").join(pair) + "\n")


def read(path: Path) -> list[Named]:
    """What `write` wrote, or hloc, or COLMAP. Empty lines and those that begin with # are passed over.

    What comes twice, either way round, is matched once, as it came first.

    Raises:
        GlunetError: no such file, none in it, or a line that does not name two different images.
    """
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        reason = getattr(error, "strerror", None) or error
        raise GlunetError(f"The pairs file '{path}' cannot be read ({reason}): check the path.") from error
    found: dict[frozenset[str], Named] = {}
    for place, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("#"):
            continue
        names = [name.strip() for name in (line.split("\t") if "\t" in line else line.split())]
        if len(names) != 2 or not all(names) or names[0] == names[1]:
            raise GlunetError(
                f"Line {place} of '{path}' is '{line}', but the names of two different images are expected, with a tab "
                "between them where a name holds spaces."
            )
        found.setdefault(frozenset(names), (names[0], names[1]))
    if not found:
        raise GlunetError(f"'{path}' holds no pairs: write one a line, two names with a space between.")
    return list(found.values())


def blocks(pairs: Sequence[Named], size: int) -> Iterator[list[Named]]:
    """The same pairs, `size` at a time, in an order in which a block has few different images."""
    numbers: dict[str, int] = {}
    for name in sorted({name for pair in pairs for name in pair}):
        numbers[name] = len(numbers)
    ordered = {tuple(sorted((numbers[a], numbers[b]))): (a, b) for a, b in pairs}
    order = by_blocks([(i, j) for i, j in ordered], 2 * isqrt(size))
    for first in range(0, len(order), size):
        yield [ordered[pair] for pair in order[first : first + size]]
