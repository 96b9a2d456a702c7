"""Neighbourhood consensus (Rocco et al. 2018): 4-D convolutions over a global correlation (SPEC 11.1).

A score is believed where its neighbours, in the target and in the source, have scores of the same kind.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.network.correlation import mutual_matching

WIDTHS = (10, 10, 1)  # output channels of the 4-D convolutions
KERNEL = 3


def conv4d(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A 4-D convolution with zeros around, of the same size (a cross-correlation, as all of torch's).

    One 3-D convolution does the work: the first axis of the grid joins the batch, and the kernel's taps along it join
    the channels, of the input or of the output, wherever fewer are to be moved. On one CPU core the three layers of the
    network, on a pair of 16^4 grids, take 43 ms so, with a backward pass 180; with a loop over the 16 positions of the
    first axis 63 and 430 ms; as 2-D convolutions 170 and 440 (benchmarks/conv4d.py).

    Args:
        x: B x C x h1 x h2 x h3 x h4.
        weight: k x D x C x k x k x k, k odd: the axis of the kernel that goes along h1 first, as published.
        bias: D.

    Returns:
        B x D x h1 x h2 x h3 x h4.
    """
    batch, channels, length = x.shape[:3]
    taps, outputs = weight.shape[:2]
    reach = taps // 2
    if channels < outputs:
        padded = F.pad(x, (0, 0, 0, 0, 0, 0, reach, reach))
        shifted = torch.stack([padded[:, :, tap : tap + length] for tap in range(taps)], dim=1)
        slices = shifted.flatten(1, 2).transpose(1, 2).flatten(0, 1)  # (B h1) x (k C) x h2 x h3 x h4
        kernel = weight.transpose(0, 1).flatten(1, 2)
        return F.conv3d(slices, kernel, bias, padding=reach).unflatten(0, (batch, length)).transpose(1, 2)
    slices = x.transpose(1, 2).flatten(0, 1)
    parts = F.conv3d(slices, weight.flatten(0, 1), padding=reach)  # (B h1) x (k D) x h2 x h3 x h4
    parts = parts.unflatten(1, (taps, outputs)).unflatten(0, (batch, length)).transpose(1, 2)
    parts = F.pad(parts, (0, 0, 0, 0, 0, 0, 0, 0, reach, reach))  # B x k x (h1 + 2 reach) x D x h2 x h3 x h4
    total = parts[:, 0, :length]
    for tap in range(1, taps):
        total = total + parts[:, tap, tap : tap + length]
    return (total + bias.view(-1, 1, 1, 1)).transpose(1, 2)


class Conv4d(nn.Module):
    """`conv4d` with its weights, which at first pass the mean of the inputs through, and a little of the neighbours."""

    def __init__(self, inputs: int, outputs: int, kernel: int = KERNEL) -> None:
        super().__init__()
        weight = torch.randn(kernel, outputs, inputs, kernel, kernel, kernel)
        weight *= 0.1 * (2 / (inputs * kernel**4)) ** 0.5
        middle = kernel // 2
        weight[middle, :, :, middle, middle, middle] += 1 / inputs
        self.weight = nn.Parameter(weight)
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: Tensor) -> Tensor:
        """As `conv4d`."""
        return conv4d(x, self.weight, self.bias)


class NeighbourhoodConsensus(nn.Module):
    """Mutual matching, three 4-D convolutions that treat target and source alike, and mutual matching again."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inputs = 1
        for width in WIDTHS:
            layers += [Conv4d(inputs, width), nn.ReLU()]
            inputs = width
        self.conv = nn.Sequential(*layers)

    def forward(self, correlation: Tensor, source_size: tuple[int, int]) -> Tensor:
        """B x (Hs*Ws) x Ht x Wt, source position (xs, ys) in channel ys*Ws + xs -> the same shape, all >= 0."""
        scores = mutual_matching(correlation).unflatten(1, source_size)[:, None]
        swapped = scores.permute(0, 1, 4, 5, 2, 3)  # the target's axes first
        if swapped.shape == scores.shape:
            there, back = self.conv(torch.cat((scores, swapped))).chunk(2)
        else:
            there, back = self.conv(scores), self.conv(swapped)
        agreed = there + back.permute(0, 1, 4, 5, 2, 3)
        return mutual_matching(agreed[:, 0].flatten(1, 2))
