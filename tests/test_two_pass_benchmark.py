"""The benchmark of two passes and turned sources: its examples are true, and it counts what changed."""

import sys
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import two_pass

from glunet.training.scenes import Recipe
from narrow import Noise
from untrained import matcher


def test_a_turned_source_has_the_same_pixels_at_the_flow() -> None:
    random = np.random.default_rng(0)
    source, target = (random.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((40, 60), (30, 50)))
    flow = random.integers(-3, 4, (30, 50, 2)).astype(np.float32)
    valid = np.ones((30, 50), bool)
    ((other, same, turned, _),) = two_pass.turned(iter([(source, target, flow, valid)]))
    assert same is target
    assert other.shape == (60, 40, 3)
    grid = np.stack(np.meshgrid(np.arange(50), np.arange(30)), axis=-1)
    before, after = (np.moveaxis((grid + f).astype(int), -1, 0) for f in (flow, turned))
    inside = (before[0] >= 0) & (before[1] >= 0) & (before[0] < 60) & (before[1] < 40)
    assert np.array_equal(source[before[1][inside], before[0][inside]], other[after[1][inside], after[0][inside]])


def test_synthetic_pairs_are_measured_in_every_way(monkeypatch) -> None:
    assert two_pass.STRONG.objects == 0 < Recipe().objects
    examples = list(two_pass.synthetic(Noise(), 4, size=64))
    assert len(examples) == 4
    monkeypatch.setattr(two_pass, "WAYS", {"plain": {}, "rotations": {"rotations": True}})
    found = two_pass.errors(matcher(), iter(examples[:1]))
    assert list(found) == ["plain", "rotations"]
    assert all(len(values) == 1 and np.isfinite(values[0]) for values in found.values())


def test_only_clear_changes_count() -> None:
    better, worse, largest = two_pass.changed([10, 10, 1, 1], [9, 10.4, 1.2, 2])
    assert (better, worse) == (1, 1)
    assert largest == 1
