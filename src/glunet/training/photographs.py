"""Photographs to learn from: any folder or tar files of images, decoded once, memory bounded."""

import contextlib
import hashlib
import io
import logging
import tarfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from glunet.errors import GlunetError
from glunet.images.folders import IMAGES
from glunet.images.reading import load_pixels

log = logging.getLogger(__name__)
SHORT_SIDE = 400  # photographs are kept at most this large: views are rendered at 256 from their central parts
SMALLEST = 64  # a photograph below this many pixels a side has nothing to teach
HUGE = 178_956_970  # pixels above which Pillow refuses: half a gigabyte to decode
BROKEN = (OSError, SyntaxError, ValueError, EOFError, UnidentifiedImageError, GlunetError)


@dataclass(frozen=True)
class Place:
    """Where one photograph lies: a file, or a member of a tar file."""

    path: Path
    member: str | None = None
    offset: int = 0
    size: int = 0

    @contextlib.contextmanager
    def open(self) -> Iterator[Image.Image]:
        """The image, of which only the header is read at first; a file is never in memory as a whole.

        Raises:
            One of BROKEN: if it is none, or too small or too large.
        """
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # what is too large is reported below
            try:
                image = Image.open(self.path if self.member is None else io.BytesIO(self._bytes()))
            except Image.DecompressionBombError as error:
                raise ValueError(f"over {HUGE // 10**6} megapixels; cut it into pieces") from error
        with image:
            if min(image.size) < SMALLEST:
                raise ValueError(f"{image.width} x {image.height} pixels, under {SMALLEST} a side")
            yield image

    def _bytes(self) -> bytes:
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
            f"({', '.join(sorted(IMAGES))})."
        )
    return places


def _below(path: Path) -> Iterator[Place]:
    if path.is_dir():
        for file in sorted(path.rglob("*")):
            if file.suffix.lower() in IMAGES and file.is_file():
                yield Place(file)
            elif file.suffix.lower() == ".tar":
                yield from _below(file)
    elif not path.exists():
        raise GlunetError(f"{path} does not exist; expected a folder or a tar file with photographs.")
    elif path.name.lower().endswith((".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".zip")):
        raise GlunetError(f"{path} is compressed, but a folder or an uncompressed tar file is expected: unpack it.")
    elif path.suffix.lower() == ".tar":
        try:
            with tarfile.open(path, "r:") as tar:
                members = [m for m in tar if m.isfile() and Path(m.name).suffix.lower() in IMAGES]
        except tarfile.TarError as error:
            raise GlunetError(f"{path} cannot be read as a tar file ({error}); pass an uncompressed one.") from error
        for member in sorted(members, key=lambda m: m.name):
            yield Place(path, member.name, member.offset_data, member.size)
    elif path.suffix.lower() in IMAGES:
        yield Place(path)


def decode(place: Place, short_side: int = SHORT_SIDE) -> Tensor:
    """One photograph as 3 x H x W uint8, RGB, EXIF rotation applied, its short side at most `short_side`.

    Raises:
        One of BROKEN: if it cannot be decoded or is under 64 pixels a side.
    """
    with place.open() as image:
        image.draft("RGB", (short_side, short_side))  # JPEGs of any size are decoded near the size wanted
        plain = image.mode in ("RGB", "L", "CMYK", "YCbCr") and image.format != "TIFF"
        if not plain or image.has_transparency_data:  # as a matcher takes them
            picture = Image.fromarray(load_pixels(image, str(place)))
        else:
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

    Attributes:
        needed: bytes that all would take, known after `check`.
        largest: (width, height) of the largest, likewise.
    """

    def __init__(self, places: Sequence[Place], memory: int = 4 << 30, short_side: int = SHORT_SIDE) -> None:
        self.places = list(places)
        self.short_side = short_side
        self.memory = memory
        self.needed, self.largest = 0, (0, 0)
        self._kept: dict[int, Tensor] = {}
        self._broken: set[int] = set()
        self._bytes = 0
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self.places)

    def fingerprint(self) -> str:
        """Of the photographs' names and sizes: another where a run would learn from others."""
        digest = hashlib.blake2b(digest_size=16)
        for place in self.places:
            name = place.member or place.path.name
            digest.update(f"{name} {place.size or place.path.stat().st_size}\n".encode())
        return digest.hexdigest()

    def __getitem__(self, number: int) -> Tensor:
        """Photograph `number`, 3 x H x W uint8; the next one in the place of one that turns out to be broken.

        Raises:
            GlunetError: if none can be decoded.
        """
        while len(self._broken) < len(self):
            if number not in self._broken:
                try:
                    return self._decoded(number)
                except BROKEN as error:
                    self._broken.add(number)
                    log.warning("%s cannot be decoded (%s); another takes its place", self.places[number], error)
            number = (number + 1) % len(self)
        raise GlunetError(f"None of {len(self)} photographs can be decoded; see above why.")

    def _decoded(self, number: int) -> Tensor:
        picture = self._kept.get(number)
        if picture is None:
            picture = decode(self.places[number], self.short_side)
            with self._lock:
                if number not in self._kept and self._bytes + picture.numel() <= self.memory:
                    self._kept[number] = picture
                    self._bytes += picture.numel()
        return picture

    def check(self) -> list[str]:
        """Drop what is no image or is too small, as their headers say; one sentence for each dropped.

        Thousands of huge files take seconds so; what is cut off further down is found when its turn comes.
        """
        good, complaints = [], []
        self.needed = 0
        for place in self.places:
            try:
                with place.open() as image:
                    size = image.size
                    if image.format != "JPEG" and size[0] * size[1] < 1 << 24:
                        image.verify()
            except BROKEN as error:
                complaints.append(f"{place}: {error}")
                continue
            good.append(place)
            self.largest = max(self.largest, size, key=lambda s: s[0] * s[1])
            shrunk = min(1.0, self.short_side / min(size))
            self.needed += 3 * round(size[0] * shrunk) * round(size[1] * shrunk)
        self.places = good
        self._kept.clear()
        self._broken.clear()
        self._bytes = 0
        return complaints
