"""The tables of docs/local-and-global.md, from raw numbers; what may be claimed is decided here, by a rule."""

import json
import re
import statistics
import textwrap
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.local_vs_global import costs, shipped
from benchmarks.local_vs_global.figures import TITLES, draw, having, names
from benchmarks.local_vs_global.measuring import mean

from glunet.flow.files import writing

SEEDS, PAIRS = 3, 20_000  # what the experiment asks for; less is a trial
SMALL, FAR = slice(0, 4), slice(8, None)  # bins of `EDGES`: up to 16 pixels, from 96 on
RANGES = (("0 to 8", slice(0, 3)), ("8 to 32", slice(3, 5)), ("32 to 96", slice(5, 8)), ("over 96", FAR))
Seed = dict[str, Any]


@dataclass(frozen=True)
class Claim:
    """Something that the paper says, as one comparison: `better` has the lower figure, or the higher with `high`."""

    says: str
    what: str
    better: str
    worse: str
    figure: Callable[[Seed, str], float]
    high: bool = False


def _far(seed: Seed, name: str) -> float:
    return mean(seed["displacement"][name], "error", FAR)


def _exact(seed: Seed, name: str) -> float:
    return 100 * mean(seed["displacement"][name], "within 1", SMALL)


def _all(seed: Seed, name: str) -> float:
    return mean(seed["displacement"][name])


def _large(what: str, scale: float = 1.0) -> Callable[[Seed, str], float]:
    return lambda seed, name: scale * mean(seed["resolution"][name]["1040"], what)


LOST = "Local correlation alone loses motion beyond its reach"
COARSE = "Global correlation alone lacks detail"
CAPPED = "A fixed frame caps what large images give"
BOTH = "GLU-Net holds both"
FAR_AEPE, EXACT = "AEPE of displacements over 96 px at 256", "% within 1 px of displacements under 16 px at 256"
LARGE, LARGE_EXACT = "AEPE at 1040, original pixels", "% within 5 px at 1040"
CLAIMS = (
    Claim(LOST, FAR_AEPE, "glocal-net", "local-net", _far),
    Claim(LOST, LARGE, "glocal-net", "local-net", _large("error")),
    Claim(COARSE, EXACT, "glocal-net", "global-net", _exact, high=True),
    Claim(CAPPED, LARGE_EXACT, "glunet", "glocal-net", _large("within 5", 100), high=True),
    Claim(BOTH, FAR_AEPE, "glunet", "local-net", _far),
    Claim(BOTH, LARGE, "glunet", "local-net", _large("error")),
    Claim(BOTH, LARGE, "glunet", "glocal-net", _large("error")),
    Claim("Mutual matching helps", "AEPE at 256", "glunet", "glunet-without-mutual", _all),
)


def verdict(better: list[float], worse: list[float], high: bool = False) -> str:
    """Whether seeds bear out that the first is better: only if all of one lie on one side of all of the other.

    One of the two may have a single seed: the other's spread is what its value is held against.
    """
    if max(len(better), len(worse)) < 2:
        return "no claim: with one seed the spread is not known"
    if high:
        better, worse = worse, better
    if max(better) < min(worse):
        return "as in the paper"
    if max(worse) < min(better):
        return "**differs from the paper**"
    return "no claim: within the spread over seeds"


def write_page(page: Path, results: Path) -> list[Path]:
    """Write what there is below `results` into the marked blocks of the page, and the figures beside it.

    Returns:
        the files written.
    """
    seeds = [_read(path) for path in sorted(results.glob("seed*.json"))]
    # Seeds of one plan belong together: those with the most pairs count.
    most = max((seed["plan"]["pairs"] for seed in seeds), default=0)
    seeds = [seed for seed in seeds if seed["plan"]["pairs"] == most]
    blocks: dict[str, str] = {}
    if seeds:
        blocks |= {
            "what was trained": _trained(seeds), "claims": _claims(seeds), "displacement": _displacement(seeds),
            "resolution": _resolution(seeds),
        }  # fmt: skip
    for name, path in (("shipped", "shipped.json"), ("costs", "costs.json"), ("networks", "networks.json")):
        if (results / path).exists():
            blocks[name] = globals()[f"_{name}"](_read(results / path))
    text = page.read_text(encoding="utf-8")
    for name, block in blocks.items():
        pattern = rf"(<!-- begin {name} -->\n).*?(<!-- end {name} -->)"
        text, found = re.subn(pattern, lambda m, b=block: m[1] + b.strip() + "\n" + m[2], text, flags=re.S)  # type: ignore[misc]
        if found != 1:
            raise ValueError(f"{page} has {found} blocks called '{name}', but one is expected")
    with writing(page) as part:
        part.write_text(text, encoding="utf-8")
    cost = _read(results / "costs.json") if "costs" in blocks else None
    return [page, *draw(page.parent / "images", seeds, cost, trial(seeds) if seeds else "")]


def _read(path: Path) -> Any:
    return json.loads(path.read_text(encoding="utf-8"))


def trial(seeds: list[Seed]) -> str:
    """What makes these seeds less than the experiment, in words; empty if nothing does."""
    pairs = seeds[0]["plan"]["pairs"]
    if pairs >= PAIRS and len(seeds) >= SEEDS:
        return ""
    return f"a trial: {pairs:,} of {PAIRS:,} pairs, {len(seeds)} of {SEEDS} seeds"


def _trained(seeds: list[Seed]) -> str:
    first = seeds[0]
    minutes = sum(seed["minutes"] for seed in seeds)
    lines = []
    if trial(seeds):
        lines += [
            f"> **This is {trial(seeds)}.** Its figures show that the experiment runs and what it draws; they are",
            "> not the experiment's result, and nothing should be concluded from them.",
            "",
        ]
    plan, measured = first["plan"], first["measuring"]
    apart = "".join(
        f" {TITLES[name]} was trained with seed {_numbers(having(seeds, name))} only."
        for name in names(seeds)
        if len(having(seeds, name)) < len(seeds)
    )
    measuring = sum(seed["measuring"]["minutes"] for seed in seeds)
    times = "once" if len(seeds) == 1 else f"{len(seeds)} times"
    numbers = _numbers(seeds)
    text = (
        f"Each network learned from {plan['pairs']:,} pairs ({plan['batch']} a step), {times} (seed {numbers}). A run "
        f"made {first['encoder passes']:,} encoder passes, which served all of them.{apart} {minutes:.0f} minutes in "
        f"all, and {measuring:.0f} to measure, on {first['machine']}. Measured on "
        f"{measured['pairs']} pairs by displacement and on {measured['scenes']} by resolution. Raw numbers: "
        "[benchmarks/results/local_vs_global](../benchmarks/results/local_vs_global)."
    )
    lines.append(_paragraph(text))
    return "\n".join(lines)


def _numbers(seeds: list[Seed]) -> str:
    return ", ".join(str(seed["seed"]) for seed in seeds)


def _claims(seeds: list[Seed]) -> str:
    lines = ["| the paper says | measured as | better in the paper | than | here |", "| --- | --- | --- | --- | --- |"]
    for claim in CLAIMS:
        better, worse = (
            [claim.figure(seed, name) for seed in having(seeds, name)] for name in (claim.better, claim.worse)
        )
        if not better or not worse:
            continue
        sides = [f"{TITLES[name]} {_span(v)}" for name, v in ((claim.better, better), (claim.worse, worse))]
        lines.append("| " + " | ".join([claim.says, claim.what, *sides, verdict(better, worse, claim.high)]) + " |")
    text = (
        "Mean over seeds (least to largest). A difference is claimed only where every seed of one network lies on one "
        "side of every seed of the other."
    )
    lines += ["", _paragraph(text)]
    return "\n".join(lines)


def _displacement(seeds: list[Seed]) -> str:
    heads = ["AEPE, px of 256, by displacement", *(name for name, _ in RANGES), "all", "within 1 px", "within 5 px"]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " --- |" * (len(heads) - 1)]
    for name in names(seeds):
        sums = [seed["displacement"][name] for seed in having(seeds, name)]
        cells = [_span([mean(s, "error", bins) for s in sums]) for _, bins in (*RANGES, ("", slice(None)))]
        cells += [_span([100 * mean(s, what) for s in sums], " %") for what in ("within 1", "within 5")]
        lines.append(f"| {TITLES[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _resolution(seeds: list[Seed]) -> str:
    sizes = list(next(iter(seeds[0]["resolution"].values())))
    heads = ["original pixels", *(f"AEPE at {size}" for size in sizes), *(f"within 5 px at {size}" for size in sizes)]
    lines = ["| " + " | ".join(heads) + " |", "| --- |" + " --- |" * (len(heads) - 1)]
    for name in names(seeds):
        of_sizes = [[seed["resolution"][name][size] for seed in having(seeds, name)] for size in sizes]
        cells = [_span([mean(s) for s in sums]) for sums in of_sizes]
        cells += [_span([100 * mean(s, "within 5") for s in sums], " %") for sums in of_sizes]
        lines.append(f"| {TITLES[name]} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def _span(values: list[float], unit: str = "") -> str:
    """The mean, and least to largest where there are several."""
    text = f"{statistics.mean(values):.1f}{unit}"
    return text if len(values) < 2 else f"{text} ({min(values):.1f} to {max(values):.1f})"


def _shipped(found: dict[str, Any]) -> str:
    about = (
        f"AEPE in original pixels on {found['scenes']} synthetic scenes of held-back photographs, the mean over pairs "
        f"± its standard error (and the median); `{found['weights']}`, sha256 {found['sha256'][:12]}; "
        f"{found['minutes']:.0f} minutes on {found['machine']}."
    )
    return shipped.table(found["aepe"]) + "\n\n" + _paragraph(about)


def _costs(found: dict[str, Any]) -> str:
    grids = found["grids"]
    lines = [
        "| | " + " | ".join(f"{g} x {g}" for g in grids) + " | grows as |",
        "| --- |" + " --- |" * (len(grids) + 1),
    ]
    least = 32  # on smaller grids a call's own cost is what one sees
    for name in ("global", "local"):
        for key, unit, scale in (("seconds", "ms", 1e3), ("bytes", "MB, result", 1e-6), ("peak", "MB, peak", 1e-6)):
            power = costs.exponent(grids, found[name][key], least)[0]
            cells = [_three(scale * value) for value in found[name][key]]
            lines.append(f"| {name}, {unit} | " + " | ".join(cells) + f" | side^{power:.1f} |")
    text = (
        f"One pair of {found['channels']}-channel features, float32, on {found['machine']}; the powers are fitted from "
        f"{least} x {least} on. The peak counts what is made on the way, too."
    )
    lines += ["", _paragraph(text)]
    return "\n".join(lines)


def _paragraph(text: str) -> str:
    return textwrap.fill(text, 125, break_long_words=False, break_on_hyphens=False)


def _three(value: float) -> str:
    """Three digits that mean something."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _networks(found: dict[str, Any]) -> str:
    about = (
        f"A pair at once, encoder included, float32, on {found['machine']}; MB of tensors at the peak, weights left "
        "out. The other rows have the decoders of the paper, the shipped weights smaller ones."
    )
    return costs.table(found["rows"]) + "\n\n" + _paragraph(about)
