"""What correlations cost as the grid grows, and what each network costs: seconds, and bytes of live tensors."""

import math
import platform
import statistics
import time
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from benchmarks.local_vs_global.measuring import full_flow
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves
from torch.utils.weak import WeakIdKeyDictionary

from glunet.network.correlation import global_correlation, local_correlation
from glunet.network.family import build, configure
from glunet.training.recipes import SMALL

GRIDS = (16, 24, 32, 48, 64, 96, 128)
CHANNELS = 256  # of level 3's features
NETWORKS = {
    "glunet": configure("glunet"),
    "glunet (as shipped)": SMALL,
    "semantic-glunet": configure("semantic-glunet"),
    "local-net": configure("local-net"),
    "global-net": configure("global-net"),
    "glocal-net": configure("glocal-net"),
}


class LiveBytes(TorchDispatchMode):
    """Counts the bytes of tensors that operations make while they live; what was there before counts nothing.

    Attributes:
        peak: the most that lived at once. What an operation takes for itself and gives back is not seen.
    """

    def __init__(self) -> None:
        super().__init__()
        self.live = self.peak = 0
        self._known = WeakIdKeyDictionary()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        for tensor in tree_leaves((args, kwargs)):
            if isinstance(tensor, Tensor):
                self._known[tensor.untyped_storage()] = True
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage() not in self._known:
                storage = tensor.untyped_storage()
                self._known[storage] = True
                self.live += storage.nbytes()
                weakref.finalize(storage, self._gone, storage.nbytes())
        self.peak = max(self.peak, self.live)
        return result

    def _gone(self, count: int) -> None:
        self.live -= count


def correlations(device: torch.device, grids: Sequence[int] = GRIDS, patience: float = 1.0) -> dict[str, Any]:
    """Seconds (the median), bytes of the result and peak bytes of one global and one local correlation of radius 4.

    Args:
        patience: seconds to spend on repeating each, after one that does not count; always one.
    """
    ways = {"global": global_correlation, "local": local_correlation}
    found: dict[str, Any] = {"channels": CHANNELS, "grids": list(grids)}
    for name, correlate in ways.items():
        found[name] = {"seconds": [], "bytes": [], "peak": []}
        for grid in grids:
            generator = torch.Generator().manual_seed(grid)
            target, source = (torch.randn(1, CHANNELS, grid, grid, generator=generator).to(device) for _ in range(2))
            numbers = measured(lambda c=correlate, t=target, s=source: c(t, s), device, patience)  # type: ignore[misc]
            for key, number in zip(("seconds", "bytes", "peak"), numbers, strict=True):
                found[name][key].append(number)
    return found


@torch.inference_mode()
def measured(work: Callable[[], Tensor], device: torch.device, patience: float) -> tuple[float, int, int]:
    """Median seconds of a computation, bytes of its result, and peak bytes of all its tensors, the result included."""
    with LiveBytes() as counter:
        size = work().untyped_storage().nbytes()
    times: list[float] = []
    while not times or (sum(times) < patience and len(times) < 50):
        wait(device)
        began = time.perf_counter()
        work()
        wait(device)
        times.append(time.perf_counter() - began)
    return statistics.median(times), size, counter.peak


def exponent(grids: Sequence[float], values: Sequence[float], least: float = 0) -> tuple[float, float]:
    """(a, b) of the least-squares fit values = b * grids^a in logarithms, over grids of at least `least`."""
    points = [(math.log(g), math.log(v)) for g, v in zip(grids, values, strict=True) if g >= least]
    x, y = (statistics.mean(p[i] for p in points) for i in (0, 1))
    slope = sum((px - x) * (py - y) for px, py in points) / sum((px - x) ** 2 for px, _ in points)
    return slope, math.exp(y - slope * x)


def networks(device: torch.device, sizes: Sequence[int] = (256, 520), patience: float = 1.0) -> list[dict[str, Any]]:
    """Parameters, seconds and peak bytes of a pair in float32, for each network of the family with fresh weights."""
    rows = []
    for name, config in NETWORKS.items():
        torch.manual_seed(0)
        network = build(config).to(device).eval()
        parameters = {key: p.numel() for key, p in network.named_parameters()}
        row: dict[str, Any] = {
            "network": name, "parameters": sum(parameters.values()),
            "trained": sum(n for key, n in parameters.items() if not key.startswith("encoder.")),
        }  # fmt: skip
        for size in sizes:
            images = [torch.rand(1, 3, size, size, device=device) * 255 for _ in range(2)]
            row[str(size)] = measured(lambda n=network, i=images: full_flow(n, *i), device, patience)  # type: ignore[misc]
        rows.append(row)
    return rows


def table(rows: list[dict[str, Any]]) -> str:
    """A line a network, as Markdown."""
    sizes = [key for key in rows[0] if key.isdigit()]
    heads = ["network", "parameters", "of these trained"]
    heads += [f"{what} at {size}" for size in sizes for what in ("seconds", "MB")]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " --- |" * (len(heads) - 1)]
    for row in rows:
        cells = [row["network"], f"{row['parameters']:,}", f"{row['trained']:,}"]
        for size in sizes:
            cells += [f"{row[size][0]:.2f}", f"{row[size][2] / 1e6:,.0f}"]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def wait(device: torch.device) -> None:
    """Until the device has done all that was asked of it."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def machine(device: torch.device) -> str:
    """What was measured on, in words."""
    if device.type == "cuda":
        return f"{torch.cuda.get_device_name()}, torch {torch.__version__}"
    name = platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        name = next(line.split(":")[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        pass
    threads = torch.get_num_threads()
    return f"{threads} thread{'s' * (threads > 1)} of {name}, torch {torch.__version__}"
