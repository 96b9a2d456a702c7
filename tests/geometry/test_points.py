"""Points of a match: both directions, no match, masks, samples that spread, and CSV files."""

import numpy as np
import pytest

from glunet.errors import GlunetError
from glunet.geometry.points import Correspondences, read_points, spread, write_matches
from glunet.match import Match, Provenance
from untrained import matcher

RANDOM = np.random.default_rng(0)


def shifted(x: float = 4, y: float = -3, size: tuple[int, int] = (60, 80), **masks: np.ndarray) -> Match:
    """A consistent match: the source is the target, moved."""
    flow = np.broadcast_to(np.array((x, y), np.float32), (*size, 2)).copy()
    return Match(flow, size, Provenance("test"), -flow, **masks)


def test_there_and_back():
    match = shifted()
    points = RANDOM.uniform((0, 4), (70, 55), (30, 2)).astype(np.float32)
    found, confidence = match.at(points)
    np.testing.assert_allclose(found, points + np.array((4, -3)), atol=1e-3)
    np.testing.assert_allclose(confidence, 1, atol=1e-3)
    back, _ = match.at(found, of="source")
    np.testing.assert_allclose(back, points, atol=1e-3)
    assert match.reverse.reverse.flow is match.flow


def test_no_match_is_said():
    match = shifted()
    found, confidence = match.at(np.array([[79, 30], [10, 1], [10, 30]]))  # leaves to the right, leaves above, stays
    assert np.isnan(found[:2]).all()
    assert confidence[:2].tolist() == [0, 0]
    assert np.isfinite(found[2]).all()
    torn = Match(match.flow, (60, 80), match.provenance, match.backward + 3)  # round trips of 4.2 px
    found, confidence = torn.at(np.array([[10, 30]]), least=0.5)
    assert np.isnan(found).all()
    assert confidence[0] == pytest.approx(1 / (1 + 18**0.5), abs=1e-3)
    assert np.isfinite(torn.at(np.array([[10, 30]]))[0]).all()
    with pytest.raises(GlunetError, match="backward=True"):
        Match(match.flow, (60, 80), match.provenance).at(np.array([[10, 30]]), of="source")
    with pytest.raises(GlunetError, match="outside the source"):
        match.at(np.array([[90, 30]]), of="source")
    with pytest.raises(GlunetError, match="'both'"):
        match.at(np.array([[9, 30]]), of="both")


def test_masks_take_confidence_away():
    left, top = np.ones((60, 80), bool), np.ones((60, 80), bool)
    left[:, :20], top[:10] = False, False
    match = shifted(0, 0, source_valid=left, target_valid=top)
    assert not match.confidence[:, :20].any()
    assert not match.confidence[:10].any()
    assert (match.confidence[10:, 20:] == 1).all()
    assert not match.reverse.confidence[:10].any()
    pixels = match.sample(50).target
    assert pixels[:, 0].min() >= 20
    assert pixels[:, 1].min() >= 10


def test_what_is_masked_out_does_not_matter():
    source, target = (RANDOM.integers(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(2))
    mask = np.ones((40, 50), bool)
    mask[:12] = False
    other = source.copy()
    other[:12] = 0
    first, second = (matcher().match(image, target, source_mask=mask) for image in (source, other))
    assert np.array_equal(first.flow, second.flow)
    assert not np.array_equal(matcher().match(other, target).flow, second.flow)
    assert second.source_valid is not None
    for wrong in (mask[:5], ~(mask | True), np.zeros((40, 50), complex)):
        with pytest.raises(GlunetError, match="target mask"):
            matcher().match(source, target, target_mask=wrong)


@pytest.mark.parametrize("count", [1, 40, 500, 4800, 9000])
def test_samples_are_as_many_and_all_different(count):
    confidence = RANDOM.random((60, 80))
    pixels = spread(confidence, np.ones((60, 80), bool), count)
    assert len(pixels) == min(count, 4800)
    assert len(np.unique(pixels, axis=0)) == len(pixels)


def test_samples_spread_and_are_confident():
    """Confidence high in one corner only: still every part of the image has its share."""
    confidence = np.full((120, 160), 0.6) + 0.01 * RANDOM.random((120, 160))
    confidence[:30, :40] = 1
    pixels = spread(confidence, confidence > 0.5, 200)
    counts = np.histogram2d(pixels[:, 1], pixels[:, 0], bins=(4, 4), range=((0, 120), (0, 160)))[0]
    assert counts.min() >= 8
    assert counts.max() <= 18
    noise = RANDOM.random((120, 160))
    pixels = spread(noise, noise > 0, 200)
    assert noise[pixels[:, 1], pixels[:, 0]].mean() > 0.8  # 0.5 at random


def test_sample_of_a_match():
    match = shifted()
    found = match.sample(100)
    assert [part.shape for part in found] == [(100, 2), (100, 2), (100,)]
    np.testing.assert_allclose(found.source, found.target + np.array((4, -3)))
    assert len(shifted(1000, 0).sample(100).target) == 0
    with pytest.raises(GlunetError, match="1 or more"):
        match.sample(0)


def test_csv(tmp_path):
    path = tmp_path / "points.csv"
    for text in ("x,y,name\n1,2,a\n\n3.5,4,b\n", "1,2\n3.5,4", "\ufeffx,y\r\n1,2\r\n3.5,4\r\n"):
        path.write_text(text, encoding="utf-8")
        assert read_points(path).tolist() == [[1, 2], [3.5, 4]]
    for text, expected in (("x,y\n", "no points"), ("1,2\nthree,4\n", "Line 2"), ("1,2\n3\n", "Line 2")):
        path.write_text(text)
        with pytest.raises(GlunetError, match=expected):
            read_points(path)
    with pytest.raises(GlunetError, match="cannot be read"):
        read_points(tmp_path / "none.csv")
    points = np.array([[1, 2], [3.5, 4]], np.float32)
    write_matches(path, Correspondences(points, np.array([[5, 6], [np.nan, np.nan]]), np.array([0.5, 0])))
    assert path.read_text().splitlines()[1:] == ["1,2,5.000,6.000,0.5000", "3.5,4,,,0.0000"]
