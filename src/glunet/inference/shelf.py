"""Images that are in several pairs, encoded once for as long as memory has room."""

from collections.abc import Callable
from math import prod
from typing import Generic, TypeVar

import numpy as np
import torch

from glunet.inference.encoded import Encoded
from glunet.inference.memory import available_bytes

K = TypeVar("K")

_ENCODED = 320  # bytes for each pixel of an encoded image: its features, and its grey levels
_SHARE = 0.3  # of the memory there is, for images that are kept encoded


def room(device: torch.device, workers: int = 1) -> int:
    """How many pixels of encoded images there is room for; 0 where that is unknown.

    Args:
        workers: how many processes share this machine's memory.
    """
    available = available_bytes(device)
    return 0 if available is None else int(_SHARE * available / workers / _ENCODED)


class Shelf(Generic[K]):
    """Images by a key, encoded when they are first asked for; those not asked for the longest go when it is full.

    Args:
        encode: `Matcher.encode`.
        read: an image's pixels, H x W x 3 uint8, by its key.
        room: how many pixels are kept; the last two images always are.
    """

    def __init__(self, encode: Callable[[np.ndarray], Encoded], read: Callable[[K], np.ndarray], room: int) -> None:
        self.encode, self.read, self.room = encode, read, room
        self._kept: dict[K, Encoded] = {}

    def __getitem__(self, key: K) -> Encoded:
        """The image of this key.

        Raises:
            GlunetError: if it cannot be used.
        """
        encoded = self._kept.pop(key, None)
        if encoded is None:
            encoded = self.encode(self.read(key))
            left = self.room - prod(encoded.size)
            while len(self._kept) > 1 and sum(prod(kept.size) for kept in self._kept.values()) > left:
                del self._kept[next(iter(self._kept))]
        self._kept[key] = encoded
        return encoded
