"""The images of a batch: a folder, or any address that fsspec opens; encoded once for the pairs that they are in."""

import os
import tempfile
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from glunet.errors import GlunetError, needed
from glunet.images.folders import smaller
from glunet.images.reading import load_image
from glunet.inference.encoded import Encoded
from glunet.inference.memory import available_bytes

if TYPE_CHECKING:
    from glunet.matcher import Matcher

_ENCODED = 320  # bytes for each pixel of an encoded image: its features, and its grey levels
_SHARE = 0.3  # of the memory there is, for images that are kept encoded


class Store:
    """Where images are read from.

    Args:
        address: a folder, or an address such as s3://bucket/images.

    Raises:
        GlunetError: fsspec, or what it needs for such an address, is missing; an address that it does not know; a
            local folder that is not there.
    """

    def __init__(self, address: str) -> None:
        with needed("A batch needs fsspec", "batch"):
            import fsspec
        try:
            self.system, self.root = fsspec.core.url_to_fs(address)
        except (ImportError, ValueError, OSError) as error:
            raise GlunetError(f"The images at '{address}' cannot be reached ({error}): check the address.") from error
        protocols = self.system.protocol
        self.local = "file" in ((protocols,) if isinstance(protocols, str) else protocols)
        if self.local and not os.path.isdir(self.root):
            raise GlunetError(f"'{address}' is no folder: name the folder that holds the images.")

    def read(self, name: str) -> np.ndarray:
        """H x W x 3 uint8, RGB, upright as EXIF says.

        Raises:
            GlunetError: if there is no such image, it cannot be had, or it cannot be used.
        """
        address = f"{self.root.rstrip('/')}/{name}"
        if self.local:
            return _pixels(address)
        with tempfile.TemporaryDirectory() as folder:
            copy = os.path.join(folder, os.path.basename(name))
            try:
                self.system.get_file(address, copy)
            except Exception as error:  # each kind of storage has its own
                reason = " ".join(str(error).split()) or type(error).__name__
                raise GlunetError(f"The image '{address}' cannot be read ({reason}): check the address.") from error
            try:
                return _pixels(copy)
            except GlunetError as error:
                raise GlunetError(str(error).replace(copy, address)) from error


def _pixels(path: str) -> np.ndarray:
    return load_image(path).round().byte().permute(1, 2, 0).numpy()


class Shelved(NamedTuple):
    """An image, encoded.

    Attributes:
        encoded: brought down to the size at which it is matched.
        size: (height, width) of the file, upright.
    """

    encoded: Encoded
    size: tuple[int, int]


class Shelf:
    """Images by name, encoded when they are first asked for; those not asked for the longest go when memory is short.

    Args:
        longest: longer side to bring images down to, pixels; None for no limit.
        workers: how many processes share this machine's memory.
    """

    def __init__(self, matcher: "Matcher", store: Store, longest: int | None, workers: int = 1) -> None:
        self.matcher, self.store, self.longest = matcher, store, longest
        available = available_bytes(matcher.device)
        self.room = 0 if available is None else int(_SHARE * available / workers / _ENCODED)  # pixels
        self._kept: dict[str, Shelved] = {}

    def __getitem__(self, name: str) -> Shelved:
        """The image of this name.

        Raises:
            GlunetError: if it cannot be used.
        """
        shelved = self._kept.pop(name, None)
        if shelved is None:
            pixels = self.store.read(name)
            encoded = self.matcher.encode(smaller(pixels, self.longest))
            shelved = Shelved(encoded, (pixels.shape[0], pixels.shape[1]))
            room = self.room - encoded.size[0] * encoded.size[1]
            while len(self._kept) > 1 and sum(h * w for h, w in (k.encoded.size for k in self._kept.values())) > room:
                del self._kept[next(iter(self._kept))]
        self._kept[name] = shelved
        return shelved
