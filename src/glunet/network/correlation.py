"""Global and local correlation (paper sections 3.1 and 3.2, SPEC 4 and 5.1).

Plain PyTorch on any device, differentiable, without a 4-D volume bigger than the output.
"""

from collections.abc import Iterator
from functools import cache
from importlib.util import find_spec

import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.flow.geometry import warp
from glunet.network.backends.bands import banded_correlation
from glunet.network.decoder import SLOPE

TILE = 16  # positions of a row that meet their windows in one matrix product


def l2_normalise(features: Tensor) -> Tensor:
    """x / sqrt(sum over channels of x^2 + 1e-6), per position; B x C x H x W (SPEC 4.1)."""
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-6).sqrt()


def global_correlation(target: Tensor, source: Tensor) -> Tensor:
    """The dot product of every target position with every source position (paper equation 1).

    Args:
        target: B x C x Ht x Wt features (normalise them first for cosine similarities).
        source: B x C x Hs x Ws features.

    Returns:
        B x (Hs*Ws) x Ht x Wt; channel ys*Ws + xs holds source position (xs, ys).
    """
    correlation = source.flatten(2).transpose(1, 2) @ target.flatten(2)
    return correlation.unflatten(2, target.shape[-2:])


def mutual_matching(correlation: Tensor, eps: float = 1e-5) -> Tensor:
    """Soft mutual nearest neighbours (paper section 3.3, after Rocco et al. 2018; SPEC 5.1).

    Each score is multiplied by its share of the best score of its target position and of its source position.

    Args:
        correlation: B x S x Ht x Wt, S source positions.
    """
    best_source = correlation.amax(dim=1, keepdim=True)
    best_target = correlation.amax(dim=(2, 3), keepdim=True)
    return correlation * (correlation / (best_source + eps)) * (correlation / (best_target + eps))


def local_correlation(target: Tensor, source: Tensor, radius: int = 4) -> Tensor:
    """The product of every target position with the source positions around it (paper equation 2, SPEC 4.2).

    On a CPU and without gradients `glunet.network.backends.bands` does the same, several times as fast.

    The paper writes a plain dot product; the published networks were trained on its mean over channels, which is what
    this returns: out[k, y, x] = 1/C sum_c target[c, y, x] * source[c, y + dy, x + dx] with
    k = (dy + radius) * (2 * radius + 1) + (dx + radius), and zero where (x + dx, y + dy) is outside the image.

    Args:
        target: B x C x H x W.
        source: B x C x H x W, usually the source's features warped to the target.
        radius: R >= 0, so that there are (2R + 1)^2 displacements; 4 in the networks.

    Returns:
        B x (2R + 1)^2 x H x W.

    Raises:
        ValueError: if the shapes differ or the radius is negative.
    """
    if target.shape != source.shape or radius < 0:
        raise ValueError(
            f"local correlation needs features of one shape and a radius >= 0, got {tuple(target.shape)}, "
            f"{tuple(source.shape)} and radius {radius}"
        )
    if banded(target, source):
        return banded_correlation(target, source, radius).to(target.dtype)
    return plain_local_correlation(target, source, radius)


def plain_local_correlation(target: Tensor, source: Tensor, radius: int) -> Tensor:
    """`local_correlation` where gradients or another device need it: any torch device, differentiable."""
    # Each row is cut into tiles; a tile of t target positions meets a window of t + 2R source positions in one small
    # matrix product, whose band of 2R + 1 diagonals are the wanted products. That reads memory 2R + 1 times instead of
    # (2R + 1)^2 times, and runs on matrix units.
    batch, channels, height, width = target.shape
    diameter = 2 * radius + 1
    left = F.pad(target.permute(0, 2, 3, 1), (0, 0, 0, -width % TILE)).reshape(-1, TILE, channels)
    rows = []
    for right in _windows(source, radius):
        scores = torch.bmm(left, right)  # position i of the tile with position j of its window
        # Written out with rows one longer than they are, the diagonals j = i + d become columns d.
        rows.append(F.pad(scores.flatten(1), (0, TILE)).view(-1, TILE, scores.shape[2] + 1)[:, :, :diameter])
    out = torch.stack(rows, dim=1).view(batch, height, -1, diameter, TILE, diameter)
    return out.permute(0, 3, 5, 1, 2, 4).reshape(batch, diameter * diameter, height, -1)[..., :width] / channels


def _windows(source: Tensor, radius: int) -> Iterator[Tensor]:
    """For each row above and below, what each tile of a row sees there: (B * H * tiles) x C x (TILE + 2 * radius)."""
    channels, height, width = source.shape[1:]
    padded = F.pad(source.permute(0, 2, 3, 1), (0, 0, radius, -width % TILE + radius, radius, radius))
    windows = padded.unfold(2, TILE + 2 * radius, TILE)  # B x (H + 2R) x tiles x C x window
    for dy in range(2 * radius + 1):
        yield windows[:, dy : dy + height].reshape(-1, channels, TILE + 2 * radius)


def local_correlation_transposed(scores: Tensor, source: Tensor, radius: int) -> Tensor:
    """The transpose of `local_correlation` in its first argument, which is also its gradient (SPEC 12.1).

    out[c, y, x] = 1/C sum_k scores[k, y, x] * source[c, y + dy, x + dx], k as there.

    Args:
        scores: B x (2 * radius + 1)^2 x H x W.
        source: B x C x H x W.

    Returns:
        B x C x H x W.
    """
    batch, channels, height, width = source.shape
    diameter, window = 2 * radius + 1, TILE + 2 * radius
    rows = F.pad(scores, (0, -width % TILE)).view(batch, diameter, diameter, height, -1, TILE).permute(0, 3, 4, 5, 1, 2)
    out = source.new_zeros(rows.shape[:3].numel(), TILE, channels)
    for dy, right in enumerate(_windows(source, radius)):
        # The diagonals of `plain_local_correlation`, put back: rows one longer than they are, cut to size.
        band = F.pad(rows[..., dy, :].reshape(-1, TILE, diameter), (0, window + 1 - diameter))
        out = torch.baddbmm(out, band.flatten(1)[:, : TILE * window].view(-1, TILE, window), right.transpose(1, 2))
    return out.view(batch, height, -1, channels)[:, :, :width].permute(0, 3, 1, 2) / channels


@cache
def triton_is_there() -> bool:
    """Whether Triton is installed, which PyTorch's builds for CUDA bring along."""
    return find_spec("triton") is not None


def banded(target: Tensor, source: Tensor) -> bool:
    """Whether `banded_correlation` may stand in: on a CPU, and for no gradient, compiler or exporter to look into."""
    learning = torch.is_grad_enabled() and (target.requires_grad or source.requires_grad)
    return target.device.type == "cpu" and not learning and not torch.compiler.is_compiling()


def local_scores(target: Tensor, source: Tensor, flow: Tensor, scale: float, radius: int) -> Tensor:
    """Local correlation with the source's features warped by the flow, as the flow decoders read it: float32.

    On CUDA one kernel does it all where Triton is installed and it fits the device (`triton_correlation.fits`). `scale`
    brings the flow to pixels of the features' grid. No gradient flows through the sampling positions: each level has a
    loss of its own, and with a frozen encoder nothing of this then needs a backward pass.
    """
    if target.is_cuda and not torch.compiler.is_compiling() and triton_is_there():
        from glunet.network.backends.triton_correlation import fits, fused_local_scores

        if fits(target.device, target.dtype, radius) and fits(source.device, source.dtype, radius):
            return fused_local_scores(target, source, flow, scale, radius, SLOPE)
    warped = warp(source, flow.detach() * scale)
    if banded(target, warped):
        return banded_correlation(target, warped, radius, SLOPE)
    return F.leaky_relu(local_correlation(target, warped, radius).float(), SLOPE)
