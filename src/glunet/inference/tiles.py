"""Pairs too large for the memory at once: the same network, its H-Net in tiles.

Only the L-Net sees a whole image, and at 256 x 256 that is small. All after it looks at a neighbourhood: the encoder at
some 30 pixels, a decoder at 6 positions of its grid, level 1 with its refinement at 40. So each part is computed for a
tile with that much around it, and of the result only the tile is kept: it is what the whole image would give, and there
is no seam to blend. What stays in memory is the features of both images (48 bytes for each pixel of the frame and
image), instead of all that lies between them and the flow.
"""

import copy
import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.flow.geometry import resize_bilinear, warp
from glunet.inference.memory import needed_bytes
from glunet.network.correlation import local_correlation
from glunet.network.decoder import SLOPE
from glunet.network.glunet import Features, GLUNet

logger = logging.getLogger(__name__)

# Pixels: VGG up to its third pooling reaches 26, adapters 16 more, and tiles start at multiples of 8.
ENCODER_MARGIN, ADAPTED_MARGIN = 32, 48
MARGIN2, MARGIN1 = 8, 48  # positions of level 2's grid and of level 1's
TILES = (2048, 1536, 1024, 768, 512, 256)  # sides tried, in pixels of the frame


@dataclass(frozen=True)
class Window:
    """A tile with what is around it, along one axis: the tile is `start:stop`, all that is computed `low:high`."""

    start: int
    stop: int
    low: int
    high: int


class Place(NamedTuple):
    """A tile of the plane."""

    y: Window
    x: Window

    def all(self) -> tuple[slice, slice]:
        """What is computed."""
        return slice(self.y.low, self.y.high), slice(self.x.low, self.x.high)

    def kept(self) -> tuple[slice, slice]:
        """What is kept of it, in the whole."""
        return slice(self.y.start, self.y.stop), slice(self.x.start, self.x.stop)

    def inner(self) -> tuple[slice, slice]:
        """What is kept of it, within what was computed."""
        return slice(self.y.start - self.y.low, self.y.stop - self.y.low), slice(
            self.x.start - self.x.low, self.x.stop - self.x.low
        )


def places(size: tuple[int, int], side: int, margin: int) -> Iterator[Place]:
    """Tiles of at most `side` that cover (height, width), each with up to `margin` around it."""

    def windows(length: int) -> list[Window]:
        return [
            Window(start, min(start + side, length), max(0, start - margin), min(length, start + side + margin))
            for start in range(0, length, side)
        ]

    for y in windows(size[0]):
        for x in windows(size[1]):
            yield Place(y, x)


# Those whose levels 2 and 1 can be computed so: their correlation looks at nothing but a window.
NETWORKS = ("glunet", "semantic-glunet")


def fitting_side(
    source_size: tuple[int, int], target_size: tuple[int, int], available: int, frame: tuple[int, int] | None = None
) -> int | None:
    """The largest side of tiles that the memory allows, for sizes (height, width); None if none does.

    Args:
        frame: as for `glunet.inference.memory.needed_bytes`.
    """
    for side in TILES:
        if needed_bytes(source_size, target_size, tile=side + 8 * MARGIN1, frame=frame) <= available:
            return side
    return None


def encode(
    network: GLUNet, side: int, image: Tensor, image_256: Tensor, mirrored_256: Tensor | None = None
) -> Features:
    """As `network.encode`, a tile at a time."""
    height, width = image.shape[-2:]
    low = network.encode(image_256, image_256, mirrored_256)
    level2 = image.new_empty(1, low.level2.shape[1], height // 8, width // 8)
    level1 = image.new_empty(1, low.level1.shape[1], height // 4, width // 4)
    margin = ENCODER_MARGIN if network.config.adapter == "none" else ADAPTED_MARGIN
    for place in places((height, width), side, margin):
        part = network.encode_high(_part(image, place.all()))
        for level, features, stride in ((level2, part[0], 8), (level1, part[1], 4)):
            _part(level, _divided(place.kept(), stride)).copy_(_part(features, _divided(place.inner(), stride)))
    return low._replace(level2=level2, level1=level1)


def decode(
    network: GLUNet,
    target: Features,
    source: Features,
    extra_levels: int,
    side: int,
    passes: int = 1,
    known: tuple[Tensor, Tensor] | None = None,
) -> Tensor:
    """As `network.decode`, levels 2 and 1 a tile at a time: flow1, 1 x 2 x h/4 x w/4."""
    flow3 = (known or network.coarse(target, source, passes=passes))[1]
    extra = network.between(target, source, flow3, extra_levels)
    start = extra[-1] if extra else network.to_hnet_frame(flow3, target)
    return fine(network, target, source, start, side, passes)


def fine(network: GLUNet, target: Features, source: Features, flow: Tensor, side: int, passes: int = 1) -> Tensor:
    """As `network.fine`, a tile at a time: flow1 alone."""
    for _ in range(passes - 1):
        flow = fine(network, target, source, flow, side)
    start = resize_bilinear(flow, target.level2.shape[-2:])
    size2, size1 = target.level2.shape[-2:], target.level1.shape[-2:]
    flow, upsampled = start.new_empty(1, 2, *size1), start.new_empty(1, 2, *size1)
    for place in places((size2[0], size2[1]), side // 8, MARGIN2):
        tile, part = _of_tile(network, place), _part(start, place.all())
        features, flow2 = tile.level2(target._replace(level2=_part(target.level2, place.all())), source, part)
        kept, inner = _doubled(place.kept()), _doubled(place.inner())
        for whole, finer in zip((flow, upsampled), tile.upsampled(flow2, features), strict=True):
            _part(whole, kept).copy_(_part(finer, inner))
    result = torch.empty_like(flow)
    tiles = list(places((size1[0], size1[1]), side // 4, MARGIN1))
    for number, place in enumerate(tiles, start=1):
        logger.info("tile %d of %d", number, len(tiles))
        tile, part = _of_tile(network, place), _part(flow, place.all())
        ours = _part(target.level1, place.all())
        seen = tile.level1_input(ours, source.level1, part, _part(upsampled, place.all()))
        _part(result, place.kept()).copy_(_part(tile.level1(seen, part), place.inner()))
    return result


def _of_tile(network: GLUNet, place: Place) -> GLUNet:
    """The network, whose local correlations are of this part of a target with the whole source."""
    rows, columns = place.all()

    def scores(target: Tensor, source: Tensor, flow: Tensor, scale: float) -> Tensor:
        corner = flow.new_tensor((columns.start, rows.start)).view(1, 2, 1, 1)
        warped = warp(source, corner + flow * scale)
        return F.leaky_relu(local_correlation(target, warped, network.config.radius).float(), SLOPE)

    twin: Any = copy.copy(network)
    twin.local_scores = scores
    return twin


def _part(planes: Tensor, place: tuple[slice, slice]) -> Tensor:
    """A view of B x C x H x W."""
    return planes[:, :, place[0], place[1]]


def _divided(place: tuple[slice, slice], stride: int) -> tuple[slice, slice]:
    rows, columns = place
    return slice(rows.start // stride, rows.stop // stride), slice(columns.start // stride, columns.stop // stride)


def _doubled(place: tuple[slice, slice]) -> tuple[slice, slice]:
    rows, columns = place
    return slice(2 * rows.start, 2 * rows.stop), slice(2 * columns.start, 2 * columns.stop)
