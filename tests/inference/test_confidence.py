"""Confidence: round trips, occlusion, what a calibration says, its fit, and how it travels with weights."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from glunet import loading
from glunet.errors import GlunetError
from glunet.inference import confidence
from glunet.inference.confidence import SURE_POINTS, Calibration, occluded, round_trip, tolerance
from glunet.inference.search import Found
from glunet.match import Match, Provenance
from untrained import matcher, network

RANDOM = np.random.default_rng(0)
TABLE = Calibration((0.1, 1.0), (0.0, 1.0, 5.0), ((1.0, 0.6, 0.1), (0.5, 0.2, 0.0)), 0.3, {})


def test_both_directions_are_one_another():
    """The backward flow of a pair is the forward flow of the pair the other way round, in the pixels of each image."""
    one, two = (RANDOM.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((256, 256), (256, 256)))
    match = matcher().match(one, two)
    np.testing.assert_allclose(match.backward, matcher().match(two, one).flow, atol=2e-3)
    assert np.array_equal(match.reverse.flow, match.backward)
    alone = matcher().match(one, two, confidence=False)
    np.testing.assert_allclose(match.flow, alone.flow, atol=2e-3)
    assert alone.confidence_kind == "in view"
    assert np.array_equal(alone.confidence, alone.in_view)
    small = matcher().match(one.repeat(2, axis=0), two)  # a source of another size: its own grid, the target's pixels
    assert small.backward.shape == (512, 256, 2)


def test_mirrored_targets_come_back_unmirrored():
    one = RANDOM.integers(0, 256, (256, 256, 3)).astype(np.uint8)
    flipping = matcher(flipping=True).match(one, one[:, ::-1].copy())
    plain = matcher().match(one, one)
    if np.allclose(flipping.map, plain.map[:, ::-1], atol=1e-2):  # it was found to be mirrored
        x = plain.backward[..., 0] + np.arange(256)
        np.testing.assert_allclose(flipping.backward[..., 0] + np.arange(256), 255 - x, atol=1e-2)
    else:
        np.testing.assert_allclose(flipping.flow, matcher().match(one, one[:, ::-1].copy()).flow, atol=1e-2)


def test_round_trips_and_occlusion():
    flow = torch.zeros(1, 2, 40, 60)
    flow[:, 0] = 10
    back = -flow
    back[:, :, :, :30] = 0  # the left half of the source leads elsewhere
    trip = round_trip(flow, back)
    assert trip[0, :, :19].unique().tolist() == [10]
    assert trip[0, :, 21:50].unique().tolist() == [0]
    seen = torch.ones(1, 40, 60, dtype=torch.bool)
    assert occluded(flow, back, seen)[0, :, :19].all()
    assert not occluded(flow, back, seen)[0, :, 21:50].any()
    assert not occluded(flow, back, ~seen).any()


def test_calibration_is_what_its_table_says_and_falls():
    assert TABLE.with_median(np.array([0.0, 1.0, 5.0, 99.0]), 0.01).tolist() == pytest.approx(
        [1, 0.6, 0.1, 0.1], abs=1e-3
    )
    assert TABLE.with_median(np.array([0.0, 1.0]), 70).tolist() == pytest.approx([0.5, 0.2], abs=1e-3)
    trips = np.sort(RANDOM.random(50) * 6)
    for median in (0.05, 0.3, 0.9, 2):
        assert (np.diff(TABLE.with_median(trips, median)) <= 1e-6).all()
    between = TABLE.with_median(trips, 0.3)
    assert (between <= TABLE.with_median(trips, 0.1)).all()
    assert (between >= TABLE.with_median(trips, 1.0)).all()


def test_a_calibration_that_is_level_orders_all_the_same():
    level = Calibration((0.1, 1.0), (0.0, 1.0, 5.0), ((0.9, 0.9, 0.0), (0.9, 0.9, 0.0)), 0.3, {})
    sure = level.with_median(np.linspace(0, 1, 50), 0.1)
    assert (np.diff(sure) < 0).all()
    assert np.abs(sure - 0.9).max() < 1e-3


def test_a_match_uses_its_calibration():
    flow = np.zeros((60, 80, 2), np.float32)
    flow[:, -10:] = 100  # out of view
    match = Match(flow, (60, 80), Provenance("test"), np.zeros_like(flow), TABLE)
    assert match.confidence_kind == "calibrated"
    assert (match.confidence[:, :-10] == 1).all()
    assert not match.confidence[:, -10:].any()
    assert match.verdict.same is True
    assert "show the same thing" in str(match.verdict)
    lost = Match(flow, (60, 80), Provenance("test"), np.full_like(flow, 30), TABLE)
    assert lost.verdict.same is False
    assert "do not show" in str(lost.verdict)
    for points, same in ((SURE_POINTS - 1, False), (SURE_POINTS, True)):  # an object that is small in the target
        small = Match(
            flow, (60, 80), Provenance("test"), lost.backward, TABLE, found=Found("", 0.0, 0.0, points=points)
        )
        assert small.verdict.same is same
        assert ("keypoints on one plane" in str(small.verdict)) is same
    for agreement, way_back, same in ((0.59, True, False), (0.6, True, True), (0.9, False, False)):  # a little of both
        found = Found("", 0.0, agreement, way_back=way_back)
        small = Match(flow, (60, 80), Provenance("test"), lost.backward, TABLE, found=found)
        assert small.verdict.same is same
        assert ("of what both show comes back" in str(small.verdict)) is same
    bare = Match(flow, (60, 80), Provenance("test"), np.zeros_like(flow))
    assert bare.confidence_kind == "consistency"
    assert bare.verdict.same is None
    assert "no calibration" in str(bare.verdict)
    nowhere = Match(flow + 1000, (60, 80), Provenance("test"), np.zeros_like(flow), TABLE)
    assert not nowhere.confidence.any()


def test_tolerance():
    assert tolerance((50, 60)) == 1
    assert tolerance((500, 1200)) == 12
    assert confidence.pair_median(np.ones((40, 50)), np.zeros((40, 50), bool)) == 1e3


def test_the_fit_finds_the_truth():
    """Pixels right with a known chance: the fitted table says that chance, on other pixels too."""
    calibrate = pytest.importorskip("benchmarks.calibrate")

    def pairs(count: int) -> list:
        found = []
        for _ in range(count):
            median = float(np.exp(RANDOM.normal(-0.5, 1)))
            trip = median * np.exp(RANDOM.normal(0, 1, 2000))
            in_view = RANDOM.random(2000) < 0.9
            right = in_view & (RANDOM.random(2000) < 1 / (1 + trip * (1 + median)))
            found.append(calibrate.Seen(trip, in_view, right, median))
        return found

    fitted = calibrate.fit(pairs(80))
    table = np.array(fitted.right)
    assert (np.diff(table, axis=0) <= 0).all()
    assert (np.diff(table, axis=1) <= 0).all()
    told = calibrate.report(fitted, pairs(80))
    assert told["calibration_error"] < 0.03
    assert told["right_at_0.8"] == pytest.approx(0.8, abs=0.05)


def test_calibration_travels_with_weights(tmp_path, monkeypatch):
    calibrate = pytest.importorskip("benchmarks.calibrate")
    path = tmp_path / "w.safetensors"
    save_file({"a": torch.zeros(2)}, path, metadata={"glunet": json.dumps({"name": "w"})})
    content = {"pair": [0.1], "pixel": [0, 1], "right": [[1, 0]], "threshold": 0.5, "fitted": {"on": "x"}}
    calibrate.write(path, content)
    metadata = loading._metadata(path)
    assert metadata["name"] == "w"
    monkeypatch.setattr(loading, "_read", lambda name: (network(), metadata, path))
    assert loading.load(path, "cpu").calibration == Calibration((0.1,), (0, 1), ((1.0, 0.0),), 0.5, {"on": "x"})
    metadata["confidence"] = {"pair": 3}
    with pytest.raises(GlunetError, match="calibrate these weights again"):
        loading.load(path, "cpu")
