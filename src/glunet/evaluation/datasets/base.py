"""The one shape of every evaluation set: a benchmark opens a folder and yields pairs with their truth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glunet.errors import GlunetError


@dataclass(frozen=True)
class FlowTruth:
    """Dense truth: flow H x W x 2 on the target's grid in source pixels, and where it is known (H x W, bool)."""

    flow: NDArray[np.float32]
    valid: NDArray[np.bool_]


@dataclass(frozen=True)
class PointTruth:
    """Sparse truth: target point i (N x 2, pixels of the target) is source point i (N x 2, pixels of the source).

    `nearest`: the prediction is read at the nearest pixel of the target point (else bilinearly).
    """

    target: NDArray[np.float64]
    source: NDArray[np.float64]
    nearest: bool = False


@dataclass(frozen=True)
class HomographyTruth:
    """A 3 x 3 homography, source to target: the one estimated from the flow is measured, at the source's corners."""

    matrix: NDArray[np.float64]


@dataclass(frozen=True)
class Sample:
    """One pair in memory. Images are H x W x 3 uint8 RGB as the protocol hands them to a method, sizes may differ.

    `references` are the sizes that PCK's alpha multiplies, by the name of their kind ("" where there is one kind).
    """

    source: NDArray[np.uint8]
    target: NDArray[np.uint8]
    truth: FlowTruth | PointTruth | HomographyTruth
    references: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Pair:
    """One pair on disk. `unit` is what the set counts by (a sequence), `subgroup` what is averaged before `group`."""

    name: str
    load: Callable[[], Sample]
    group: str = ""
    subgroup: str = ""
    unit: str = ""


@dataclass(frozen=True)
class Published:
    """Figures of a paper: (group, metric) to the value, shares as 0..1; the group "all" is the whole set."""

    method: str
    source: str
    figures: dict[tuple[str, str], float]


@dataclass(frozen=True)
class Benchmark:
    """An evaluation set: where it comes from, how a folder becomes pairs, and how their scores become figures.

    Args:
        name: what the command line calls it.
        title: what a table calls it.
        task: "geometric", "optical flow" or "semantic".
        pairs: opens the root folder; raises GlunetError when the layout is another.
        metrics: the columns, the first is the headline (names in `results.METRICS`).
        over: what the mean of the whole runs over: "pairs" (mean of per-pair means), "pixels" (pooled), or "groups"
            (mean of the groups' means). Fl is always pooled, as KITTI defines it.
        headline: the group whose figure stands for the set, "all" or one group where an "all" would mix unlike things.
        unit, full: how many units the whole set has, e.g. 59 sequences; None when there is no official number.
        folders: names of the folder it comes in, for `glunet eval all`.
        layout: one line, what stands below the root.
        origin, licence: where to get it and on what terms.
        protocol: one or two sentences, the direction, the resizing and the mask.
        alphas: the fractions for PCK at alpha.
        flipping: the protocol lets a method try the mirrored target as well.
        summary: what a table of all sets shows, by default the headline.
        by_group: metrics that are shown by group, by default the headline; where they are named, a table of all sets
            shows its summary by group as well.
    """

    name: str
    title: str
    task: str
    pairs: Callable[[Path], Sequence[Pair]]
    metrics: tuple[str, ...]
    origin: str
    licence: str
    layout: str
    protocol: str
    over: str = "pairs"
    headline: str = "all"
    unit: str = "pairs"
    full: int | None = None
    folders: tuple[str, ...] = ()
    alphas: tuple[float, ...] = ()
    published: tuple[Published, ...] = ()
    summary: tuple[str, ...] = ()
    by_group: tuple[str, ...] = ()
    flipping: bool = False
    needs_root: bool = True

    def open(self, root: str | Path | None = None) -> "Dataset":
        """The pairs below `root`.

        Raises:
            GlunetError: no such folder, or nothing of the expected layout in it.
        """
        if root is None and self.needs_root:
            raise GlunetError(
                f"{self.name} needs the folder it lies in: expected {self.layout}. Get it from {self.origin}."
            )
        path = Path(root) if root is not None else Path()
        if not path.exists():
            raise GlunetError(f"{path}: no such folder; expected {self.layout} below it. Get it from {self.origin}.")
        pairs = self.pairs(path)
        if not pairs:
            raise GlunetError(
                f"{path}: no pairs of {self.name} found; expected {self.layout}. Get it from {self.origin}."
            )
        return Dataset(self, tuple(pairs))


@dataclass(frozen=True)
class Dataset:
    """A benchmark opened at a folder."""

    benchmark: Benchmark
    pairs: tuple[Pair, ...]

    def limited(self, limit: int | None) -> tuple[Pair, ...]:
        """At most `limit` pairs, spread evenly over the set, so that a few already show all of its groups."""
        if limit is None or limit >= len(self.pairs):
            return self.pairs
        if limit < 1:
            raise GlunetError(f"the limit must be at least one pair, not {limit}.")
        return tuple(self.pairs[index * len(self.pairs) // limit] for index in range(limit))
