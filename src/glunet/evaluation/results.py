"""What comes out of an evaluation: a score a pair, and how scores become figures."""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from glunet.errors import GlunetError
from glunet.evaluation import metrics
from glunet.evaluation.datasets.base import Benchmark


@dataclass(frozen=True)
class Score:
    """Sums over the valid pixels (or points) of one pair; `sums[metric] / count` is the pair's own figure."""

    name: str
    group: str
    subgroup: str
    unit: str
    count: int
    sums: dict[str, float] = field(default_factory=dict)
    corner_error: float | None = None

    def figure(self, metric: str) -> float:
        """The pair's own AEPE, PCK (0..1) or Fl (0..1), or its corner error for an AUC."""
        if metric.startswith("auc"):
            return float(self.corner_error if self.corner_error is not None else np.inf)
        return self.sums[metric] / self.count

    def to_json(self) -> dict[str, Any]:
        entry: dict[str, Any] = asdict(self)
        entry.pop("sums")
        if self.corner_error is None:
            entry.pop("corner_error")
        elif not np.isfinite(self.corner_error):
            entry["corner_error"] = None  # JSON has no infinity
        return entry | {metric: total / self.count for metric, total in self.sums.items()}


@dataclass(frozen=True)
class Skip:
    """A pair that could not be measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Results:
    """Scores of one method on one benchmark."""

    benchmark: Benchmark
    method: str
    identity: str
    pairs_found: int
    units_found: int
    scores: tuple[Score, ...]
    skipped: tuple[Skip, ...] = ()
    limited: bool = False
    seconds: float | None = None

    @property
    def groups(self) -> tuple[str, ...]:
        """Groups in the order of the set."""
        return tuple(dict.fromkeys(score.group for score in self.scores if score.group))

    def figure(self, metric: str, group: str | None = None) -> float:
        """A metric of a group or of "all"; by default of the group that stands for the set.

        AEPE in pixels, everything else as a share 0..1. What the mean runs over is the benchmark's to say.

        Raises:
            GlunetError: no such metric or group, or no pair was measured.
        """
        return figure(self.benchmark, self.scores, metric, group or self.benchmark.headline)

    def pooled(self, metric: str, group: str | None = None) -> float:
        """The same, pooled over all valid pixels of the group whatever the benchmark's protocol says."""
        group = group or self.benchmark.headline
        return _pooled([s for s in self.scores if group in ("all", s.group)], metric)

    @property
    def headline(self) -> float:
        return self.figure(self.benchmark.metrics[0])

    @property
    def part(self) -> str | None:
        """What part of the whole set this is, or None when it is the whole set and nothing was left out."""
        units = len({score.unit for score in self.scores})
        full, unit = self.benchmark.full, self.benchmark.unit
        whole = full is None or self.units_found == full
        if whole and not self.limited and not self.skipped:
            return None
        parts = [f"{units} of {full if full is not None else self.units_found} {unit}"]
        if (self.limited or self.skipped) and self.units_found != self.pairs_found:
            parts.append(f"{len(self.scores)} of {self.pairs_found} pairs")
        if self.skipped:
            parts.append(f"{len(self.skipped)} skipped")
        return ", ".join(parts) + ": not comparable with published figures"

    def worst(self, count: int) -> list[Score]:
        """The pairs with the worst own figure of the headline metric."""
        metric = self.benchmark.metrics[0]
        lower = not metric.startswith("pck")
        return sorted(self.scores, key=lambda score: score.figure(metric), reverse=lower)[:count]

    def to_json(self) -> dict[str, Any]:
        """Everything, as JSON takes it."""
        names = (*self.groups, "all") if self.benchmark.headline == "all" else self.groups
        return {
            "benchmark": self.benchmark.name,
            "method": self.method,
            "identity": self.identity,
            "part": self.part,
            "pairs": len(self.scores),
            "pairs_found": self.pairs_found,
            "seconds_per_pair": self.seconds,
            "headline": {"group": self.benchmark.headline, "metric": self.benchmark.metrics[0], "value": self.headline},
            "figures": {g: {m: self.figure(m, g) for m in self.benchmark.metrics} for g in names},
            "pooled": {
                g: {m: self.pooled(m, g) for m in self.benchmark.metrics if not m.startswith(("auc", "median"))}
                for g in names
            },
            "skipped": [asdict(skip) for skip in self.skipped],
            "scores": [score.to_json() for score in self.scores],
        }


def figure(benchmark: Benchmark, scores: Sequence[Score], metric: str, group: str = "all") -> float:
    """One figure out of scores; see `Results.figure`."""
    if metric not in benchmark.metrics:
        raise GlunetError(f"{benchmark.name} has no metric {metric!r}; it has {', '.join(benchmark.metrics)}.")
    chosen = [score for score in scores if group in ("all", score.group)]
    if not chosen:
        raise GlunetError(f"{benchmark.name}: no pair of {group!r} was measured.")
    if metric.startswith("auc"):
        return metrics.recall_auc([score.figure(metric) for score in chosen], float(metric.removeprefix("auc")))
    if metric == "median":
        return float(np.median([score.figure("aepe") for score in chosen]))
    if metric == "fl" or benchmark.over == "pixels":
        return _pooled(chosen, metric)
    if group == "all" and benchmark.over == "groups":
        return _mean(_mean_of_subgroups(part, metric) for part in _split(chosen, "group"))
    return _mean_of_subgroups(chosen, metric)


def _mean_of_subgroups(scores: Sequence[Score], metric: str) -> float:
    """Mean of the subgroups' means of the pairs' figures; without subgroups the mean of the pairs' figures."""
    return _mean(_mean(score.figure(metric) for score in part) for part in _split(scores, "subgroup"))


def _split(scores: Iterable[Score], attribute: str) -> list[list[Score]]:
    parts: dict[str, list[Score]] = {}
    for score in scores:
        parts.setdefault(getattr(score, attribute), []).append(score)
    return list(parts.values())


def _pooled(scores: Sequence[Score], metric: str) -> float:
    if not scores:
        raise GlunetError(f"no pair was measured, so that there is no {metric}.")
    return sum(score.sums[metric] for score in scores) / sum(score.count for score in scores)


def _mean(values: Iterable[float]) -> float:
    values = list(values)
    return sum(values) / len(values)
