"""The weights that come with the package, with parts of the network left out."""

import statistics
from collections.abc import Sequence
from typing import Any

import torch
from benchmarks.local_vs_global.measuring import full_flow, pair, sampled

from glunet.network.glunet import LNET_SIZE, GLUNet
from glunet.training.photographs import Photographs

SIZES = (240, 520, 1040)
WAYS: dict[str, dict[str, Any]] = {
    "L-Net alone (levels 4 and 3)": {"lnet_only": True},
    "H-Net on a 256 frame": {"frame": (LNET_SIZE, LNET_SIZE)},
    "H-Net at full size": {},
    "the same, one extra level": {"extra": 1},
    "the same, two extra levels": {"extra": 2},
}


@torch.inference_mode()
def ablation(
    network: GLUNet, held_back: Photographs, scenes: int, sizes: Sequence[int] = SIZES
) -> dict[str, dict[str, list[float]]]:
    """AEPE in original pixels of every pair, visible pixels, in each way and at each size: way -> size -> pairs."""
    device = next(network.parameters()).device
    found: dict[str, dict[str, list[float]]] = {way: {str(size): [] for size in sizes} for way in WAYS}
    for size in sizes:
        for number in range(scenes):
            target, source, true, stride = pair(held_back, number, size, device)
            if not true.visible.any():
                continue
            known: dict[Any, Any] = {}
            for way, how in WAYS.items():
                flow = sampled(full_flow(network, target, source, known=known, **how), stride)
                error = (flow - true.flow).norm(dim=1)[true.visible]
                found[way][str(size)].append(round(float(error.mean()), 4))
    return found


def table(found: dict[str, dict[str, list[float]]]) -> str:
    """A line a way: mean AEPE over the pairs and its standard error, and the median, as Markdown."""
    sizes = list(next(iter(found.values())))
    lines = ["| | " + " | ".join(f"{size} x {size}" for size in sizes) + " |", "| --- |" + " --- |" * len(sizes)]
    for way, of_sizes in found.items():
        cells = []
        for values in of_sizes.values():
            spread = statistics.stdev(values) / len(values) ** 0.5 if len(values) > 1 else float("nan")
            cells.append(f"{statistics.mean(values):.2f} ± {spread:.2f} ({statistics.median(values):.2f})")
        lines.append(f"| {way} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
