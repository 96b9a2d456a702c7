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

from glunet.errors import GlunetError
from glunet.images import ImageLike, load_image
from glunet.network.family import Network
from glunet.network.glunet import Features

MaskLike: TypeAlias = np.ndarray | Image.Image | str | os.PathLike[str]
Size = tuple[int, int]

# Features that an image keeps, in pixels of their frames over those of the largest: its own, those of the partner it
# met last, and a pyramid below each (a third).
KEPT = 2.7


class Encoded:
    """What `Matcher.encode` returns: an image to be matched many times, encoded once.

    Attributes:
        pixels: 1 x 3 x H x W, RGB in 0..255, on the matcher's device.
        valid: H x W bool, or None where all pixels count.
        settings: of the matcher that made it; no other can use it.
    """

    def __init__(self, pixels: Tensor, valid: np.ndarray | None, settings: object) -> None:
        self.pixels, self.valid, self.settings = pixels, valid, settings
        self._features: OrderedDict[Size, Any] = OrderedDict()

    @property
    def size(self) -> Size:
        """(height, width)."""
        return (self.pixels.shape[-2], self.pixels.shape[-1])

    @cached_property
    def picture(self) -> np.ndarray:
        """H x W x 3 uint8."""
        return self.pixels[0].round().clamp(0, 255).byte().permute(1, 2, 0).cpu().numpy()

    def features(self, network: Network, frame: Size, prepared: Callable[[], tuple[Tensor, ...]]) -> Any:
        """The features in a frame of (height, width), computed at most once.

        Args:
            prepared: called for the network's inputs where they are needed (`glunet.frames.prepare`).
        """
        if frame in self._features:
            self._features.move_to_end(frame)
            return self._features[frame]
        known = next(iter(self._features.values()), None)
        inputs = prepared()
        features: Any
        if isinstance(known, Features):  # the L-Net's copy is the same in every frame
            high = network.encoder(inputs[0], levels=(2, 3))
            features = known._replace(level2=high[3], level1=high[2])
        else:
            features = network.encode(*inputs)
        self.keep(frame, features)
        return features

    def keep(self, frame: Size, features: Any) -> None:
        """Takes features, and lets go of those that were asked for longest ago."""
        self._features[frame] = features
        while sum(h * w for h, w in self._features) > KEPT * max(h * w for h, w in self._features):
            self._features.popitem(last=False)

    def knows(self, frame: Size) -> bool:
        """Whether the features in this frame are there."""
        return frame in self._features

    def turned(self, quarters: int) -> "Encoded":
        """The image turned by quarters of a turn, against the clock as one sees it; its features are not."""
        valid = None if self.valid is None else np.rot90(self.valid, quarters)
        return Encoded(self.pixels.rot90(quarters, (-2, -1)), valid, self.settings)


def open_image(image: ImageLike, mask: MaskLike | None, role: str, device: torch.device, settings: object) -> Encoded:
    """An image with its mask; what the mask leaves out is filled with the mean colour of the rest.

    Args:
        image: see `glunet.images`.
        mask: H x W, true or not zero where the image is valid; an array, or a path or Pillow image; None for all.
        role: "source" or "target", for messages.

    Raises:
        GlunetError: an image or a mask that cannot be used.
    """
    pixels = load_image(image, role)[None].to(device)
    if mask is None:
        return Encoded(pixels, None, settings)
    valid = _valid(mask, role, (pixels.shape[-2], pixels.shape[-1]))
    inside = torch.from_numpy(valid).to(device)
    mean = pixels[..., inside].mean(dim=-1)[..., None, None]
    return Encoded(torch.where(inside, pixels, mean), valid, settings)


def _valid(mask: MaskLike, role: str, size: Size) -> np.ndarray:
    if not isinstance(mask, np.ndarray):
        mask = load_image(mask, f"{role} mask")[0].numpy()
    if mask.shape != size or mask.dtype.kind not in "buif":
        raise GlunetError(
            f"The {role} mask is an array of {mask.dtype} of shape {mask.shape}, but one number or bool for each "
            f"of the {size[1]} x {size[0]} pixels is expected (H x W)."
        )
    valid = np.ascontiguousarray(mask != 0)
    if not valid.any():
        raise GlunetError(f"The {role} mask leaves no pixel: it is to be true (or not zero) where the image is valid.")
    return valid


def together(features: list[Any]) -> Any:
    """Features of several images as those of one batch."""
    if len(features) == 1:
        return features[0]
    return type(features[0])(*(torch.cat(level) for level in zip(*features, strict=True)))
