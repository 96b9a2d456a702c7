"""What a second pass (`refine="homography"`) and trying four orientations (`rotations=True`) change.

    python -m benchmarks.two_pass ../shared/devset ../shared/photos/photos-val.tar [--scenes 32] [--json numbers.json]

On every pair of the sets with dense truth below the folder, and on synthetic pairs of planes seen from strongly
different views, upright and with the source turned by 90 degrees. A pair counts as better or worse where its AEPE
changes by more than a twentieth and more than a quarter of a pixel.
"""

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import glunet
from glunet.evaluation.datasets import FlowTruth, benchmark
from glunet.matcher import Matcher
from glunet.training.photographs import Photographs, find
from glunet.training.scenes import Recipe, truth
from glunet.training.views import make_views

SETS = ("hpatches-240", "hpatches", "motorcycle", "middlebury", "kitti2012", "flyingchairs")
WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "refine": {"refine": "homography"},
    "rotations": {"rotations": True},
    "both": {"refine": "homography", "rotations": True},
}
# Planes alone, the largest motion of each kind, no turn of its own: what turns is the source.
STRONG = replace(Recipe(), objects=0, shares=(0.0, 0.0, 0.3, 0.7), any_angle=0.0, still=0.0)
Example = tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]  # source, target, flow, valid


def of_set(name: str, root: Path) -> Iterator[Example]:
    """The pairs of a set with dense truth."""
    for pair in benchmark(name).open(root).limited(None):
        sample = pair.load()
        if not isinstance(sample.truth, FlowTruth):
            raise glunet.GlunetError(f"{name} has no dense truth")
        yield sample.source, sample.target, sample.truth.flow, sample.truth.valid


def synthetic(photographs: Photographs, scenes: int, size: int = 384, seed: int = 5) -> Iterator[Example]:
    """Two views of a plane each."""
    frame, zeros = (size, size), torch.zeros(4, dtype=torch.long)
    for batch in range(scenes // 4):
        views = make_views(photographs, 4, 2, frame, (seed, batch), STRONG)
        images = views.images.round().clamp(0, 255).byte().permute(0, 1, 3, 4, 2).numpy()
        true = truth(views.scenes, zeros, zeros + 1, frame, frame)
        for (target, source), flow, visible in zip(images, true.flow, true.visible, strict=True):
            yield source, target, flow.permute(1, 2, 0).numpy(), visible.numpy()


def turned(examples: Iterator[Example]) -> Iterator[Example]:
    """The same with the source turned by 90 degrees against the clock."""
    for source, target, flow, valid in examples:
        grid = np.stack(np.meshgrid(*(np.arange(side) for side in flow.shape[1::-1])), axis=-1)
        x, y = np.moveaxis(flow + grid, -1, 0)
        there = np.stack((y, source.shape[1] - 1 - x), axis=-1)
        yield np.ascontiguousarray(np.rot90(source)), target, (there - grid).astype(np.float32), valid


def errors(matcher: Matcher, examples: Iterator[Example]) -> dict[str, list[float]]:
    """The AEPE of every pair in every way."""
    found: dict[str, list[float]] = {way: [] for way in WAYS}
    for source, target, flow, valid in examples:
        for way, options in WAYS.items():
            match = matcher.match(source, target, **options)
            found[way].append(float(np.linalg.norm(match.flow - flow, axis=-1)[valid].mean()))
    return found


def changed(before: Sequence[float], after: Sequence[float]) -> tuple[int, int, float]:
    """How many pairs are better, how many worse, and the largest loss in pixels."""
    old, new = np.asarray(before), np.asarray(after)
    counts = np.abs(new - old) > np.maximum(0.05 * old, 0.25)
    return int((counts & (new < old)).sum()), int((counts & (new > old)).sum()), float((new - old).max())


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, help="the folder of the sets")
    parser.add_argument("photos", type=Path, nargs="+", help="photographs: folders or tars")
    parser.add_argument("--scenes", type=int, default=32)
    parser.add_argument("--weights", default="glunet")
    parser.add_argument("--speed", choices=("exact", "fast"), default="fast")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    matcher = glunet.load(asked.weights, speed=asked.speed)
    photographs = Photographs(find(asked.photos))
    parts = {name: (lambda name=name: of_set(name, asked.root)) for name in SETS}
    parts["synthetic planes"] = lambda: synthetic(photographs, asked.scenes)
    parts["the same, source turned by 90"] = lambda: turned(synthetic(photographs, asked.scenes))
    print("| pairs | | " + " | ".join(WAYS) + " | better, worse, largest loss: refine | rotations |")
    print("| --- | --- " + "| --- " * (len(WAYS) + 2) + "|")
    numbers = {}
    for name, examples in parts.items():
        try:
            numbers[name] = found = errors(matcher, examples())
        except glunet.GlunetError as error:
            print(f"{name}: left out ({error})")
            continue
        means = " | ".join(f"{np.mean(values):.2f}" for values in found.values())
        changes = [changed(found["plain"], found[way]) for way in ("refine", "rotations")]
        told = " | ".join(f"{better}, {worse}, {loss:.2f} px" for better, worse, loss in changes)
        print(f"| {name} | {len(found['plain'])} | {means} | {told} |", flush=True)
    if asked.json:
        asked.json.write_text(json.dumps(numbers, indent=1) + "\n")


if __name__ == "__main__":
    main()
