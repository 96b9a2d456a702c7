"""What GOCor (`glunet.network.gocor`) costs beside the plain correlations, at the sizes of GLU-Net's levels.

python -m benchmarks.gocor
"""

import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from glunet.network.correlation import global_correlation, l2_normalise, local_correlation
from glunet.network.gocor import GlobalGOCor, LocalGOCor

LEVELS = {
    "level 4, global": (512, 16),
    "level 3": (256, 32),
    "level 2 of 520 x 520": (256, 65),
    "level 1 of 520 x 520": (128, 130),
}


def milliseconds(way: Callable[[], Tensor], times: int = 5) -> float:
    """The least of some runs after one to warm up."""
    way()
    least = float("inf")
    for _ in range(times):
        began = time.perf_counter()
        way()
        least = min(least, time.perf_counter() - began)
    return 1000 * least


@torch.inference_mode()
def main() -> None:
    print("| | plain, ms | GOCor, 3 steps | 7 steps |")
    print("| --- | --- | --- | --- |")
    for name, (channels, side) in LEVELS.items():
        pair = [l2_normalise(torch.rand(1, channels, side, side) - 0.3) for _ in range(2)]
        ways: list[Callable[[], Tensor]]
        if "global" in name:
            ways = [partial(global_correlation, *pair)]
            ways += [partial(GlobalGOCor(iterations=steps).eval(), *pair) for steps in (3, 7)]
        else:
            ways = [partial(local_correlation, *pair)]
            ways += [partial(LocalGOCor(4, steps).eval(), *pair) for steps in (3, 7)]
        print(f"| {name} | " + " | ".join(f"{milliseconds(way):.1f}" for way in ways) + " |")


if __name__ == "__main__":
    main()
