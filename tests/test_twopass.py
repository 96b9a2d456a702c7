"""Second passes: turned sources turned back, homographies composed, and nothing spoiled that cannot be helped."""

import numpy as np
import pytest
import torch

from glunet import twopass
from glunet.encoded import Encoded
from glunet.errors import GlunetError
from glunet.match import Match, Provenance
from glunet.models import apply_homography
from glunet.twopass import _warped, best_turn, compose, through_homography, turn_back
from untrained import matcher, network

RANDOM = np.random.default_rng(0)
TARGET, SOURCE = (60, 80), (70, 96)
MATRIX = np.array(((1.1, 0.15, 4), (-0.1, 0.9, 9), (5e-4, 2e-4, 1)))


def grid(size: tuple[int, int]) -> np.ndarray:
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    return np.stack((x, y), -1)


def through(matrix: np.ndarray, source: tuple[int, int] = SOURCE, noise: float = 0.0) -> Match:
    """The match that a homography makes, with noise of so many pixels on the way there."""
    flow = apply_homography(matrix, grid(TARGET)) - grid(TARGET) + noise * RANDOM.normal(size=(*TARGET, 2))
    back = apply_homography(np.linalg.inv(matrix), grid(source)) - grid(source)
    return Match(flow.astype(np.float32), source, Provenance("test"), back.astype(np.float32))


def image(size: tuple[int, int]) -> Encoded:
    return Encoded(torch.from_numpy(RANDOM.random((1, 3, *size)) * 255).float(), None, None)


@pytest.mark.parametrize("quarters", [1, 2, 3])
def test_turning_back(quarters):
    """A match whose flow leads every target pixel to itself in the turned source leads to itself in the source."""
    source = image(SOURCE)
    marks = grid(SOURCE)  # each pixel of the source is its own place
    turned = source.turned(quarters)
    places = np.rot90(marks, quarters)
    size = turned.size
    assert places.shape[:2] == size
    flow = RANDOM.integers(0, min(size), (*TARGET, 2)).astype(np.float32) - grid(TARGET)
    backward = RANDOM.normal(size=(*size, 2)).astype(np.float32)
    match = Match(flow.astype(np.float32), size, Provenance("test"), backward)
    back = turn_back(match, quarters, source)
    assert back.source_size == SOURCE
    x, y = np.rint(match.map).astype(int).transpose(2, 0, 1)
    np.testing.assert_allclose(back.map, places[y, x], atol=1e-4)
    there = (match.backward + grid(size))[5, 7]
    x, y = places[5, 7].astype(int)
    np.testing.assert_allclose((back.backward + grid(SOURCE))[y, x], there, atol=1e-4)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_the_turn_is_found(quarters):
    """Also by features of an encoder with random weights: the picture is the same."""
    source = image((96, 128))
    prepare = matcher().computation.lnet
    found = best_turn(network(), source.turned(4 - quarters), source, prepare)
    assert found == quarters


def test_compositions_are_exact():
    rest = np.array(((1, 0.02, 1.5), (0.01, 1, -2), (0, 0, 1.0)))
    composed = compose(through(MATRIX @ rest, noise=5), through(rest, TARGET), MATRIX)
    np.testing.assert_allclose(composed.map, apply_homography(MATRIX @ rest, grid(TARGET)), atol=1e-2)
    expected = through(MATRIX @ rest).backward
    np.testing.assert_allclose(composed.backward, expected, atol=0.05)


def test_the_second_pass_helps_where_it_can_and_spoils_nothing():
    pytest.importorskip("cv2")
    source, target = image(SOURCE), image(TARGET)
    rough = through(MATRIX, noise=1.0)
    still = np.zeros((*TARGET, 2), np.float32)
    asked = []

    def exact(warped: Encoded, other: Encoded) -> Match:
        asked.append(warped.size)
        return Match(still, TARGET, rough.provenance, still, None, warped.valid)

    def wild(warped: Encoded, other: Encoded) -> Match:
        noise = (9 * RANDOM.normal(size=(2, *TARGET, 2))).astype(np.float32)
        return Match(noise[0], TARGET, rough.provenance, noise[1], None, warped.valid)

    truth = through(MATRIX).flow
    better = through_homography(exact, source, target, rough)
    assert asked == [TARGET]
    seen = rough.in_view
    errors = [np.linalg.norm(match.flow - truth, axis=-1)[seen].mean() for match in (rough, better)]
    assert errors[1] < 0.5 * errors[0]
    assert through_homography(wild, source, target, rough) is rough
    resized = through(np.array(((1.2, 0, 0.1), (0, 70 / 60, 0.1), (0, 0, 1.0))))  # no change but that of the sizes
    assert through_homography(exact, source, target, resized) is resized
    lost = Match(9 * RANDOM.normal(size=(*TARGET, 2)).astype(np.float32), SOURCE, rough.provenance, 30 + rough.backward)
    assert through_homography(exact, source, target, lost) is lost
    assert len(asked) == 1


def test_the_warped_source_is_what_the_homography_shows():
    source = image(SOURCE)
    shift = np.array(((1, 0, 10), (0, 1, 4), (0, 0, 1.0)))
    warped = _warped(source, shift, TARGET)
    torch.testing.assert_close(warped.pixels[..., :60, :80], source.pixels[..., 4:64, 10:90], atol=0.02, rtol=0)
    away = _warped(source, np.array(((1, 0, 90), (0, 1, 0), (0, 0, 1.0))), TARGET)
    assert away.valid[:, :6].all()
    assert not away.valid[:, 7:].any()


def test_from_outside(monkeypatch):
    """A source on its side: what `rotations` finds is the match of the upright one, turned, where that agrees more."""
    upright = RANDOM.integers(0, 256, (96, 128, 3)).astype(np.uint8)
    plain, lying = matcher().match(upright, upright), np.rot90(upright).copy()
    # By an untrained network no match agrees with itself.
    monkeypatch.setattr(twopass, "agreement", lambda match: float(match.source_size == (128, 96)))
    for confidence in (True, False):
        as_it_is = matcher().match(lying, upright, rotations=True, confidence=confidence)
        np.testing.assert_array_equal(as_it_is.flow, matcher().match(lying, upright).flow)
        assert (as_it_is.backward is None) is not confidence
    monkeypatch.setattr(twopass, "agreement", lambda match: float(match.source_size == (96, 128)))
    turned = matcher().match(lying, upright, rotations=True)
    assert turned.source_size == (128, 96)
    x, y = plain.map[..., 0], plain.map[..., 1]
    np.testing.assert_allclose(turned.map, np.stack((y, 127 - x), -1), atol=2e-2)
    for wrong in ({"refine": "affine"}, {"refine": "homography", "confidence": False}):
        with pytest.raises(GlunetError, match="refine"):
            matcher().match(upright, upright, **wrong)


def test_agreement_is_the_share_that_comes_back():
    good, bad = through(MATRIX), through(MATRIX, noise=20)
    assert twopass.agreement(good) == pytest.approx(good.in_view.mean(), abs=0.03)
    assert twopass.agreement(bad) < 0.1
