"""The images of a folder as COLMAP sees them: names with slashes, pixels as stored, whatever EXIF says of the top."""

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from glunet.errors import GlunetError
from glunet.images.folders import IMAGES, natural, smaller
from glunet.images.reading import load_as_stored, size_as_stored
from glunet.inference.encoded import Encoded
from glunet.inference.memory import available_bytes

if TYPE_CHECKING:
    from glunet.matcher import Matcher

_ENCODED = 320  # bytes for each pixel of an encoded image: its features, and its grey levels
_SHARE = 0.3  # of the memory there is, for images that are kept encoded


@dataclass(frozen=True)
class Picture:
    """One image of a folder.

    Attributes:
        path: of the file.
        name: relative to the folder, with slashes.
        size: (height, width) as stored.
    """

    path: Path
    name: str
    size: tuple[int, int]

    def matched_size(self, longest: int | None) -> tuple[int, int]:
        """(height, width) that it is brought down to for matching: a longer side of `longest` at most."""
        height, width = self.size
        side = max(height, width)
        if longest is None or side <= longest:
            return self.size
        return (max(1, round(height * longest / side)), max(1, round(width * longest / side)))

    def pixels(self) -> np.ndarray:
        """H x W x 3 uint8, as stored.

        Raises:
            GlunetError: if the file cannot be used.
        """
        return load_as_stored(self.path)  # COLMAP does not turn pictures either


def pictures(folder: Path, passed_over: Callable[[str], None] | None = None) -> list[Picture]:
    """All images in a folder and the folders in it, in the order of their names, numbers by their value.

    Args:
        passed_over: called with what is wrong with an image that cannot be opened, which is left out then.

    Raises:
        GlunetError: no such folder, fewer than two images, or one that cannot be opened.
    """
    if not folder.is_dir():
        raise GlunetError(f"'{folder}' is no folder: name the folder that holds the images.")
    found = []
    for below, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [Path(below) / name for name in files if Path(name).suffix.lower() in IMAGES and name[0] != "."]
    found.sort(key=lambda path: [natural(Path(part)) for part in path.relative_to(folder).parts])
    if len(found) < 2:
        raise GlunetError(f"'{folder}' holds {len(found) or 'no'} images, but two or more are matched: name another.")
    listed = []
    for path in found:
        try:
            listed.append(Picture(path, path.relative_to(folder).as_posix(), size_as_stored(path)))
        except GlunetError as error:
            if passed_over is None:
                raise
            passed_over(str(error))
    if len(listed) < 2:
        raise GlunetError(f"'{folder}' holds {len(listed) or 'no'} images that can be read: two or more are needed.")
    return listed


class Shelf:
    """Images, encoded when they are first asked for; the one not asked for the longest goes when there are too many.

    Attributes:
        room: how many are kept.
    """

    def __init__(self, matcher: "Matcher", images: list[Picture], longest: int | None, room: int | None = None) -> None:
        self.matcher, self.images, self.longest = matcher, images, longest
        self.room = self._room() if room is None else room
        self._kept: dict[int, Encoded] = {}

    def __getitem__(self, number: int) -> Encoded:
        """The image of this number."""
        encoded = self._kept.pop(number, None)
        if encoded is None:
            while len(self._kept) >= self.room:
                del self._kept[next(iter(self._kept))]
            image = self.images[number]
            try:
                encoded = self.matcher.encode(smaller(image.pixels(), self.longest))
            except GlunetError as error:
                raise GlunetError(f"'{image.path}': {error}") from error
        self._kept[number] = encoded
        return encoded

    def _room(self) -> int:
        largest = max(int(np.prod(image.matched_size(self.longest))) for image in self.images)
        available = available_bytes(self.matcher.device)
        if available is None:
            return 2
        return max(2, min(len(self.images), int(_SHARE * available / (_ENCODED * largest))))
