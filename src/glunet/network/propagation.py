"""Propagation between two passes: a position takes over the flow of one farther off if what it leads to is more alike.

Not in the paper. A coarse level moves what is thin together with what is around it, or the other way round, and the
levels after it look four steps of their grid around that. The right flow is often there, some positions away: trying
the neighbours' is how PatchMatch (Barnes et al. 2009) finds it without a search.
"""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.flow.geometry import pixel_grid, resize_bilinear

DISTANCES = (4, 8, 16)  # in positions of the features' grid, in eight directions each
APART = 4.0  # pixels by which a flow must differ from the one there is to be looked at; less the next pass finds
# By which its cosine similarity must exceed that of the one there is. With less, thin things gain a little more
# (FlyingChairs 4.03 px with 0.02, 4.12 with this, 4.21 with 0.1, 4.46 without propagation) and large planes lose
# (4000 x 3000: 1.12, 1.02, 0.97 and 0.96 px).
MARGIN = 0.05
# And what it must reach. Two objects of a kind, or a place that is lost, seldom look so much alike: with 0 PF-WILLOW
# lost 10 points and HPatches 240 a pixel, with 0.6 to 0.75 neither lost anything (docs/matches.md).
LEAST = 0.7
_AT_ONCE = 1 << 13  # positions whose features are gathered at a time: bounds the memory


def propagate(target: Tensor, source: Tensor, flow: Tensor, scale: float) -> Tensor:
    """The flow, in part replaced by that of other positions; differentiable in the flow, not in the choice.

    Args:
        target, source: B x C x h x w features, B x C x h' x w'.
        flow: B x 2 x H x W on any grid, in pixels; resized to the target's grid.
        scale: from the flow's pixels to positions of the features' grid.

    Returns:
        B x 2 x h x w; each vector is one of `flow`: its own, or one from 4, 8 or 16 positions away. It takes over the
        one with the largest cosine similarity, a mean over 3 x 3 positions, if that is at least `LEAST`, and `MARGIN`
        more than with its own.
    """
    flow = resize_bilinear(flow, target.shape[-2:]).float()
    ones = zip(target, source, flow[:, None], strict=True)
    origins = torch.stack([_origins(ours, theirs, its, scale) for ours, theirs, its in ones])
    return flow.flatten(2).gather(2, origins.flatten(1)[:, None].expand(-1, 2, -1)).view_as(flow)


@torch.no_grad()
def _origins(target: Tensor, source: Tensor, flow: Tensor, scale: float) -> Tensor:
    """h x w: the index, row by row, of the position whose flow each takes; flow 1 x 2 x h x w."""
    height, width = flow.shape[-2:]
    size = (int(source.shape[-2]), int(source.shape[-1]))
    # A row of channels for each position: float32 features that are channels last are not copied.
    ours, theirs = (features.permute(1, 2, 0).flatten(0, 1).float() for features in (target, source))
    our_norms, their_norms = _inverse_norms(ours), _inverse_norms(theirs)

    def similarity(flows: Tensor, where: Tensor) -> Tensor:
        """N x 1 x h x w for N x 2 x h x w: means over 3 x 3 of what is computed `where` asked (bool), else 0."""
        points = (pixel_grid(height, width, flow.device) + flows * scale).permute(1, 0, 2, 3).flatten(1)
        alike = points.new_zeros(points.shape[1])
        for asked in _parts(where.flatten(1).nonzero()):
            here = asked[:, 1]
            places = asked[:, 0] * (height * width) + here
            found = weighted_rows(theirs, *_bilinear(points[:, places], size, their_norms))
            alike[places] = (ours[here] * found).sum(dim=1) * our_norms[here]
        return F.avg_pool2d(alike.view(-1, 1, height, width), 3, 1, 1, count_include_pad=False)

    best = similarity(flow, torch.ones_like(flow[:, :1], dtype=torch.bool))[0, 0]
    best = (best + MARGIN).clamp_min(LEAST)
    y, x = (torch.arange(side, device=flow.device) for side in (height, width))
    origins = y[:, None] * width + x
    for distance in DISTANCES:
        # The flow of eight others for each position, and where they are.
        others = torch.stack(
            [
                (y + distance * down).clamp(0, height - 1)[:, None] * width + (x + distance * right).clamp(0, width - 1)
                for down, right in product((-1, 0, 1), (-1, 0, 1))
                if (down, right) != (0, 0)
            ]
        )
        flows = flow[0].flatten(1)[:, others.flatten()].view(2, *others.shape).transpose(0, 1)
        differs = (flows - flow).square().sum(dim=1, keepdim=True) > APART**2
        # Within an evenly moving plane no neighbour's flow differs: most positions are not looked at.
        found = similarity(flows, F.max_pool2d(differs.float(), 3, 1, 1) > 0).where(differs, -torch.inf)
        most, which = found[:, 0].max(dim=0)
        better = most > best
        best = torch.where(better, most, best)
        origins = torch.where(better, others.gather(0, which[None])[0], origins)
    return origins


def _inverse_norms(rows: Tensor) -> Tensor:
    return torch.cat([part.square().sum(dim=1) for part in _parts(rows)]).add(1e-6).rsqrt()


def _parts(rows: Tensor) -> Sequence[Tensor]:
    """At most so many at once; all of them where an exporter looks on, which cannot count them."""
    return (rows,) if torch.compiler.is_compiling() else rows.split(_AT_ONCE)


def _bilinear(points: Tensor, size: tuple[int, int], norms: Tensor) -> tuple[Tensor, Tensor]:
    """Which rows a bilinear sample at each of 2 x N points is made of, and how: N x 4 indices and weights.

    Args:
        size: (height, width) of the grid; beyond it weights are zero.
        norms: what each of its rows is multiplied by.
    """
    height, width = size
    corner = points.floor()
    x, y = corner.long()
    right, below = points - corner
    indices, weights = [], []
    for dy, dx in product((0, 1), (0, 1)):
        inside = (x + dx >= 0) & (x + dx < width) & (y + dy >= 0) & (y + dy < height)
        index = (y + dy).clamp(0, height - 1) * width + (x + dx).clamp(0, width - 1)
        weights.append((right if dx else 1 - right) * (below if dy else 1 - below) * inside * norms[index])
        indices.append(index)
    return torch.stack(indices, dim=1), torch.stack(weights, dim=1)


def weighted_rows(rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """Sums of rows: N x C from R x C rows, N x K indices and weights; its plain twin takes ten times as long."""
    if rows.device.type in ("cpu", "cuda") and not torch.compiler.is_compiling():
        return F.embedding_bag(indices, rows, per_sample_weights=weights, mode="sum")
    return weighted_rows_plain(rows, indices, weights)


def weighted_rows_plain(rows: Tensor, indices: Tensor, weights: Tensor) -> Tensor:
    """`weighted_rows`, on any device."""
    return torch.stack([w[:, None] * rows[i] for i, w in zip(indices.T, weights.T, strict=True)]).sum(dim=0)
