"""Time of the 4-D convolutions of neighbourhood consensus, beside two other ways to write them.

OMP_NUM_THREADS=1 python -m benchmarks.conv4d [cpu|cuda] [pairs]
"""

import statistics
import sys
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.network.consensus import Conv4d, NeighbourhoodConsensus, conv4d

Way = Callable[[Tensor, Tensor, Tensor], Tensor]


def loop(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """A Python loop over the positions of the first axis, and the kernel's taps along it."""
    taps = weight.shape[0]
    reach = taps // 2
    padded = F.pad(x, (0, 0, 0, 0, 0, 0, reach, reach))
    slices = [
        sum(F.conv3d(padded[:, :, i + tap], weight[tap], padding=reach) for tap in range(taps))
        for i in range(x.shape[2])
    ]
    return torch.stack(slices, dim=2) + bias.view(-1, 1, 1, 1, 1)  # type: ignore[arg-type]


def flat(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """One 2-D convolution: the first two axes join the batch, the taps along them the input channels."""
    batch, _, height, width = x.shape[:4]
    taps = weight.shape[0]
    reach = taps // 2
    padded = F.pad(x, (0, 0, 0, 0, reach, reach, reach, reach))
    shifted = [padded[:, :, i : i + height, j : j + width] for i in range(taps) for j in range(taps)]
    slices = torch.stack(shifted, dim=1).permute(0, 3, 4, 1, 2, 5, 6).flatten(0, 2).flatten(1, 2)
    kernel = weight.permute(1, 0, 3, 2, 4, 5).flatten(1, 3)
    out = F.conv2d(slices, kernel, bias, padding=reach)
    return out.unflatten(0, (batch, height, width)).permute(0, 3, 1, 2, 4, 5)


def milliseconds(way: Way, layers: list[Conv4d], x: Tensor, backward: bool) -> float:
    """Median of nine passes through all layers, after one that does not count."""
    times = []
    for _ in range(10):
        if x.is_cuda:
            torch.cuda.synchronize()
        began = time.perf_counter()
        with torch.set_grad_enabled(backward):
            y = x
            for layer in layers:
                y = F.relu(way(y, layer.weight, layer.bias))
            if backward:
                y.sum().backward()
        if x.is_cuda:
            torch.cuda.synchronize()
        times.append(1e3 * (time.perf_counter() - began))
    return statistics.median(times[1:])


def main() -> None:
    device = sys.argv[1] if len(sys.argv) > 1 else "cpu"
    pairs = int(sys.argv[2]) if len(sys.argv) > 2 else 1
    torch.manual_seed(0)
    layers = [m for m in NeighbourhoodConsensus().to(device).modules() if isinstance(m, Conv4d)]
    x = torch.rand(2 * pairs, 1, 16, 16, 16, 16, device=device)  # each pair goes through in both directions
    print(f"torch {torch.__version__}, {device}, {torch.get_num_threads()} threads, {pairs} pairs of 16^4 grids")
    for name, way in (("conv4d", conv4d), ("loop", loop), ("2-D", flat)):
        forward, both = (milliseconds(way, layers, x, backward) for backward in (False, True))
        print(f"{name:8s} forward {forward:7.1f} ms, with backward {both:7.1f} ms")


if __name__ == "__main__":
    main()
