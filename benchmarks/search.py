"""What search and polish bring, pair by pair: who is found, refused, lost or made worse, and at what time.

    python -m benchmarks.search ../shared/devset --strangers ../shared/photos/photos-val.tar

Every pair of the sets below the folder whose truth is a flow or points, PF-WILLOW apart, by the defaults of the
package's weights and by the network alone. Then pairs of different photographs, brought to 256 x 256. Times are those
of one machine with nothing else running.
"""

import argparse
import logging
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

import glunet
from glunet.evaluation.datasets.base import FlowTruth, PointTruth, Sample
from glunet.evaluation.metrics import epe
from glunet.evaluation.run_all import find
from glunet.evaluation.scoring import at_points
from glunet.match import Match
from glunet.matcher import Matcher
from glunet.training import photographs

NEAR = 20.0  # pixels: pairs that the network alone has to within this mean error must not be made worse
RIGHT, LOST = 0.5, 0.1  # shares of what is within 1 % of the longer side
SIDE = 256  # of strangers


@dataclass(frozen=True)
class Row:
    """One pair: mean errors in pixels, the share within 1 % of the longer side, and seconds."""

    name: str
    alone: float
    error: float
    right: float
    same: bool
    hypothesis: str
    seconds_alone: float
    seconds: float

    @property
    def worse(self) -> bool:
        """Clearly so: by more than 0.25 px and 5 %."""
        return self.alone < NEAR and self.error > max(self.alone + 0.25, 1.05 * self.alone)

    def __str__(self) -> str:
        remark = "worse" if self.worse else "refused" if self.right >= RIGHT and not self.same else ""
        cells = (
            f"{self.alone:.2f}", f"{self.error:.2f}", f"{100 * self.right:.0f}", "yes" if self.same else "no",
            f"{self.seconds_alone:.2f}", f"{self.seconds / self.seconds_alone:.2f}", self.hypothesis, remark,
        )  # fmt: skip
        return f"| {self.name} | {' | '.join(cells)} |"


def timed(matcher: Matcher, source: np.ndarray, target: np.ndarray) -> tuple[Match, float]:
    """A match with its confidence, and the seconds that took."""
    began = time.perf_counter()
    match = matcher.match(source, target)
    _ = match.confidence
    return match, time.perf_counter() - began


def errors(flow: np.ndarray, truth: FlowTruth | PointTruth) -> np.ndarray:
    """Of every known place, pixels."""
    if isinstance(truth, FlowTruth):
        return epe(flow[truth.valid], truth.flow[truth.valid])
    return epe(at_points(flow, truth.target, truth.nearest), truth.source - truth.target)


def row(name: str, sample: Sample, matcher: Matcher, alone: Matcher) -> Row:
    """Both ways to match one pair, beside its truth."""
    assert isinstance(sample.truth, FlowTruth | PointTruth)
    (before, seconds_alone), (match, seconds) = (timed(by, sample.source, sample.target) for by in (alone, matcher))
    error = errors(match.flow, sample.truth)
    right = float(np.mean(error <= 0.01 * max(sample.source.shape)))
    origin = match.found.hypothesis if match.found else ""
    mean = float(errors(before.flow, sample.truth).mean())
    same = bool(match.verdict.same)
    return Row(name, mean, float(error.mean()), right, same, origin, seconds_alone, seconds)


def samples(root: Path, only: list[str]) -> Iterator[tuple[str, Sample]]:
    """Name and sample of every pair with a flow or points below a folder of sets, PF-WILLOW apart."""
    for benchmark, folder in find(root):
        if benchmark.name == "pf-willow" or (only and benchmark.name not in only):
            continue
        for pair in benchmark.open(folder).pairs:
            sample = pair.load()
            if isinstance(sample.truth, FlowTruth | PointTruth):
                yield f"{benchmark.name} {pair.name}", sample


def strangers(path: Path, count: int, seed: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Pairs of different photographs, the middle of each brought to SIDE x SIDE."""
    pictures = photographs.Photographs(photographs.find(path))
    random = np.random.default_rng(seed)

    def square(index: int) -> np.ndarray:
        image = pictures[index].permute(1, 2, 0).numpy()
        side = min(image.shape[:2])
        top, left = ((length - side) // 2 for length in image.shape[:2])
        middle = Image.fromarray(image[top : top + side, left : left + side])
        return np.asarray(middle.resize((SIDE, SIDE), Image.Resampling.LANCZOS))

    for _ in range(count):
        one, other = random.choice(len(pictures), 2, replace=False)
        yield square(int(one)), square(int(other))


def summary(rows: list[Row]) -> Iterator[str]:
    """The counts that docs/matches.md quotes."""
    right = [row for row in rows if row.right >= RIGHT]
    lost = [row.name for row in rows if row.right < LOST and row.same]
    near = [row for row in rows if row.alone < NEAR]
    yield f"{len(rows)} pairs; refused {sum(not row.same for row in right)} of {len(right)} right ones"
    yield f"said to match though lost: {', '.join(lost) or 'none'}"
    yield f"worse than the network alone: {sum(row.worse for row in near)} of {len(near)} that it has below {NEAR:g} px"
    for title, these in (("no hypothesis needed", [r for r in rows if not r.hypothesis and r.same]),
                         ("found by a hypothesis", [r for r in rows if r.hypothesis]),
                         ("nothing found", [r for r in rows if not r.hypothesis and not r.same])):  # fmt: skip
        if these:
            times = [row.seconds / row.seconds_alone for row in these]
            yield f"{title}: {len(these)} pairs, {np.median(times):.2f} times the network, {max(times):.2f} at most"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="folder of evaluation sets")
    parser.add_argument("--only", nargs="+", default=[], help="these sets alone")
    parser.add_argument("--strangers", type=Path, help="a tar of photographs")
    parser.add_argument("--count", type=int, default=200, help="pairs of strangers (200)")
    parser.add_argument("--seed", type=int, default=0, help="of the choice of strangers (0)")
    parser.add_argument("--debug", action="store_true", help="what search and planes go by, on stderr")
    given = parser.parse_args()
    if given.debug:
        logging.basicConfig(format="%(message)s")
        logging.getLogger("glunet.inference").setLevel(logging.DEBUG)
    matcher = glunet.load()
    alone = matcher.with_(search="none", polish=False)
    print("| pair | network, px | default, px | within 1 % | said to match | network, s | times that | by | |")
    print("|" + " --- |" * 9)
    rows = []
    for name, sample in samples(given.root, given.only):
        rows.append(row(name, sample, matcher, alone))
        print(rows[-1], flush=True)
    print()
    for line in summary(rows):
        print(f"- {line}")
    if given.strangers:
        said = [bool(matcher.match(*pair).verdict.same) for pair in strangers(given.strangers, given.count, given.seed)]
        print(f"- {len(said)} pairs of different photographs: {sum(said)} said to match")


if __name__ == "__main__":
    main()
