"""Many pairs, and one image against many: the same answers as one by one, less work, bad pairs named."""

import numpy as np
import pytest
import torch

from glunet import many
from glunet.errors import GlunetError
from glunet.network.strips import StripPyramid
from untrained import matcher

RANDOM = np.random.default_rng(0)


def images(*sizes: tuple[int, int]) -> list[np.ndarray]:
    return [RANDOM.integers(0, 256, (*size, 3)).astype(np.uint8) for size in sizes]


@pytest.fixture
def encodings(monkeypatch):
    """The shapes of what the encoder was given."""
    seen = []
    forward = StripPyramid.forward

    def counted(self: StripPyramid, image: torch.Tensor, levels: tuple[int, ...]) -> dict[int, torch.Tensor]:
        seen.append(tuple(image.shape))
        return forward(self, image, levels)

    monkeypatch.setattr(StripPyramid, "forward", counted)
    return seen


def test_encoded_images_give_the_same_match(encodings):
    one, two, large = images((40, 50), (60, 48), (264, 272))
    plain = matcher().match(one, two)
    encoded = [matcher().encode(image) for image in (one, two)]
    before = len(encodings)
    again = matcher().match(*encoded)
    assert len(encodings) == before  # nothing is encoded again
    np.testing.assert_allclose(again.flow, plain.flow, atol=1e-3)
    np.testing.assert_allclose(again.backward, plain.backward, atol=1e-3)
    # In a larger frame only the 256 x 256 copy's features are reused.
    source = matcher().match(encoded[0], large)
    assert encodings[before:].count((1, 3, 256, 256)) == 1  # the large one's copy
    np.testing.assert_allclose(source.flow, matcher().match(one, large).flow, atol=1e-3)


def test_what_was_encoded_elsewhere_is_refused():
    one, two = images((40, 50), (40, 50))
    with pytest.raises(GlunetError, match="another matcher"):
        matcher().match(matcher(uint8_truncation=True).encode(one), two)
    with pytest.raises(GlunetError, match=r"matcher\.encode"):
        matcher().match(matcher().encode(one), two, source_mask=np.ones((40, 50), bool))
    with pytest.raises(GlunetError, match="given image"):
        matcher().encode(np.zeros((3, 3)))


def test_masks_are_kept():
    one, two = images((40, 50), (40, 50))
    mask = np.zeros((40, 50), bool)
    mask[:, 25:] = True
    match = matcher().match(matcher().encode(one, mask), two)
    assert np.array_equal(match.source_valid, mask)


def test_many_equals_one_by_one_in_order(encodings):
    small, other = images((40, 50), (40, 50), (40, 50)), images((48, 40), (64, 40))
    pairs = [(small[0], small[1]), (other[0], other[1]), (small[2], small[0]), (small[1], small[0])]
    outcomes = list(matcher().match_many(pairs, batch=3))
    assert [outcome.number for outcome in outcomes] == [0, 1, 2, 3]
    # Three pairs of equal sizes, of three images: one batch of three. The two others: their sizes differ.
    assert sorted(shape[0] for shape in encodings) == [1, 1, 3]
    for outcome, (source, target) in zip(outcomes, pairs, strict=True):
        match = matcher().match(source, target)
        np.testing.assert_allclose(outcome.match.flow, match.flow, atol=2e-3)
        np.testing.assert_allclose(outcome.match.backward, match.backward, atol=2e-3)


def test_bad_pairs_are_named_and_passed_over(tmp_path):
    good = images((40, 50), (40, 50))
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"nothing")
    floats = np.full((40, 50), 7.0)  # its size is fine, its values are not
    pairs = [
        tuple(good),
        (tmp_path / "none.png", good[0]),
        (good[0], broken),
        (good[0], floats),
        good[0][:3, :3],
        (3, 4),
    ]
    outcomes = list(matcher().match_many([*pairs, tuple(good)], confidence=False))
    assert [outcome.match is not None for outcome in outcomes] == [True, *[False] * 5, True]
    said = [str(outcome.error) for outcome in outcomes]
    assert "Pair 1: The source image" in said[1]
    assert "none.png' does not exist" in said[1]
    assert "Pair 2: The target image" in said[2]
    assert "0..1" in said[3]
    assert outcomes[-1].match.confidence_kind == "in view"
    with pytest.raises(GlunetError, match="1 or more"):
        list(matcher().match_many(pairs, batch=0))


def test_pairs_are_asked_for_as_needed():
    image = images((40, 50))[0]
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield image, image

    outcomes = matcher().match_many(endless(), batch=2, confidence=False)
    assert next(outcomes).number == 0
    assert len(asked) <= 2 * many.AHEAD


def test_batches_shrink_where_memory_is_short(monkeypatch):
    monkeypatch.setattr(many, "available_bytes", lambda device: 600_000_000)
    assert 1 < many._fitting(matcher(), (256, 256), (256, 256), 64, True) < 8
    monkeypatch.setattr(many, "available_bytes", lambda device: 1)
    assert many._fitting(matcher(), (256, 256), (256, 256), 64, True) == 1
