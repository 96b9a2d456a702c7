"""Photographs that show things of one kind, found without labels: what semantic matching is learned from.

What two photographs have in common is not what they look like as a whole but parts that lie to each other as in the
other: the network's own matches say where that is so.
"""

from collections import Counter

import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.errors import GlunetError
from glunet.flow.geometry import pixel_grid, resize_area
from glunet.inference.frames import prepare
from glunet.network.correlation import l2_normalise
from glunet.network.glunet import GLUNet
from glunet.training.photographs import Photographs
from glunet.training.pool import encode, encoder_alone
from glunet.training.recipes import SQUARE

MOST = 6000  # photographs that are looked at: their descriptors take 130 kB each
NEIGHBOURS = 12  # photographs most like one as a whole, whose matches are looked at
SAME = 0.85  # more alike than that as a whole: one photograph twice, or a burst
EACH = 3  # most pairs of a photograph
LEAST = 0.08  # share of positions with a coherent match
FEWEST = 16  # pairs, of fewer photographs than twice that nothing general is learned
_AT_ONCE = 16
Pair = tuple[int, int]


@torch.no_grad()
def similar(network: GLUNet, photographs: Photographs, seed: int = 0, dtype: torch.dtype = torch.float32) -> list[Pair]:
    """Pairs of different photographs with things of one kind in one pose, the most alike first.

    Two photographs are as alike as the share of the 16 x 16 positions whose match by level 4's descriptors (the
    encoder's features, of a network without) is mutual and coherent: three of its eight neighbours move as it does, to
    one position. Only such are compared as are alike as a whole.

    Args:
        seed: which photographs are looked at, of more than MOST.
        dtype: of the encoder.

    Raises:
        GlunetError: fewer than FEWEST pairs.
    """
    numbers = torch.arange(len(photographs))
    if len(numbers) > MOST:
        numbers = torch.randperm(len(numbers), generator=torch.Generator().manual_seed(seed))[:MOST].sort().values
    encoder = encoder_alone(network.encoder, dtype)
    described, layout = [], []
    for first in range(0, len(numbers), _AT_ONCE):
        images = [photographs[n][None].float() for n in numbers[first : first + _AT_ONCE].tolist()]
        level4, descriptors = _describe(network, encoder, torch.cat([resize_area(image, SQUARE) for image in images]))
        described.append(descriptors)
        layout.append(F.adaptive_avg_pool2d(level4, 4).flatten(1))
    descriptors, candidates = torch.cat(described), _alike_as_a_whole(torch.cat(layout))
    coherent = []
    for first in range(0, len(candidates), _AT_ONCE):
        one, other = torch.tensor(candidates[first : first + _AT_ONCE]).T
        coherent += _coherent(descriptors[one].float(), descriptors[other].float()).tolist()
    pairs: list[Pair] = []
    taken: Counter[int] = Counter()
    for share, (one, other) in sorted(zip(coherent, candidates, strict=True), reverse=True):
        if share >= LEAST and taken[one] < EACH and taken[other] < EACH:
            pairs.append((int(numbers[one]), int(numbers[other])))
            taken.update((one, other))
    if len(pairs) < FEWEST:
        raise GlunetError(
            f"{len(pairs)} pairs of photographs show things of one kind, but at least {FEWEST} are expected: give more "
            "photographs of few kinds of things, or another --recipe."
        )
    return pairs


def _describe(network: GLUNet, encoder: GLUNet, images: Tensor) -> tuple[Tensor, Tensor]:
    """Level 4's features (N x 512 x 16 x 16, float32) and descriptors (N x C x 16 x 16, bfloat16) of N images."""
    high, low = prepare(images.to(next(network.parameters()).device), SQUARE)
    features = encode(encoder, high, low)
    adapted = network.adapt(features, high=False).level4
    own = adapted[:, 512:] if adapted.shape[1] > 512 else l2_normalise(adapted.float())
    return features.level4.float().cpu(), own.bfloat16().cpu()


def _alike_as_a_whole(layout: Tensor) -> list[Pair]:
    """Each photograph with the NEIGHBOURS most like it, N x C a row each; what is nearly the same is left out."""
    centred = layout - layout.mean(dim=0)
    unit = F.normalize(centred / (centred.std(dim=0) + 1e-6), dim=1)
    pairs: set[Pair] = set()
    for first in range(0, len(unit), 1024):
        likeness = unit[first : first + 1024] @ unit.T
        likeness[likeness > SAME] = -1  # itself among them
        best = likeness.topk(min(NEIGHBOURS, len(unit)), dim=1)
        for row, (values, others) in enumerate(zip(best.values.tolist(), best.indices.tolist(), strict=True)):
            one = first + row
            pairs |= {(min(one, o), max(one, o)) for v, o in zip(values, others, strict=True) if v > -1 and o != one}
    return sorted(pairs)


def _coherent(one: Tensor, other: Tensor) -> Tensor:
    """The share of positions with a mutual, coherent match: B, of descriptors B x C x h x w."""
    batch, _, height, width = one.shape
    likeness = torch.bmm(one.flatten(2).transpose(1, 2), other.flatten(2))
    there, back = likeness.argmax(dim=2), likeness.argmax(dim=1)
    mutual = back.gather(1, there) == torch.arange(height * width)
    places = pixel_grid(height, width).flatten(1)
    moved = (places[:, there].transpose(0, 1) - places).view(batch, 2, height, width)
    known = mutual.view(batch, 1, height, width).float()
    around = F.unfold(F.pad(torch.cat((moved, known), dim=1), (1, 1, 1, 1)), 3).view(batch, 3, 9, -1)
    near = (around[:, :2] - moved.flatten(2)[:, :, None]).abs().amax(dim=1) <= 1
    return (mutual & ((near & (around[:, 2] > 0)).sum(dim=1) >= 4)).float().mean(dim=1)  # itself among the four
