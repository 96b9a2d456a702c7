"""Two things of one kind: where they do not look alike in detail, what the global level says of them stays.

Not in the paper. Levels 3 to 1 compare ever shallower features, by which the wheel of one car is no more like another
car's than like the road: on 45 pairs of PF-WILLOW level 4 alone is right to a tenth of the object for 84 % of the
points, and 77 % are left after two passes of the levels that follow (docs/weights.md).
"""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.flow.geometry import pixel_grid, sample, scale_flow
from glunet.network.correlation import l2_normalise
from glunet.network.glunet import LNET_SIZE, Features

GRID = 64  # positions a side at which it is decided
# Mean cosine similarity of level 3's features along the finest flow, below which two images do not look alike.
# Development pairs of one scene that the network has found have .29 (HPatches' steepest) to .84, TSS .26 to .30,
# PF-WILLOW .12 to .34.
ALIKE = 0.3
AROUND = 5  # positions a side over which means are taken
ALIKE_HERE = 0.25  # and in the mean around a position
MARGIN = 0.02  # by which level 4's features must be more alike along its own flow
APART = 4.0  # pixels of 256 by which the flows must differ


@torch.no_grad()
def anchored(target: Features, source: Features, flow4: Tensor, flow: Tensor, frame: tuple[int, int]) -> Tensor:
    """The flow, where two images do not look alike along it replaced by the global level's, blended at the edges.

    Args:
        target, source: of which levels 4 and 3 are read, the latter B x C x h x w.
        flow4: B x 2 x 16 x 16, pixels of the 256 frame.
        flow: B x 2 x H x W, pixels of the frame.
        frame: (height, width).

    Returns:
        B x 2 x H x W, pixels of the frame; each vector lies between those of both flows.
    """
    to_frame = frame[1] / LNET_SIZE, frame[0] / LNET_SIZE
    fine = scale_flow(_resized(flow.float(), (GRID, GRID)), 1 / to_frame[0], 1 / to_frame[1])
    coarse = _resized(flow4.float(), (GRID, GRID))
    (alike,) = _similarity(target.level3, source.level3, fine)
    here = _around(alike)
    unlike = (alike.mean(dim=(1, 2, 3), keepdim=True) < ALIKE) & (here < ALIKE_HERE)
    if not torch.compiler.is_compiling() and not unlike.any():  # level 4 has nothing to decide
        return flow
    with_coarse, with_fine = _similarity(target.level4, source.level4, coarse, fine)
    apart = (coarse - fine).square().sum(dim=1, keepdim=True) > APART**2
    share = _resized(_around((unlike & (with_coarse - with_fine > MARGIN) & apart).float()), flow.shape[-2:])
    return flow + share * (scale_flow(_resized(flow4.float(), flow.shape[-2:]), *to_frame) - flow)


def _around(values: Tensor) -> Tensor:
    return F.avg_pool2d(values, AROUND, 1, AROUND // 2, count_include_pad=False)


def _resized(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """`resize_bilinear` without a look at the size, which an exporter of all sizes could not follow."""
    return F.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=False)


def _similarity(target: Tensor, source: Tensor, *flows: Tensor) -> list[Tensor]:
    """Cosine similarity of features along each flow: B x 1 x GRID x GRID, flows in pixels of 256."""
    ours = l2_normalise(_resized(l2_normalise(target.float()), (GRID, GRID)))
    theirs, found = l2_normalise(source.float()), []
    for flow in flows:
        points = pixel_grid(GRID, GRID, flow.device) + scale_flow(flow, GRID / LNET_SIZE, GRID / LNET_SIZE)
        points = (points + 0.5) * (source.shape[-1] / GRID) - 0.5
        found.append((ours * sample(theirs, points, "border")).sum(dim=1, keepdim=True))
    return found
