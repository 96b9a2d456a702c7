"""Photographs to learn from: any folder or tar files of images, decoded once, memory bounded."""

import io
import logging
import tarfile
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from glunet.errors import GlunetError

log = logging.getLogger(__name__)
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".ppm", ".pgm"}
SHORT_SIDE = 400  # photographs are kept at most this large: views are rendered at 256 from their central parts
SMALLEST = 64  # a photograph below this many pixels a side has nothing to teach


@dataclass(frozen=True)
class Place:
    """Where one photograph lies: a file, or a member of a tar file."""

    path: Path
    member: str | None = None
    offset: int = 0
    size: int = 0

    def read(self) -> bytes:
        if self.member is None:
            return self.path.read_bytes()
        with self.path.open("rb") as file:
            file.seek(self.offset)
            return file.read(self.size)

    def __str__(self) -> str:
        return str(self.path) if self.member is None else f"{self.path}:{self.member}"


def find(root: str | Path | Sequence[str | Path]) -> list[Place]:
    """Every image below folders, in tar files, or named directly, in a stable order.

    Raises:
        GlunetError: if a path does not exist, is no readable tar file, or nothing there is an image by its name.
    """
    roots = [root] if isinstance(root, str | Path) else list(root)
    places = [place for one in roots for place in _below(Path(one))]
    if not places:
        raise GlunetError(
            f"No images in {', '.join(map(str, roots))}; expected a folder or tar file with photographs "
            f"({', '.join(sorted(SUFFIXES))})."
        )
    return places


def _below(path: Path) -> Iterator[Place]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in SUFFIXES and file.is_file():
                yield Place(file)
            elif file.suffix.lower() == ".tar":
                yield from _below(file)
    elif not path.exists():
        raise GlunetError(f"{path} does not exist; expected a folder or a tar file with photographs.")
    elif path.suffix.lower() == ".tar":
        try:
            with tarfile.open(path, "r:") as tar:
                members = [m for m in tar if m.isfile() and Path(m.name).suffix.lower() in SUFFIXES]
        except tarfile.TarError as error:
            raise GlunetError(f"{path} cannot be read as a tar file ({error}); pass an uncompressed one.") from error
        for member in sorted(members, key=lambda m: m.name):
            yield Place(path, member.name, member.offset_data, member.size)
    elif path.suffix.lower() in SUFFIXES:
        yield Place(path)


def decode(place: Place, short_side: int = SHORT_SIDE) -> Tensor:
    """One photograph as 3 x H x W uint8, RGB, EXIF rotation applied, its short side at most `short_side`.

    Raises:
        OSError, UnidentifiedImageError, ValueError: if it cannot be decoded or is under 64 pixels a side.
    """
    with Image.open(io.BytesIO(place.read())) as image:
        if min(image.size) < SMALLEST:
            raise ValueError(f"{image.width} x {image.height} pixels, under {SMALLEST} a side")
        image.draft("RGB", (short_side, short_side))  # JPEGs of any size are decoded near the size wanted
        picture = ImageOps.exif_transpose(image).convert("RGB")
    scale = short_side / min(picture.size)
    if scale < 1:
        picture = picture.resize(
            (round(picture.width * scale), round(picture.height * scale)), Image.Resampling.LANCZOS, reducing_gap=3
        )
    return torch.from_numpy(np.array(picture)).permute(2, 0, 1).contiguous()


class Photographs:
    """Decoded photographs by number, kept in memory up to a bound; unreadable ones are found up front.

    Args:
        places: what `find` found.
        memory: bytes of decoded photographs to keep; beyond it they are decoded again.
        short_side: see `decode`.
    """

    def __init__(self, places: Sequence[Place], memory: int = 4 << 30, short_side: int = SHORT_SIDE) -> None:
        self.places = list(places)
        self.short_side = short_side
        self._memory = memory
        self._kept: dict[int, Tensor] = {}
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.places)

    def __getitem__(self, number: int) -> Tensor:
        """Photograph `number`, 3 x H x W uint8."""
        picture = self._kept.get(number)
        if picture is None:
            picture = decode(self.places[number], self.short_side)
            with self._lock:
                if number not in self._kept and self._bytes + picture.numel() <= self._memory:
                    self._kept[number] = picture
                    self._bytes += picture.numel()
        return picture

    def check(self) -> list[str]:
        """Drop what cannot be read or is too small (by opening, not decoding, each); one sentence for each dropped."""
        good, complaints = [], []
        for place in self.places:
            try:
                with Image.open(io.BytesIO(place.read())) as image:
                    if min(image.size) < SMALLEST:
                        raise ValueError(f"{image.width} x {image.height} pixels, under {SMALLEST} a side")
                    image.verify()
                good.append(place)
            except (OSError, SyntaxError, ValueError, UnidentifiedImageError, Image.DecompressionBombError) as error:
                complaints.append(f"{place}: {error}")
        self.places = good
        self._kept.clear()
        self._bytes = 0
        return complaints
