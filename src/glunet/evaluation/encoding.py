"""An encoder that remembers: in an evaluation the same image comes in many pairs, and encoding is most of the work.

All 180 pairs of twenty photographs need 20 encodings of a 256 x 256 copy, not 360.
"""

import copy
import hashlib
from collections import OrderedDict
from collections.abc import Iterable
from typing import Any

from torch import Tensor, nn

from glunet.matcher import Matcher

ROOM = 512 * 2**20  # bytes of features kept, the oldest go first


class RememberingEncoder(nn.Module):
    """An encoder's features, kept by the content of the image; with one image a call (a CPU's way) they are exact.

    Args:
        encoder: called as `encoder(images, levels)`, returns level -> B x C x h x w.
    """

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        self.known: OrderedDict[str, dict[int, Tensor]] = OrderedDict()
        self.bytes = 0

    def forward(self, image: Tensor, levels: Iterable[int]) -> dict[int, Tensor]:
        levels = tuple(levels)
        digest = hashlib.blake2b(f"{tuple(image.shape)} {levels}".encode(), digest_size=16)
        digest.update(image.contiguous().numpy().data)
        key = digest.hexdigest()
        if key in self.known:
            self.known.move_to_end(key)
            return self.known[key]
        features = self.encoder(image, levels)
        self.known[key] = features
        self.bytes += _size(features)
        while self.bytes > ROOM and len(self.known) > 1:
            self.bytes -= _size(self.known.popitem(last=False)[1])
        return features


def remembering(matcher: Matcher) -> Matcher:
    """A matcher that shares the given one's weights, but encodes each image once; the given one is left as it is."""
    twin = copy.copy(matcher)
    encoder: Any = matcher.computation.inference.encoder
    twin.computation = matcher.computation.with_encoder(RememberingEncoder(encoder))
    return twin


def _size(features: dict[int, Tensor]) -> int:
    return sum(value.numel() * value.element_size() for value in features.values())
