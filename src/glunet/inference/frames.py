"""The frames of a pair: from images to a network's inputs, and from its flow back to the target (SPEC 2, 5.3, 6)."""

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.flow.geometry import resize_area, resize_bilinear, scale_flow
from glunet.network.glunet import LNET_SIZE

MEAN = (0.485, 0.456, 0.406)  # ImageNet's, of RGB in 0..1
STD = (0.229, 0.224, 0.225)
COARSEST = 400  # longer side of the pyramid's first frame: so far the H-Net starts well from the L-Net's flow


def enlarged(size: tuple[int, int], least: int) -> tuple[int, int]:
    """(height, width) in which a target of this size is matched: at least as many pixels as `least` x `least`.

    The finest level has a quarter of the frame's size, and larger frames of the same picture show it smaller motion.
    No side becomes more than twice as long, since beyond that nothing more is seen; then both are rounded up to
    multiples of 16, so that no picture becomes smaller. As published, with `least` 0, the size stays.
    """
    if not least:
        return size
    factor = max(1.0, min(2.0, least / math.sqrt(math.prod(size))))
    return tuple(-(-round(factor * side) // 16) * 16 for side in size)  # type: ignore[return-value]


def hnet_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of the H-Net frame for a target of this size: multiples of 8, at least 256, never above."""
    return tuple(max(LNET_SIZE, side // 8 * 8) for side in (height, width))  # type: ignore[return-value]


def local_size(height: int, width: int) -> tuple[int, int]:
    """(height, width) of LOCAL-Net's frame: the next multiples of 16, never below."""
    return -(-height // 16) * 16, -(-width // 16) * 16


def fixed_size(height: int, width: int) -> tuple[int, int]:
    """(256, 256), whatever the target: GLOBAL-Net's frame and GLOCAL-Net's."""
    return LNET_SIZE, LNET_SIZE


def extra_levels(height: int, width: int) -> int:
    """How many extra levels a target of this size puts between L-Net and H-Net; its larger side decides (SPEC 5.3)."""
    return max(0, round(math.log2(max(hnet_size(height, width)) / LNET_SIZE / 3)))


def pyramid(height: int, width: int) -> tuple[tuple[int, int], ...]:
    """The frames of the image pyramid for an H-Net frame of (height, width), coarse to fine; the last is the frame.

    Before it come half of it, a quarter and so on, down to one whose longer side is at most `COARSEST`.
    """
    levels = [(height, width)]
    while max(levels[0]) > COARSEST:
        half_height, half_width = (max(32, side // 2 // 8 * 8) for side in levels[0])
        levels.insert(0, (half_height, half_width))
    return tuple(levels)


@dataclass(frozen=True)
class Framing:
    """What a network sees of a pair.

    Attributes:
        size: from (height, width) of the target to that of the frame in whose pixels the network's answer is.
        lnet: whether it sees a 256 x 256 copy as well.
        again: whether it knows extra levels, several passes, a pyramid, the anchor and an ensemble.
    """

    size: Callable[[int, int], tuple[int, int]]
    lnet: bool
    again: bool


FRAMINGS = {
    "glunet": Framing(hnet_size, True, True),
    "semantic-glunet": Framing(hnet_size, True, True),
    "glunet-gocor": Framing(hnet_size, True, True),
    "pdc-net": Framing(hnet_size, True, False),
    "local-net": Framing(local_size, False, False),
    "global-net": Framing(fixed_size, False, False),
    "glocal-net": Framing(fixed_size, False, False),
}


def prepare(
    images: Tensor, size: tuple[int, int], uint8_truncation: bool = False, lnet: bool = True, smooth: bool = False
) -> tuple[Tensor, ...]:
    """The H-Net's and the L-Net's copy of images: what a network's `encode` takes.

    Args:
        images: B x 3 x H x W, RGB in 0..255, floating point.
        size: (height, width) of the H-Net frame.
        uint8_truncation: cut resized grey levels to whole numbers, as the first public implementation does.
        lnet: whether the network has an L-Net.
        smooth: a side that becomes longer is interpolated (bicubic); as published its pixels are repeated (SPEC 2).

    Returns:
        (B x 3 x height x width, B x 3 x 256 x 256), normalised; the first alone without an L-Net. The two are one
        tensor where both sizes are 256, which lets the network encode it once.
    """
    high = normalise(_resize(images, size, uint8_truncation, smooth))
    if not lnet:
        return (high,)
    if size == (LNET_SIZE, LNET_SIZE):
        return high, high
    return high, normalise(_resize(images, (LNET_SIZE, LNET_SIZE), uint8_truncation, smooth))


def normalise(images: Tensor) -> Tensor:
    """RGB in 0..255 -> ImageNet's mean and standard deviation taken out, B x 3 x H x W."""
    mean, std = images.new_tensor(MEAN).view(3, 1, 1), images.new_tensor(STD).view(3, 1, 1)
    return (images / 255).sub_(mean).div_(std)


def finish(flow: Tensor, target_size: tuple[int, int], frame: tuple[int, int] | None = None) -> Tensor:
    """The network's last flow on the target's own grid and in its pixels (SPEC 6): B x 2 x height x width.

    Args:
        frame: (height, width) of the frame in whose pixels `flow` is; by default the H-Net's.
    """
    height, width = target_size
    frame_height, frame_width = frame or hnet_size(height, width)
    return scale_flow(resize_bilinear(flow, target_size), width / frame_width, height / frame_height)


def magnified(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Grey levels, B x 3 x H x W in 0..255, at a (height, width) that is nowhere smaller, bicubic."""
    return F.interpolate(images, size, mode="bicubic", align_corners=False).clamp(0, 255)


def _resize(images: Tensor, size: tuple[int, int], uint8_truncation: bool, smooth: bool) -> Tensor:
    height, width = images.shape[-2:]
    resized = images
    if smooth:  # first the sides that become shorter, by areas
        resized = resize_area(resized, (min(height, size[0]), min(width, size[1])))
        resized = resized if resized.shape[-2:] == size else magnified(resized, size)
    resized = resize_area(resized, size)
    return resized.to(torch.uint8).to(images.dtype) if uint8_truncation else resized
