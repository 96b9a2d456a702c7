"""Many pairs, and one image against many: the same answers as one by one, less work, bad pairs named."""

import numpy as np
import pytest
import torch

from glunet.errors import GlunetError
from glunet.inference import many
from glunet.network.backends.strips import StripPyramid
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
    pairs = [(small[0], small[1]), (small[2], small[0]), (small[1].copy(), small[0]), (other[0], other[1])]
    outcomes = list(matcher().match_many(pairs, batch=3))
    assert [outcome.number for outcome in outcomes] == [0, 1, 2, 3]
    # Three pairs of equal sizes, of three images: each is encoded once. The two others: their sizes differ.
    assert sum(shape[0] for shape in encodings) == 5
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


def test_no_more_than_a_batch_is_read_ahead():
    image = images((40, 50))[0]
    asked = []

    def endless():
        while True:
            asked.append(1)
            yield image, image

    outcomes = matcher().match_many(endless(), batch=2, confidence=False)
    assert next(outcomes).number == 0
    assert len(asked) == 3
    alone = matcher().match_many(endless(), batch=1, confidence=False)
    del asked[:]
    for number in range(3):
        assert next(alone).number == number
        assert len(asked) == number + 2


@pytest.mark.parametrize("kind", ["array", "tensor", "source"])
def test_an_iterator_may_use_its_memory_again(kind):
    """A camera that reads into one buffer: each pair is matched with what was in it when it was read."""
    frames, target = images(*[(40, 50)] * 5), images((40, 50))[0]
    buffer = np.empty_like(target)
    shared = {
        "array": buffer,
        "source": buffer,
        "tensor": torch.from_numpy(buffer).permute(2, 0, 1),
    }[kind]

    def camera():
        for frame in frames:
            buffer[...] = frame
            yield (target, shared) if kind == "source" else (shared, target)

    for outcome, frame in zip(matcher().match_many(camera(), confidence=False), frames, strict=True):
        pair = (target, frame) if kind == "source" else (frame, target)
        np.testing.assert_allclose(outcome.match.flow, matcher().match(*pair).flow, atol=2e-3)


def test_what_was_read_before_a_failure_is_answered():
    pair = tuple(images((40, 50), (40, 50)))

    def failing():
        yield from [pair] * 3
        raise RuntimeError("the camera is gone")

    outcomes = matcher().match_many(failing(), batch=8, confidence=False)
    assert [next(outcomes).number for _ in range(3)] == [0, 1, 2]
    with pytest.raises(RuntimeError, match="the camera is gone"):
        next(outcomes)


def test_any_failure_names_its_pair_and_the_others_go_on(monkeypatch):
    good, bad = images((40, 50))[0], images((40, 50))[0]
    made = matcher()
    whole = made.matches

    def matches(sources, targets, *rest):
        if any((np.array(source.picture) == bad).all() for source in sources):
            raise ZeroDivisionError("of all things")
        return whole(sources, targets, *rest)

    monkeypatch.setattr(made, "matches", matches)
    pairs = [(good, good), (bad, good), (good, good)]
    outcomes = list(made.match_many(pairs, confidence=False))
    assert [outcome.match is not None for outcome in outcomes] == [True, False, True]
    assert str(outcomes[1].error) == "Pair 1: ZeroDivisionError: of all things."

    class Odd:
        def __iter__(self):
            raise OSError("odd")

    outcomes = list(matcher().match_many([(good, good), Odd()], confidence=False))
    assert str(outcomes[1].error) == "Pair 1: OSError: odd."


def test_batches_shrink_where_memory_is_short(monkeypatch):
    waiting = many._Waiting(matcher(), True, matcher().matches)
    monkeypatch.setattr(many, "available_bytes", lambda device: 600_000_000)
    assert 1 < waiting._fitting((256, 256), (256, 256), 64) < 8
    monkeypatch.setattr(many, "available_bytes", lambda device: 1)
    assert waiting._fitting((256, 256), (256, 256), 64) == 1
