"""Local correlation on CUDA by Triton: warping, products and LeakyReLU in one kernel, forward and backward.

The warped source is never in memory: a program has a tile of the target, samples the source where the flow of the tile
and of what is around it points, some channels at a time, and multiplies the two as small matrices. Of the product the
band of displacements is written. The plain twin is `glunet.network.correlation.local_scores`.

Imported only where a CUDA device computes; Triton comes with PyTorch's CUDA builds.
"""

# mypy: disable-error-code="no-untyped-def, import-not-found, import-untyped"
# Kernels have no types: what they are given Triton decides.

from functools import cache
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

ROWS, COLUMNS = 4, 8  # of a tile of the target
CHANNELS = 32  # at a time


@triton.jit
def _around(
    tile,
    flow,
    height,
    width,
    scale,
    rows: tl.constexpr,
    columns: tl.constexpr,
    radius: tl.constexpr,
    window: tl.constexpr,
):
    """Positions of the target's tile and of the window around it, and where the flow leads from there."""
    across = tl.cdiv(width, columns)
    top, left = (tile // across) * rows, (tile % across) * columns
    i = tl.arange(0, rows * columns)
    ty, tx = top + i // columns, left + i % columns
    j = tl.arange(0, window)
    wide: tl.constexpr = columns + 2 * radius
    high: tl.constexpr = rows + 2 * radius
    wy, wx = top - radius + j // wide, left - radius + j % wide
    there = (j < high * wide) & (wy >= 0) & (wy < height) & (wx >= 0) & (wx < width)
    place = wy * width + wx
    x = wx + scale * tl.load(flow + place, mask=there, other=0.0)
    y = wy + scale * tl.load(flow + height * width + place, mask=there, other=0.0)
    return ty, tx, wy, wx, there, y, x


@triton.jit
def _corner(y, x, dy: tl.constexpr, dx: tl.constexpr, there, height, width):
    """One of the four source positions around (y, x): place in memory, bilinear weight, whether it is inside."""
    fy, fx = tl.floor(y), tl.floor(x)
    weight = (1 - tl.abs(y - fy - dy)) * (1 - tl.abs(x - fx - dx))
    # Far outside a float does not fit into an integer: such positions are brought near first, and stay outside.
    cy = tl.minimum(tl.maximum(fy, -2.0), height + 1.0).to(tl.int32) + dy
    cx = tl.minimum(tl.maximum(fx, -2.0), width + 1.0).to(tl.int32) + dx
    inside = there & (cy >= 0) & (cy < height) & (cx >= 0) & (cx < width)
    return cy * width + cx, weight, inside


@triton.jit
def _sampled(source, c, inside_c, channels, y, x, there, height, width):
    """The warped source: window x channels, float32. Channels lie innermost in memory."""
    place, weight, inside = _corner(y, x, 0, 0, there, height, width)
    total = weight[:, None] * _rows(source, place, inside, c, inside_c, channels)
    place, weight, inside = _corner(y, x, 0, 1, there, height, width)
    total += weight[:, None] * _rows(source, place, inside, c, inside_c, channels)
    place, weight, inside = _corner(y, x, 1, 0, there, height, width)
    total += weight[:, None] * _rows(source, place, inside, c, inside_c, channels)
    place, weight, inside = _corner(y, x, 1, 1, there, height, width)
    total += weight[:, None] * _rows(source, place, inside, c, inside_c, channels)
    return total


@triton.jit
def _rows(features, place, inside, c, inside_c, channels):
    mask = inside[:, None] & inside_c[None, :]
    return tl.load(features + place[:, None] * channels + c[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def _band(
    ty,
    tx,
    wy,
    wx,
    there,
    height,
    width,
    rows: tl.constexpr,
    columns: tl.constexpr,
    radius: tl.constexpr,
    window: tl.constexpr,
):
    """Of each pair of target and window position: its place in the output, and whether it is one of the output's."""
    dy, dx = wy[None, :] - ty[:, None], wx[None, :] - tx[:, None]
    j = tl.arange(0, window)
    known = (j < (rows + 2 * radius) * (columns + 2 * radius))[None, :] & ((ty < height) & (tx < width))[:, None]
    mask = known & (dy >= -radius) & (dy <= radius) & (dx >= -radius) & (dx <= radius)
    k = (dy + radius) * (2 * radius + 1) + dx + radius
    return k * (height * width) + (ty * width + tx)[:, None], mask


@triton.jit
def _forward(
    target,
    source,
    flow,
    out,
    channels,
    height,
    width,
    scale,
    slope,
    rows: tl.constexpr,
    columns: tl.constexpr,
    radius: tl.constexpr,
    window: tl.constexpr,
    block: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    plane = height * width
    target += image * plane * channels
    source += image * plane * channels
    out += image * plane * (2 * radius + 1) * (2 * radius + 1)
    ty, tx, wy, wx, there, y, x = _around(
        tl.program_id(0), flow + image * 2 * plane, height, width, scale, rows, columns, radius, window
    )
    scores = tl.zeros((rows * columns, window), tl.float32)
    for start in range(0, channels, block):
        c = start + tl.arange(0, block)
        here = _rows(target, ty * width + tx, (ty < height) & (tx < width), c, c < channels, channels)
        warped = _sampled(source, c, c < channels, channels, y, x, there, height, width)
        scores += tl.dot(here, tl.trans(warped), input_precision="ieee")
    scores = scores / channels
    place, mask = _band(ty, tx, wy, wx, there, height, width, rows, columns, radius, window)
    tl.store(out + place, tl.where(scores > 0, scores, slope * scores), mask=mask)


@triton.jit
def _backward(
    target,
    source,
    flow,
    out,
    gradient,
    to_target,
    to_source,
    channels,
    height,
    width,
    scale,
    slope,
    rows: tl.constexpr,
    columns: tl.constexpr,
    radius: tl.constexpr,
    window: tl.constexpr,
    block: tl.constexpr,
):
    image = tl.program_id(1).to(tl.int64)
    plane = height * width
    target += image * plane * channels
    source += image * plane * channels
    to_target += image * plane * channels
    to_source += image * plane * channels
    out += image * plane * (2 * radius + 1) * (2 * radius + 1)
    gradient += image * plane * (2 * radius + 1) * (2 * radius + 1)
    ty, tx, wy, wx, there, y, x = _around(
        tl.program_id(0), flow + image * 2 * plane, height, width, scale, rows, columns, radius, window
    )
    place, mask = _band(ty, tx, wy, wx, there, height, width, rows, columns, radius, window)
    g = tl.load(gradient + place, mask=mask, other=0.0)
    g = tl.where(tl.load(out + place, mask=mask, other=0.0) > 0, g, slope * g) / channels
    for start in range(0, channels, block):
        c = start + tl.arange(0, block)
        inside_t, inside_c = (ty < height) & (tx < width), c < channels
        here = _rows(target, ty * width + tx, inside_t, c, inside_c, channels)
        warped = _sampled(source, c, inside_c, channels, y, x, there, height, width)
        tl.store(
            to_target + (ty * width + tx)[:, None] * channels + c[None, :],
            tl.dot(g, warped, input_precision="ieee"),
            mask=inside_t[:, None] & inside_c[None, :],
        )
        back = tl.dot(tl.trans(g), here, input_precision="ieee")
        for corner in tl.static_range(4):
            place_s, weight, inside = _corner(y, x, corner // 2, corner % 2, there, height, width)
            tl.atomic_add(
                to_source + place_s[:, None] * channels + c[None, :],
                weight[:, None] * back,
                mask=inside[:, None] & inside_c[None, :],
            )


class _LocalScores(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, target: Tensor, source: Tensor, flow: Tensor, scale: float, radius: int, slope: float
    ) -> Tensor:
        batch, channels, height, width = target.shape
        target, source = (f.contiguous(memory_format=torch.channels_last) for f in (target, source))
        flow = flow.float().contiguous()
        out = torch.empty((batch, (2 * radius + 1) ** 2, height, width), dtype=torch.float32, device=target.device)
        ctx.settings = (channels, height, width, scale, slope)
        ctx.tiles = _tiles(radius)
        ctx.grid = (triton.cdiv(height, ROWS) * triton.cdiv(width, COLUMNS), batch)
        _forward[ctx.grid](target, source, flow, out, *ctx.settings, **ctx.tiles)
        ctx.save_for_backward(target, source, flow, out)
        return out

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        target, source, flow, out = ctx.saved_tensors
        to_target, to_source = (torch.zeros_like(f, dtype=torch.float32) for f in (target, source))
        gradient = gradients[0].float().contiguous()
        _backward[ctx.grid](target, source, flow, out, gradient, to_target, to_source, *ctx.settings, **ctx.tiles)
        return to_target.to(target.dtype), to_source.to(source.dtype), None, None, None, None


def _tiles(radius: int) -> dict[str, int]:
    window = triton.next_power_of_2((ROWS + 2 * radius) * (COLUMNS + 2 * radius))
    return {"rows": ROWS, "columns": COLUMNS, "radius": radius, "window": window, "block": CHANNELS}


def fused_local_scores(target: Tensor, source: Tensor, flow: Tensor, scale: float, radius: int, slope: float) -> Tensor:
    """`glunet.network.correlation.local_scores`, differentiable in both features; sums in float32.

    Args:
        target, source: B x C x H x W, of any floating type, without a copy where they are channels last.
        flow: B x 2 x H x W; no gradient flows into it.
        scale: brings the flow to pixels of the features' grid.

    Returns:
        B x (2 radius + 1)^2 x H x W, float32.
    """
    return _LocalScores.apply(target, source, flow.detach(), float(scale), radius, float(slope))


@cache
def fits(device: torch.device, dtype: torch.dtype, radius: int) -> bool:
    """Whether both kernels fit the device's shared memory, tried once on a few positions.

    On an H200 with Triton 3.6 those in float32 did not.
    """
    with torch.inference_mode(False), torch.enable_grad():
        target, source = (
            torch.zeros(1, CHANNELS, ROWS, COLUMNS, device=device, dtype=dtype, requires_grad=True) for _ in range(2)
        )
        flow = torch.zeros(1, 2, ROWS, COLUMNS, device=device)
        try:
            fused_local_scores(target, source, flow, 1.0, radius, 0.1).sum().backward()
        except triton.OutOfResources:
            return False
    return True
