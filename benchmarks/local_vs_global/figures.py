"""The figures of docs/local-and-global.md."""

import math
import statistics
from itertools import pairwise
from pathlib import Path
from typing import Any

from benchmarks.local_vs_global import costs
from benchmarks.local_vs_global.measuring import EDGES, mean

from glunet.flow.files import writing

TITLES = {
    "local-net": "Local-Net", "global-net": "Global-Net", "glocal-net": "GLOCAL-Net", "glunet": "GLU-Net",
    "glunet-without-mutual": "GLU-Net without mutual matching", "no-motion": "no motion",
}  # fmt: skip
COLOURS = {
    "local-net": "tab:green", "global-net": "tab:red", "glocal-net": "tab:orange", "glunet": "tab:blue",
    "glunet-without-mutual": "tab:cyan", "no-motion": "silver",
}  # fmt: skip


def names(seeds: list[dict[str, Any]]) -> list[str]:
    """Of all networks that any seed has, and of the answer that nothing moves."""
    return list(dict.fromkeys(name for seed in seeds for name in seed["displacement"]))


def having(seeds: list[dict[str, Any]], name: str) -> list[dict[str, Any]]:
    """Those seeds that a network was trained with."""
    return [seed for seed in seeds if name in seed["displacement"]]


def draw(folder: Path, seeds: list[dict[str, Any]], cost: dict[str, Any] | None, note: str = "") -> list[Path]:
    """Draw what there is: errors by displacement and by resolution, and what correlations cost.

    Args:
        seeds: raw numbers of each (`seedN.json`), `cost` those of `costs.json`.
        note: a line above the figures of the seeds.

    Returns:
        the files written.
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    folder.mkdir(parents=True, exist_ok=True)
    written = []

    def finish(figure: Any, name: str, note: str = "") -> None:
        if note:
            figure.suptitle(note, color="tab:red", fontsize=10)
        figure.tight_layout()
        with writing(folder / name) as part:
            figure.savefig(part, format="png", dpi=110)
        pyplot.close(figure)
        written.append(folder / name)

    if seeds:
        figure, axes = pyplot.subplots(1, 2, figsize=(9.5, 3.8))
        for axis, what, title in ((axes[0], "error", "AEPE, px of 256"), (axes[1], "within 5", "% within 5 px")):
            centres = [math.sqrt(max(low, 1) * min(high, 260)) for low, high in pairwise(EDGES)]
            bins = [slice(i, i + 1) for i in range(len(centres))]
            for name in names(seeds):
                some = [seed["displacement"][name] for seed in having(seeds, name)]
                _line(axis, centres, [[mean(sums, what, b) for b in bins] for sums in some], name, what)
            axis.set(xscale="log", xlabel="true displacement, px of 256", ylabel=title, xticks=[2, 8, 32, 128])
            axis.set_xticklabels(["2", "8", "32", "128"])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
        axes[0].set_yscale("log")
        axes[0].legend(fontsize=7, loc="upper left")
        finish(figure, "local-and-global-displacement.png", note)
        figure, axes = pyplot.subplots(1, 2, figsize=(9.5, 3.8))
        sizes = list(next(iter(seeds[0]["resolution"].values())))
        for axis, what, title in ((axes[0], "error", "AEPE, original px"), (axes[1], "within 5", "% within 5 px")):
            for name in names(seeds):
                some = [seed["resolution"][name] for seed in having(seeds, name)]
                values = [[mean(sums[size], what) for size in sizes] for sums in some]
                _line(axis, [int(size) for size in sizes], values, name, what)
            axis.set(xlabel="side of the images, px", ylabel=title, xticks=[int(size) for size in sizes])
            axis.grid(alpha=0.3)
        axes[0].legend(fontsize=8)
        finish(figure, "local-and-global-resolution.png", note)
    if cost is not None:
        figure, axes = pyplot.subplots(1, 2, figsize=(9.5, 3.8))
        for axis, what, title in ((axes[0], "seconds", "seconds"), (axes[1], "bytes", "bytes of the result")):
            for name, colour in (("global", "tab:red"), ("local", "tab:green")):
                values = cost[name][what]
                power, factor = costs.exponent(cost["grids"], values, 32)
                axis.plot(cost["grids"], values, "o", color=colour, label=f"{name}: side^{power:.1f}")
                axis.plot(cost["grids"], [factor * g**power for g in cost["grids"]], "-", color=colour, alpha=0.5)
            axis.set(xscale="log", yscale="log", xlabel="side of the grid", ylabel=title, xticks=[16, 32, 64, 128])
            axis.set_xticklabels(["16", "32", "64", "128"])
            axis.minorticks_off()
            axis.grid(alpha=0.3)
            axis.legend(fontsize=8)
        finish(figure, "local-and-global-costs.png")
    return written


def _line(axis: Any, x: list[float], values: list[list[float]], name: str, what: str) -> None:
    """The mean over seeds, with a band from the least to the largest."""
    scale = 1 if what == "error" else 100
    columns = [[scale * v for v in column] for column in zip(*values, strict=True)]
    axis.plot(x, [statistics.mean(c) for c in columns], "o-", ms=3, color=COLOURS[name], label=TITLES[name])
    axis.fill_between(x, [min(c) for c in columns], [max(c) for c in columns], color=COLOURS[name], alpha=0.2)
