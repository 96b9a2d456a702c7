"""A second look: the global level again, on the source brought near by what the first look found.

Not in the paper, whose global level looks once. What is turned, tilted or much nearer looks strange to it, and less so
once the homography that its first answer agrees with most has undone that. The second answer counts where more of it
comes back: two things of one kind, brought near by a plane that neither is, mostly stay with the first.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.flow.geometry import pixel_grid, resize_bilinear, scale_flow, warp
from glunet.network.glunet import LNET_SIZE, Features, GLUNet

COMES_BACK = 6.0  # px of the 256 frame within which a position counts as found
SURE = 0.9  # share of the positions that come back from which on a pair needs no second look
LOST = 0.1  # and below which there is nothing to look along
MORE = 0.03  # of them by which a later look must be better; less is chance
SCALES = (48.0, 24.0, 12.0, 6.0, 6.0, 6.0)  # px of the 256 frame
LARGEST = 1024.0  # px, of a motion that is looked along
Coarse = tuple[Tensor, Tensor]  # flow4 and flow3


@torch.no_grad()
def looked_again(
    network: GLUNet, target: Features, source: Features, looks: int, passes: int = 1
) -> tuple[Coarse, Coarse]:
    """flow4 and flow3, there and back, of the look from which most comes back: of `looks` at most, two or more.

    Args:
        target, source: with their `image`, B x 3 x 256 x 256.
        passes: of level 3, as for `GLUNet.coarse`.

    Returns:
        Of the target into the source and of the source into the target, as `GLUNet.coarse`. flow4 of a later look is
        its flow3, 16 x 16.
    """
    there, back = (network.coarse(*pair, passes=passes) for pair in ((target, source), (source, target)))
    share = comes_back(there[1], back[1])
    for _ in range(looks - 1):
        unsure = torch.nonzero((share >= LOST) & (share < SURE))[:, 0]
        if not len(unsure):
            break
        ours, theirs = (_those(image, unsure) for image in (target, source))
        flow, flow_back = there[1][unsure], back[1][unsure]
        again = _again(network, ours, theirs, plane(flow, returning(flow, flow_back)), passes)
        again_back = _again(network, theirs, ours, plane(flow_back, returning(flow_back, flow)), passes)
        new = comes_back(again, again_back)
        better = new > share[unsure] + MORE
        if not better.any():
            break
        chosen = unsure[better]
        share = share.index_copy(0, chosen, new[better])
        there = _replaced(there, chosen, again[better])
        back = _replaced(back, chosen, again_back[better])
    return there, back


def comes_back(there: Tensor, back: Tensor) -> Tensor:
    """Share of the positions, 0..1, that end within `COMES_BACK` of where they began, of each pair: B.

    Args:
        there, back: flow3 in both directions, B x 2 x 32 x 32, pixels of the 256 frame.
    """
    return returning(there, back).float().mean(dim=(1, 2))


def returning(there: Tensor, back: Tensor) -> Tensor:
    """Which positions come back, B x 32 x 32, bool."""
    scale = there.shape[-1] / LNET_SIZE
    away = there + warp(back, scale_flow(there, scale, scale))
    return away.square().sum(dim=1) < COMES_BACK**2


def plane(flow: Tensor, used: Tensor) -> Tensor:
    """The flow of the homography that most of a flow's used positions agree with.

    The direct linear transform (Hartley and Zisserman, section 4.1), reweighted by Geman and McClure's function of the
    distance in pixels, whose scale shrinks to `COMES_BACK`.

    Args:
        flow: B x 2 x h x w, pixels of the 256 frame.
        used: B x h x w, bool.

    Returns:
        B x 2 x h x w, at most `LARGEST`. Of the little work there is, all is done on the CPU: not every device has
        eigenvectors or float64.
    """
    height, width = flow.shape[-2:]
    stride = LNET_SIZE / width
    unit = LNET_SIZE / 2
    # Pixels of the 256 frame as -1..1, in which the equations are well conditioned.
    here = ((pixel_grid(height, width).double() + 0.5) * stride - 0.5 - unit) / unit
    here = here.flatten(1).expand(len(flow), -1, -1)
    there = here + flow.flatten(2).double().cpu() / unit
    (x, y), (u, v) = here.unbind(1), there.unbind(1)
    one, zero = torch.ones_like(x), torch.zeros_like(x)
    rows = torch.stack(
        (
            torch.stack((x, y, one, zero, zero, zero, -u * x, -u * y, -u), dim=-1),
            torch.stack((zero, zero, zero, x, y, one, -v * x, -v * y, -v), dim=-1),
        ),
        dim=1,
    )
    inside = used.flatten(1).double().cpu()
    weights, made = inside, there
    for scale in SCALES:
        weighted = rows * weights[:, None, :, None].sqrt()
        normal = (weighted.transpose(-1, -2) @ weighted).sum(dim=1)
        matrix = torch.linalg.eigh(normal)[1][:, :, 0].view(-1, 3, 3)
        mapped = matrix @ torch.stack((x, y, one), dim=1)
        depth = mapped[:, 2:]
        made = mapped[:, :2] / torch.where(depth.abs() < 1e-6, torch.full_like(depth, 1e-6), depth)
        away = (made - there).square().sum(dim=1) * unit**2
        weights = inside * (scale**2 / (scale**2 + away)) ** 2 / depth[:, 0].square().clamp(min=1e-4)
    return ((made - here) * unit).clamp(-LARGEST, LARGEST).view_as(flow).to(flow)


def _again(network: GLUNet, target: Features, source: Features, flow: Tensor, passes: int) -> Tensor:
    """flow3 by a look at the source warped by `flow`, and by level 3 once more around what both make together."""
    assert source.image is not None
    first = resize_bilinear(flow, (LNET_SIZE, LNET_SIZE))
    warped = warp(source.image, first)
    seen = network.encode_low(warped)
    if seen.level4.shape[1] < source.level4.shape[1]:
        seen = network.with_mirrored(seen, warped.flip(-1))
    second = network.coarse(target, seen, passes=passes)[1]
    second = resize_bilinear(second, (LNET_SIZE, LNET_SIZE))
    total = F.avg_pool2d(second + warp(first, second), LNET_SIZE // flow.shape[-1])
    return network.level3(target, source, total)


def _replaced(known: Coarse, chosen: Tensor, flow3: Tensor) -> Coarse:
    """The flows, those of some pairs of the batch replaced."""
    flow4 = F.avg_pool2d(flow3, known[1].shape[-1] // known[0].shape[-1])
    return known[0].index_copy(0, chosen, flow4), known[1].index_copy(0, chosen, flow3)


def _those(image: Features, chosen: Tensor) -> Features:
    """Some of a batch; levels 2 and 1 are not needed here."""
    low: Any = {name: getattr(image, name)[chosen] for name in ("level4", "level3", "image")}
    return image._replace(level2=image.level3, level1=image.level3, **low)
