"""One image as a matcher knows it: its pixels, its mask, and its features for as long as they are of use."""

import os
from collections import OrderedDict
from collections.abc import Callable
from functools import cached_property
from typing import Any, TypeAlias

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from glunet.flow.geometry import Size
from glunet.images.reading import ImageLike, as_picture, darker, load_mask, load_with_depth

MaskLike: TypeAlias = np.ndarray | Tensor | Image.Image | str | os.PathLike[str]

# Features that an image keeps, in pixels of their frames over those of the largest: its own, those of the partner it
# met last, and a pyramid below each (a third).
KEPT = 2.7


class Encoded:
    """What `Matcher.encode` returns: an image to be matched many times, encoded once.

    Attributes:
        pixels: 1 x 3 x H x W, RGB in 0..255, on the matcher's device.
        valid: H x W bool, or None where all pixels count.
        settings: of the matcher that made it; no other can use it.
        bits: that its white was taken to have; 0 where the image says it itself (`glunet.images.reading`).
        described: its positions and their descriptors (`glunet.inference.features`), once something has asked for them.
    """

    def __init__(self, pixels: Tensor, valid: np.ndarray | None, settings: object, bits: int = 0) -> None:
        self.pixels, self.valid, self.settings, self.bits = pixels, valid, settings, bits
        self.described: tuple[np.ndarray, np.ndarray] | None = None
        self._features: OrderedDict[Size, Any] = OrderedDict()

    @property
    def size(self) -> Size:
        """(height, width)."""
        return (self.pixels.shape[-2], self.pixels.shape[-1])

    @cached_property
    def picture(self) -> np.ndarray:
        """H x W x 3 uint8."""
        return as_picture(self.pixels[0])

    def features(self, network: Any, frame: Size, prepared: Callable[[], tuple[Tensor, ...]]) -> Any:
        """The features in a frame of (height, width), computed at most once.

        Args:
            prepared: called for the network's inputs where they are needed (`glunet.inference.frames.prepare`).
        """
        if frame in self._features:
            self._features.move_to_end(frame)
            return self._features[frame]
        known = next(iter(self._features.values()), None)
        inputs = prepared()
        features: Any
        if known is not None and network.two_frames:  # the L-Net's copy is the same in every frame
            level2, level1 = network.encode_high(inputs[0])
            features = known._replace(level2=level2, level1=level1)
        else:
            features = network.encode(*inputs)
        self.keep(frame, features)
        return features

    def keep(self, frame: Size, features: Any) -> None:
        """Takes features, and lets go of those that were asked for longest ago."""
        self._features[frame] = features
        while sum(h * w for h, w in self._features) > KEPT * max(h * w for h, w in self._features):
            self._features.popitem(last=False)

    def known(self) -> Any:
        """The features that came last, in whatever frame; None if none are there."""
        return next(reversed(self._features.values()), None)

    def knows(self, frame: Size) -> bool:
        """Whether the features in this frame are there."""
        return frame in self._features


def open_image(image: ImageLike, mask: MaskLike | None, role: str, device: torch.device, settings: object) -> Encoded:
    """An image with its mask; what the mask leaves out is filled with the mean colour of the rest.

    Args:
        image: see `glunet.images.reading`.
        mask: where the image is valid, see `glunet.images.reading.load_mask`; None for everywhere.
        role: "source" or "target", for messages.

    Raises:
        GlunetError: an image or a mask that cannot be used.
    """
    levels, bits = load_with_depth(image, role)
    pixels = levels[None].to(device)
    if mask is None:
        return Encoded(pixels, None, settings, bits)
    valid = load_mask(mask, f"{role} mask", (pixels.shape[-2], pixels.shape[-1]))
    inside = torch.from_numpy(valid).to(device)
    mean = pixels[..., inside].mean(dim=-1)[..., None, None]
    return Encoded(torch.where(inside, pixels, mean), valid, settings, bits)


def alike(one: Encoded, other: Encoded) -> tuple[Encoded, Encoded]:
    """The two images of a pair with the same white: of two that guessed it from their values, the larger one."""
    if not one.bits or not other.bits or one.bits == other.bits:
        return one, other
    bits = max(one.bits, other.bits)

    def at_most(image: Encoded) -> Encoded:
        if image.bits == bits:
            return image
        return Encoded(image.pixels / darker(image.bits, bits), image.valid, image.settings, bits)

    return at_most(one), at_most(other)


def together(features: list[Any]) -> Any:
    """Features of several images as those of one batch."""
    if len(features) == 1:
        return features[0]
    return type(features[0])(*map(torch.cat, zip(*features, strict=True)))
