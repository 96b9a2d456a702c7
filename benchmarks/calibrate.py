"""Fits the confidence of weights and writes it into their file; measures how well it holds elsewhere.

    python -m benchmarks.calibrate WEIGHTS.safetensors ../shared/photos/photos-val.tar --real ../shared/devset \
        --plot docs/images/reliability.png

By the round trip, with all that is around the network, or, with `--learned`, by its uncertainty head, without search.
Fitted on synthetic scenes of every other photograph, reported on scenes of the rest under another seed and, with
`--real`, on real pairs with truth. The threshold of the verdict is where 1 % of pairs of different photographs of one
folder pass. With `--dry` the file is left alone.
"""

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import asdict
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import glunet
from glunet.evaluation.datasets import FlowTruth, benchmark
from glunet.flow.files import writing
from glunet.inference.confidence import Calibration, pair_median, tolerance
from glunet.match import Match
from glunet.matcher import Matcher
from glunet.training.photographs import Photographs, find
from glunet.training.scenes import SceneParameters, truth
from glunet.training.views import make_views

PIXEL_KNOTS = (0.0, 0.1, 0.2, 0.35, 0.6, 1.0, 1.7, 3.0, 6.0, 15.0, 50.0)  # round trips, in tolerances
LEARNED_KNOTS = (0.0, 0.1, 0.2, 0.35, 0.6, 1.0, 2.0, 4.0, 8.0, 15.0, 30.0)  # deviations, in tolerances
PAIR_SHARES = (0.05, 0.35, 0.65, 0.95)  # of the pairs' medians: the table's rows
PIXELS = 4000  # of a pair, for the fit and the report
FRAMES = ((256, 256), (384, 512))
FALSE_ALARMS = 0.01
REAL = ("hpatches-240", "middlebury", "kitti2012", "flyingchairs")


class Seen(NamedTuple):
    """Pixels of one pair: `Match._miss` in tolerances, in view or not, right or not; N each. And of the pair: its
    median, and the share of what both images show that comes back, where a search asked."""

    trip: np.ndarray
    in_view: np.ndarray
    right: np.ndarray
    median: float
    agreement: float = 0.0


def look(match: Match, flow: np.ndarray, visible: np.ndarray, known: np.ndarray | None = None) -> Seen:
    """A random part of a pair's pixels beside their truth.

    Args:
        flow: the true one, H x W x 2.
        visible: H x W bool, where a right answer exists.
        known: H x W bool, where the truth is known at all; everywhere by default.
    """
    trip = match._miss() / tolerance(match.target_size)
    error = np.linalg.norm(match.flow - np.where(visible[..., None], flow, 0), axis=-1)
    right = visible & (error <= tolerance(match.target_size))
    places = np.flatnonzero(known) if known is not None else np.arange(right.size)
    chosen = np.random.default_rng(0).choice(places, min(PIXELS, len(places)), replace=False)
    median = pair_median(trip, match.in_view)
    return Seen(trip.flat[chosen], match.in_view.flat[chosen], right.flat[chosen], median, match.verdict.agreement)


def synthetic(matcher: Matcher, photographs: Photographs, count: int, seed: int) -> Iterator[Seen]:
    """`count` scenes, three quarters of them at 256 x 256; each gives one pair."""
    numbers = torch.randperm(len(photographs), generator=torch.Generator().manual_seed(seed)).repeat(9)
    for batch in range(count // 4):
        frame = FRAMES[batch % 4 == 3]
        views = make_views(photographs, 4, 2, frame, (seed, batch), SceneParameters(), numbers=numbers[4 * batch :][:4])
        images = views.images.round().clamp(0, 255).byte()
        zeros = torch.zeros(4, dtype=torch.long)
        true = truth(views.scenes, zeros, zeros + 1, frame, frame)
        targets, sources = ([matcher.open(image) for image in images[:, view]] for view in (0, 1))
        for match, flow, visible in zip(matcher.matches(sources, targets, True), true.flow, true.visible, strict=True):
            yield look(match, flow.permute(1, 2, 0).numpy(), visible.numpy())


def real(matcher: Matcher, root: Path, limit: int) -> dict[str, list[Seen]]:
    """Pairs of the sets with dense truth that are below `root`: name -> what was seen."""
    found: dict[str, list[Seen]] = {}
    for name in REAL:
        try:
            pairs = benchmark(name).open(root).limited(limit)
        except glunet.GlunetError as error:
            print(f"  {name}: left out ({error})")
            continue
        for pair in pairs:
            sample = pair.load()
            assert isinstance(sample.truth, FlowTruth)
            match = matcher.match(sample.source, sample.target)
            found.setdefault(name, []).append(look(match, sample.truth.flow, sample.truth.valid, sample.truth.valid))
    return found


def different(matcher: Matcher, photographs: Photographs, pairs: int) -> list[Seen]:
    """Pairs of different photographs, cut to squares of 256: nothing in them is right."""
    images = []
    for number in range(len(photographs)):
        photo = photographs[number]
        side = min(photo.shape[-2:])
        square = torch.nn.functional.interpolate(
            photo[None, :, :side, :side].float(), size=(256, 256), mode="bilinear", antialias=True
        )
        images.append(matcher.encode(square[0].round().clamp(0, 255).byte()))
    every = list(combinations(range(len(images)), 2))
    chosen = np.random.default_rng(0).permutation(len(every))[:pairs]
    seen = []
    for start in range(0, len(chosen), 8):
        some = [every[i] for i in chosen[start : start + 8]]
        matches = matcher.matches([images[s] for s, _ in some], [images[t] for _, t in some], True)
        nowhere = np.zeros((256, 256), bool)
        seen += [look(match, match.flow, nowhere) for match in matches]
    return seen


def fit(seen: list[Seen], knots: tuple[float, ...] = PIXEL_KNOTS) -> Calibration:
    """The table that predicts best, in least squares, what is right; its threshold is 0.

    Where hardly a pixel of such a pair ever was, it says what is right in all pairs.
    """
    pair = np.quantile([one.median for one in seen], PAIR_SHARES)
    pair = pair + np.arange(len(pair)) * 1e-6  # ascending, even if all pairs were alike
    pixels = [_hats(one.trip[one.in_view], np.array(knots)) for one in seen]
    rows = [_hats(np.array([one.median]), pair) for one in seen]
    wanted = np.concatenate([one.right[one.in_view] for one in seen]).astype(np.float64)
    of_all = _shares(np.concatenate(pixels), wanted, np.linspace(1, 0, len(knots)), 1)
    both = [
        (row[:, :, None] * pixel[:, None, :]).reshape(len(pixel), -1) for row, pixel in zip(rows, pixels, strict=True)
    ]
    table = _shares(np.concatenate(both), wanted, np.tile(of_all, len(pair)), 200).reshape(len(pair), -1)
    table = _falling(_falling(table, 1), 0)
    lines = tuple(tuple(float(round(value, 4)) for value in line) for line in table)
    return Calibration(tuple(float(round(value, 6)) for value in pair), knots, lines, 0.0, {})


def _shares(weights: np.ndarray, right: np.ndarray, guess: np.ndarray, trust: float) -> np.ndarray:
    """Shares at knots, 0..1, by least squares; `guess` counts as much as `trust` pixels."""
    square = weights.T.astype(np.float64) @ weights + trust * np.eye(len(guess))
    return np.linalg.solve(square, weights.T @ right + trust * guess).clip(0, 1)


def _falling(table: np.ndarray, axis: int) -> np.ndarray:
    """The mean of the nearest tables that fall along an axis from above and from below."""
    above = np.flip(np.maximum.accumulate(np.flip(table, axis), axis), axis)
    return (np.minimum.accumulate(table, axis) + above) / 2


def confidences(calibration: Calibration, one: Seen) -> np.ndarray:
    """As `Match.confidence` would say of these pixels."""
    return np.where(one.in_view, calibration.with_median(one.trip, one.median), 0)


def report(calibration: Calibration, seen: list[Seen]) -> dict[str, float]:
    """How well confidence and truth agree: the calibration error over ten bins, and the share right around 0.8."""
    stated = np.concatenate([confidences(calibration, one) for one in seen])
    right = np.concatenate([one.right for one in seen])
    gap = sum(abs(part.sum()) for part in _binned(stated, stated - right)) / len(right)
    near = (stated > 0.75) & (stated < 0.85)
    return {
        "pairs": len(seen),
        "right": round(float(right.mean()), 4),
        "calibration_error": round(float(gap), 4),
        "right_at_0.8": round(float(right[near].mean()), 4) if near.sum() > 50 else float("nan"),
    }


def _binned(stated: np.ndarray, values: np.ndarray) -> list[np.ndarray]:
    return [values[np.minimum((stated * 10).astype(int), 9) == number] for number in range(10)]


def _hats(values: np.ndarray, knots: np.ndarray) -> np.ndarray:
    """N x K: the weights of linear interpolation between knots, in the logarithm that `Calibration` uses."""
    position = np.interp(np.log(values + 0.01), np.log(knots + 0.01), np.arange(len(knots)))
    return np.maximum(0, 1 - np.abs(position[:, None] - np.arange(len(knots))))


def plot(path: Path, curves: dict[str, list[Seen]], calibration: Calibration) -> None:
    """The reliability diagram."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(5, 5))
    axes.plot((0, 1), (0, 1), color="0.7", linewidth=1)
    for name, seen in curves.items():
        stated = np.concatenate([confidences(calibration, one) for one in seen])
        right = np.concatenate([one.right for one in seen])
        points = [
            (s.mean(), r.mean())
            for s, r in zip(_binned(stated, stated), _binned(stated, right), strict=True)
            if len(s) > 99
        ]
        axes.plot(*zip(*points, strict=True), marker="o", label=f"{name}, {len(seen)} pairs")
    axes.set(xlabel="confidence", ylabel="share found within 1 px or 1 %", xlim=(0, 1), ylim=(0, 1), aspect="equal")
    axes.legend()
    figure.savefig(path, dpi=110, bbox_inches="tight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", type=Path)
    parser.add_argument("photographs", type=Path, help="a folder or tar that training never saw")
    parser.add_argument("--folder", default="houses", help="whose photographs make the pairs of different ones")
    parser.add_argument("--real", type=Path, help="folder of evaluation sets")
    parser.add_argument("--plot", type=Path)
    parser.add_argument("--scenes", type=int, default=64, help="for the fit; two thirds of it for the report")
    parser.add_argument("--different", type=int, default=512)
    parser.add_argument("--learned", action="store_true", help="the uncertainty head instead of the round trip")
    parser.add_argument("--dry", action="store_true")
    given = parser.parse_args()
    began = time.monotonic()
    how = {"confidence": "learned", "search": "none"} if given.learned else {"confidence": "roundtrip"}
    matcher = glunet.load(given.weights, **how)
    places = find(given.photographs)
    fitted = list(synthetic(matcher, Photographs(places[::2]), given.scenes, seed=1))
    held_out = list(synthetic(matcher, Photographs(places[1::2]), given.scenes * 2 // 3, seed=2))
    calibration = fit(fitted, LEARNED_KNOTS if given.learned else PIXEL_KNOTS)
    print(f"synthetic pairs: {time.monotonic() - began:.0f} s")
    others = [place for place in places if f"/{given.folder}/" in f"{place.path}/{place.member}"] or places
    strangers = different(matcher, Photographs(others), given.different)
    print(f"different photographs: {time.monotonic() - began:.0f} s")

    def scores(seen: list[Seen]) -> np.ndarray:
        return np.array([confidences(calibration, one).mean() for one in seen])

    threshold = float(np.quantile(scores(strangers), 1 - FALSE_ALARMS))
    results: dict[str, Any] = {"synthetic": report(calibration, held_out)}
    curves = {"synthetic": held_out}
    measured = real(matcher, given.real, 8) if given.real else {}
    for name, seen in measured.items():
        results[name] = report(calibration, seen) | {"detected": float((scores(seen) >= threshold).mean())}
    if measured:
        curves["real"] = [one for seen in measured.values() for one in seen]
        results["real"] = report(calibration, curves["real"])
    results["verdict"] = {
        "different_pairs": len(strangers),
        "false_alarms": float((scores(strangers) > threshold).mean()),
        "largest_agreement": max(one.agreement for one in strangers),
        "threshold": threshold,
        "detected_synthetic": float((scores(held_out) >= threshold).mean()),
    }
    print(json.dumps(results, indent=2))
    content = asdict(calibration) | {"threshold": threshold, "fitted": {"scenes": given.scenes, "results": results}}
    if given.plot:
        plot(given.plot, curves, calibration)
        print(given.plot)
    if not given.dry:
        write(given.weights, content, "learned" if given.learned else "confidence")
        print(given.weights)
    print(f"{time.monotonic() - began:.0f} s")


def write(path: Path, content: dict[str, Any], name: str = "confidence") -> None:
    """Puts the calibration into the metadata of weights; the tensors stay as they are."""
    with safe_open(path, framework="pt") as file:
        metadata = json.loads(file.metadata()["glunet"])
    state = load_file(path)
    with writing(path) as part:
        save_file(state, part, metadata={"glunet": json.dumps(metadata | {name: content})})
        part.chmod(0o644)


if __name__ == "__main__":
    main()
