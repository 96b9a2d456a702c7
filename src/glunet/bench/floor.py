"""The floor: the operations that a flow needs, at the rate at which this machine makes convolutions like VGG's."""

import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.inference.frames import extra_levels, hnet_size
from glunet.inference.speed import full_precision
from glunet.network.glunet import GLOBAL_GRID, LNET_SIZE

CHANNELS = ((64, 256), (128, 128), (256, 64), (512, 32))  # and the side of the grid; as many operations each
LAYOUTS = {"NCHW": torch.contiguous_format, "channels_last": torch.channels_last}


def operations(network: nn.Module, height: int, width: int) -> dict[str, float]:
    """Floating-point operations (two for a multiplication with an addition) of one flow, by stage.

    Convolutions and correlations, each image encoded once for each frame; resizing, warping, activations and
    normalisations (1 or 2 %) are left out.

    Args:
        network: GLU-Net or its plain twin: any device, "meta" too.
        height, width: of source and target.
    """
    net: Any = network
    frame, lnet = hnet_size(height, width), (LNET_SIZE, LNET_SIZE)
    encoder = 2 * _encoder(net.encoder, lnet, 4)
    if frame != lnet:
        encoder += 2 * _encoder(net.encoder, frame, 3)
    grid2, grid1 = frame[0] // 8 * (frame[1] // 8), frame[0] // 4 * (frame[1] // 4)
    levels = extra_levels(height, width)
    divisors = [2 ** (levels - i) for i in range(levels)]
    grids2 = grid2 + sum((frame[0] // 8 // d) * (frame[1] // 8 // d) for d in divisors)
    channels = {level: _last_channels(net.encoder, level) for level in (2, 3, 4)}
    scores = net.decoder2.conv_0[0].in_channels - 2
    return {
        "encoder": encoder,
        "correlations": 2.0 * GLOBAL_GRID**4 * channels[4]
        + 2.0 * scores * (channels[3] * (32 * 32 + grids2) + channels[2] * grid1),
        "decoders": _convolutions(net.decoder4) * GLOBAL_GRID**2
        + _convolutions(net.decoder3) * 32 * 32
        + _convolutions(net.decoder2) * grids2
        + _convolutions(net.upsample_features2) * grid2
        + _convolutions(net.decoder1) * grid1,
        "refinement": _convolutions(net.refinement3) * 32 * 32 + _convolutions(net.refinement1) * grid1,
    }


def _convolutions(module: nn.Module) -> float:
    """Of all convolutions in it, for one position."""
    kinds = (nn.Conv2d, nn.ConvTranspose2d)
    return 2.0 * sum(part.weight.numel() for part in module.modules() if isinstance(part, kinds))


def _encoder(encoder: nn.Module, size: tuple[int, int], last: int) -> float:
    total, (height, width) = 0.0, size
    for level in range(last + 1):
        total += _convolutions(encoder.get_submodule(f"level_{level}")) * height * width
        if level > 0:
            height, width = height // 2, width // 2
    return total


def _last_channels(encoder: nn.Module, level: int) -> int:
    return [p for p in encoder.get_submodule(f"level_{level}").parameters() if p.ndim == 4][-1].shape[0]


def convolution_rates(device: torch.device, rounds: int = 4, batch: int | None = None) -> list[dict[str, Any]]:
    """Operations a second of VGG's 3x3 convolutions, by type and layout, taken in turns: the best of some rounds each.

    Returns:
        For each of float32, bfloat16 (and float16 on CUDA), in both layouts: {"dtype", "layout", "rate"}.
    """
    batch = batch or (16 if device.type == "cuda" else 1)
    types = [torch.float32, torch.bfloat16] + ([torch.float16] if device.type == "cuda" else [])
    kinds = [(dtype, layout) for dtype in types for layout in LAYOUTS]
    best: dict[Any, list[float]] = {kind: [float("inf")] * len(CHANNELS) for kind in kinds}
    with torch.inference_mode():
        for number in range(rounds):
            for kind in kinds:
                if number > 0 and sum(best[kind]) > 5:  # a type that this machine only emulates
                    continue
                for i, (channels, side) in enumerate(CHANNELS):
                    best[kind][i] = min(best[kind][i], _convolution(device, *kind, channels, side, batch))
    work = 2.0 * batch * sum(channels**2 * 9 * side**2 for channels, side in CHANNELS)
    return [
        {"dtype": str(dtype).removeprefix("torch."), "layout": layout, "rate": work / sum(best[dtype, layout])}
        for dtype, layout in kinds
    ]


def _convolution(device: torch.device, dtype: torch.dtype, layout: str, channels: int, side: int, batch: int) -> float:
    def tensor(*shape: int) -> Tensor:
        return torch.randn(shape, device=device).to(dtype).contiguous(memory_format=LAYOUTS[layout])

    x, weight = tensor(batch, channels, side, side), tensor(channels, channels, 3, 3)
    wait = waiting(device)
    with full_precision(device, "exact"):  # float32 in earnest, on a GPU too
        wait()
        began = time.perf_counter()
        F.conv2d(x, weight, padding=1)
        wait()
        return time.perf_counter() - began


def waiting(device: torch.device) -> Callable[[], Any]:
    """What returns when the device has done all it was given."""
    if device.type == "cuda":
        return lambda: torch.cuda.synchronize(device)
    if device.type == "mps":
        return torch.mps.synchronize
    return lambda: None
