"""Two ways to tell where a flow may be trusted, side by side: the round trip, and what the network has learned to say.

    python -m benchmarks.uncertainty WEIGHTS.safetensors ../shared/devset --photographs ../shared/photos/photos-val.tar

On each set, by the network alone (no search, no polish), so that both judge the same flow: the area under the
sparsification error curve (mean over pairs: AEPE of what is left when the least sure pixels are taken away, less that
of an oracle, over the AEPE of all; lower is better), the area under the ROC of "within 3 px", and the calibration
error over ten bins. Then how many pairs of the sets a search asks the way back of, and time at 520 x 520, without and
with polish (which the round trip needs in both directions).
"""

import argparse
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from benchmarks.calibrate import synthetic
from PIL import Image
from skimage import data

import glunet
from glunet.evaluation.datasets import FlowTruth, benchmark
from glunet.inference.confidence import tolerance
from glunet.match import Match
from glunet.matcher import Matcher
from glunet.training.photographs import Photographs, find

SETS = ("hpatches-240", "motorcycle", "kitti2012", "flyingchairs")
WAYS = ("roundtrip", "learned")
STEPS = np.linspace(0, 0.99, 100)  # shares of pixels taken away


def ause(error: np.ndarray, confidence: np.ndarray) -> float:
    """Of one pair's known pixels, N each. Ties are broken at random."""
    shuffled = np.random.default_rng(0).permutation(len(error))
    error, confidence = error[shuffled].astype(np.float64), confidence[shuffled]
    curves = []
    for order in (np.argsort(-confidence, kind="stable"), np.argsort(error, kind="stable")):
        means = np.cumsum(error[order]) / np.arange(1, len(error) + 1)
        curves.append(means[np.maximum(1, (len(error) * (1 - STEPS)).astype(int)) - 1])
    return float(np.trapezoid(curves[0] - curves[1], STEPS) / max(error.mean(), 1e-9))


def roc(right: np.ndarray, confidence: np.ndarray) -> float:
    """Area under the curve: how often a right pixel is surer than a wrong one; ties count half."""
    order = np.unique(confidence, return_inverse=True)[1]
    count = np.bincount(order)
    rank = (np.cumsum(count) - (count - 1) / 2)[order]
    good = int(right.sum())
    bad = len(right) - good
    return float((rank[right].sum() - good * (good + 1) / 2) / (good * bad)) if good and bad else float("nan")


def calibration_error(right: np.ndarray, confidence: np.ndarray) -> float:
    """The mean gap between what is stated and what is right, over ten bins of confidence."""
    bins = np.minimum((confidence * 10).astype(int), 9)
    return float(sum(abs((confidence - right)[bins == i].sum()) for i in range(10)) / len(right))


def pairs(root: Path, name: str) -> Iterator[tuple[np.ndarray, np.ndarray, FlowTruth]]:
    """Source, target and truth of every pair of a set."""
    for pair in benchmark(name).open(root).pairs:
        sample = pair.load()
        assert isinstance(sample.truth, FlowTruth)
        yield sample.source, sample.target, sample.truth


def measured(matchers: dict[str, Matcher], root: Path, name: str) -> dict[str, tuple[float, float, float]]:
    """AUSE, ROC and calibration error of a set, by each way; the flow is the one of the round trip's matcher."""
    seen: dict[str, list[tuple[np.ndarray, ...]]] = {way: [] for way in matchers}
    for source, target, truth in pairs(root, name):
        for way, matcher in matchers.items():
            match = matcher.match(source, target)
            seen[way].append(_known(match, truth))
    return {way: figures(found) for way, found in seen.items()}


def _known(match: Match, truth: FlowTruth) -> tuple[np.ndarray, ...]:
    error = np.linalg.norm(match.flow - np.where(truth.valid[..., None], truth.flow, 0), axis=-1)[truth.valid]
    return error, match.confidence[truth.valid], np.full(len(error), tolerance(match.target_size))


def figures(found: list[tuple[np.ndarray, ...]]) -> tuple[float, float, float]:
    """AUSE, a mean over pairs; ROC and calibration error over all pixels of pairs of equal weight."""
    areas = [ause(error, confidence) for error, confidence, _ in found]
    some = [np.random.default_rng(0).choice(len(one[0]), 20_000) for one in found]
    error, confidence, within = (
        np.concatenate([one[i][chosen] for one, chosen in zip(found, some, strict=True)]) for i in range(3)
    )
    return float(np.mean(areas)), roc(error <= 3, confidence), calibration_error(error <= within, confidence)


def seconds(matchers: dict[str, Matcher], side: int, times: int = 9) -> list[float]:
    """The least time of a match with confidence of the motorcycle at side x side, of each way in turn."""
    pair = [np.asarray(Image.fromarray(image).resize((side, side))) for image in data.stereo_motorcycle()[:2]]
    least = dict.fromkeys(matchers, np.inf)
    for _ in range(times):
        for way, matcher in matchers.items():
            began = time.perf_counter()
            _ = matcher.match(*pair).confidence
            least[way] = min(least[way], time.perf_counter() - began)
    return list(least.values())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("root", type=Path, help="folder of evaluation sets")
    parser.add_argument("--photographs", type=Path, help="a tar that training never saw: synthetic pairs as well")
    parser.add_argument("--time", action="store_true", help="time, with nothing else running")
    given = parser.parse_args()
    plain = {"search": "none", "polish": False}
    matchers = {way: glunet.load(given.weights, confidence=way, **plain) for way in WAYS}
    print("| set | " + " | ".join(f"{way}: AUSE | ROC | calibration error" for way in WAYS) + " |")
    print("|" + " --- |" * (1 + 3 * len(WAYS)))
    every = []
    for name in SETS:
        found = measured(matchers, given.root, name)
        every.append([found[way][0] for way in WAYS])
        print(f"| {name} | " + " | ".join(f"{value:.3f}" for way in WAYS for value in found[way]) + " |", flush=True)
    if given.photographs:
        photographs = Photographs(find(given.photographs)[1::2])
        cells = []
        for matcher in matchers.values():
            held_out = list(synthetic(matcher, photographs, 24, seed=2))
            table = matcher.calibration if matcher.settings.confidence == "roundtrip" else matcher.learned
            assert table is not None
            stated = np.concatenate(
                [np.where(one.in_view, table.with_median(one.trip, one.median), 0) for one in held_out]
            )
            right = np.concatenate([one.right for one in held_out])
            cells += ["", f"{roc(right, stated):.3f}", f"{calibration_error(right, stated):.3f}"]
        print("| synthetic (ROC of right) | " + " | ".join(cells) + " |")
    means = np.mean(every, axis=0)
    print(f"AUSE, mean of the sets: {means[0]:.4f} and {means[1]:.4f}, {100 * (1 - means[1] / means[0]):.0f} % better")
    asked = [
        glunet.load(given.weights).match(source, target).found
        for name in SETS
        for source, target, _ in pairs(given.root, name)
    ]
    told = sum(found is not None and found.way_back for found in asked)
    print(f"search asks the way back of {told} of {len(asked)} pairs")
    if given.time:
        polished = {way: glunet.load(given.weights, confidence=way, search="none") for way in WAYS}
        for kind, timed in (("without polish", matchers), ("with polish", polished)):
            trip, learned = seconds(timed, 520)
            print(f"with confidence at 520, {kind}: {trip:.3f} s and {learned:.3f} s, {learned / trip:.2f} of it")


if __name__ == "__main__":
    main()
