"""Folders of images: which files are images, in which order, and brought down to a size."""

import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from glunet.errors import GlunetError
from glunet.images.reading import load_as_stored, size_as_stored

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm"}


def natural(path: Path) -> list[Any]:
    """A key by which frame-9 comes before frame-10."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"([0-9]+)", path.name)]


def smaller(pixels: np.ndarray, size: int | None) -> np.ndarray:
    """The picture with a longer side of `size` pixels; as it is where it is no longer than that."""
    height, width = smaller_size((pixels.shape[0], pixels.shape[1]), size)
    if (height, width) == pixels.shape[:2]:
        return pixels
    return np.array(Image.fromarray(pixels).resize((width, height), Image.Resampling.LANCZOS))


def smaller_size(size: tuple[int, int], longest: int | None) -> tuple[int, int]:
    """(height, width) of that picture."""
    if longest is None or max(size) <= longest:
        return size
    height, width = (max(1, round(side * longest / max(size))) for side in size)
    return height, width


@dataclass(frozen=True)
class Picture:
    """One image of a folder, as COLMAP sees it: pixels as stored, whatever EXIF says of the top.

    Attributes:
        path: of the file.
        name: relative to the folder, with slashes.
        size: (height, width) as stored.
    """

    path: Path
    name: str
    size: tuple[int, int]

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
