"""From images to a match: units, sizes, batches, repeatability, memory. The network has random weights."""

import logging

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

import glunet
from glunet import matcher as matcher_module
from glunet.errors import GlunetError
from glunet.inference import memory
from glunet.inference.frames import finish, prepare
from glunet.match import Match
from glunet.network.glunet import Flows
from untrained import matcher, network

RANDOM = np.random.default_rng(0)
SOURCE = RANDOM.integers(0, 256, (256, 256, 3)).astype(np.uint8)
TARGET = RANDOM.integers(0, 256, (256, 256, 3)).astype(np.uint8)


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.transpose(2, 0, 1).copy())


@pytest.fixture(scope="module")
def match() -> Match:
    return matcher().match(SOURCE, TARGET)


def test_match_is_the_networks_flow(match):
    """For a target of the frame's size nothing but the network and the resize of its answer is left."""
    assert match.flow.shape == (256, 256, 2)
    assert match.flow.dtype == np.float32
    assert match.flow.flags.c_contiguous
    assert match.source_size == (256, 256)
    assert np.ptp(match.flow, axis=(0, 1)).min() > 1  # random weights answer with anything but a constant
    target, source = (prepare(tensor(image)[None].float(), (256, 256)) for image in (TARGET, SOURCE))
    with torch.no_grad():
        expected = finish(network()(target[0], source[0], target[1], source[1]).flow1, (256, 256))
    np.testing.assert_allclose(match.flow.transpose(2, 0, 1), expected[0], atol=1e-3)


def test_provenance(match):
    assert match.metadata()["weights"] == "untrained"
    assert match.metadata()["sha256"] == "ab" * 32
    assert match.metadata()["settings"] == {"uint8_truncation": False, "iterative_refinement": True}
    assert matcher(uint8_truncation=True).provenance.settings["uint8_truncation"] is True


def test_two_runs_are_bit_equal_and_inputs_of_any_kind_agree(match):
    again = matcher().match(tensor(SOURCE), Image.fromarray(TARGET))
    assert np.array_equal(again.flow, match.flow)


def test_doubling_the_source_doubles_the_source_coordinates(match):
    """Pixel areas are aligned: x + 0.5 doubles. The frame's content is the same, since areas are averaged."""
    doubled = matcher().match(SOURCE.repeat(2, axis=0).repeat(2, axis=1), TARGET)
    assert doubled.source_size == (512, 512)
    assert doubled.flow.shape == match.flow.shape
    np.testing.assert_allclose(doubled.map + 0.5, 2 * (match.map + 0.5), atol=2e-2)
    wide = matcher().match(SOURCE.repeat(3, axis=1), TARGET)
    np.testing.assert_allclose(wide.map + 0.5, (match.map + 0.5) * (3, 1), atol=2e-2)


def test_batch_equals_loop():
    """Also for a target that is not of the frame's size and a source of another."""
    sources = torch.from_numpy(RANDOM.integers(0, 256, (2, 3, 50, 70))).to(torch.uint8)
    targets = torch.from_numpy(RANDOM.integers(0, 256, (2, 3, 60, 40))).to(torch.uint8)
    batch = matcher().flow(sources, targets)
    assert batch.shape == (2, 2, 60, 40)
    assert batch.dtype == torch.float32
    for i in range(2):
        alone = matcher().flow(sources[i : i + 1], targets[i : i + 1])
        torch.testing.assert_close(batch[i : i + 1], alone, atol=1e-3, rtol=1e-4)
    one = matcher().match(sources[1], targets[1])
    np.testing.assert_allclose(one.flow.transpose(2, 0, 1), batch[1], atol=1e-3, rtol=1e-4)
    floats = matcher().flow(sources[:1].float() / 255, targets[:1].double() / 255)
    torch.testing.assert_close(floats, batch[:1], atol=1e-2, rtol=1e-3)


def test_settings_matter():
    """Truncated grey levels change the answer; extra levels do not where the target is small."""
    images = [RANDOM.integers(0, 256, (40, 90, 3)).astype(np.uint8) for _ in range(2)]
    plain = matcher().match(*images).flow
    assert not np.array_equal(matcher(uint8_truncation=True).match(*images).flow, plain)
    assert np.array_equal(matcher(iterative_refinement=False).match(*images).flow, plain)


def test_pyramid_and_passes_are_off_unless_asked_for():
    images = [RANDOM.integers(0, 256, (60, 600, 3)).astype(np.uint8) for _ in range(2)]
    paper, small = matcher().match(*images), [image[:, :400] for image in images]
    assert not {"pyramid", "passes"} & paper.metadata()["settings"].keys()
    for settings in ({"pyramid": True}, {"passes": 2}):
        match = matcher(**settings).match(*images)
        assert match.metadata()["settings"].items() >= settings.items()
        assert np.abs(match.flow - paper.flow).mean() > 0.1
        again = matcher(**settings).with_(speed="exact")
        assert again.match(*images).metadata()["settings"] == match.metadata()["settings"]
    assert np.array_equal(matcher(pyramid=True).match(*small).flow, matcher().match(*small).flow)
    with pytest.raises(GlunetError, match="0 passes"):
        matcher(passes=0)


def test_small_motion_is_sharper_where_the_images_are_enlarged():
    """Of a photograph moved by known parts of a pixel; in pixels of the images as they are, there and back."""
    photo = cv2.resize(skimage.data.astronaut()[100:400, 100:400], (200, 200), interpolation=cv2.INTER_AREA)
    move = np.float32(((1, 0, 1.4), (0, 1, -0.7)))
    target = cv2.warpAffine(photo, move, (200, 200), flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP)
    errors = {}
    for side in (0, 640):
        alone = glunet.load(search="none", polish=False, enlarge_to=side)
        match = alone.match(photo, target, backward=True)
        assert match.flow.shape == match.backward.shape == (200, 200, 2)
        inner = (slice(20, -20), slice(20, -20))
        errors[side] = np.linalg.norm(match.flow - (1.4, -0.7), axis=-1)[inner].mean()
        assert np.linalg.norm(match.backward - (-1.4, 0.7), axis=-1)[inner].mean() < 2 * errors[side]
        assert ("enlarge_to" in match.metadata()["settings"]) == (side > 0)
    assert errors[640] < 0.7 * errors[0]
    with pytest.raises(GlunetError, match="another matcher"):
        alone.with_(enlarge_to=0).match(alone.encode(photo), target)


def test_pyramid_of_a_batch_and_of_encoded_images_is_that_of_a_pair():
    images = torch.from_numpy(RANDOM.integers(0, 256, (3, 3, 56, 600)).astype(np.uint8))
    beyond = matcher(pyramid=True, passes=2)
    one = beyond.match(images[0], images[1])
    many = [outcome.match for outcome in beyond.match_many([(images[0], images[1]), (images[2], images[1])])]
    again = beyond.match(beyond.encode(images[0]), beyond.encode(images[1]))
    flow = beyond.flow(images[:1], images[1:2])[0].numpy().transpose(1, 2, 0)
    # Rounding by the shapes of the batches, made larger from frame to frame by random weights.
    for other in (many[0].flow, again.flow, flow):
        np.testing.assert_allclose(other, one.flow, atol=0.05, rtol=1e-3)
    np.testing.assert_allclose(many[0].backward, one.backward, atol=0.05, rtol=1e-3)


def test_extra_levels_for_large_targets(monkeypatch):
    asked = []

    def decode(target: torch.Tensor, source: torch.Tensor, extra_levels: int) -> Flows:
        asked.append(extra_levels)
        still = torch.zeros(len(target), 2, target.shape[-2] // 4, target.shape[-1] // 4)
        return Flows(still, still, (), still, still)

    monkeypatch.setattr(network(), "encode", lambda image, image_256: image)
    monkeypatch.setattr(network(), "decode", decode)
    for size in (1080, 1100, 2200):
        match = matcher().match(np.zeros((40, 40), np.uint8), np.zeros((32, size), np.uint8), confidence=False)
        assert match.flow.shape == (32, size, 2)
    images = np.zeros((40, 40), np.uint8), np.zeros((32, 1100), np.uint8)
    matcher(iterative_refinement=False).match(*images, confidence=False)
    assert asked == [0, 1, 2, 0]
    np.testing.assert_allclose(match.map[5, 7], (7.5 * 40 / 2200 - 0.5, 5.5 * 40 / 32 - 0.5), atol=1e-4)  # no motion


def test_nothing_of_torch_is_changed(match):
    before = torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()
    state = torch.random.get_rng_state()
    flow = matcher().flow(tensor(SOURCE)[None], tensor(TARGET)[None])
    assert (torch.get_num_threads(), torch.is_grad_enabled(), torch.get_default_dtype()) == before
    assert torch.equal(torch.random.get_rng_state(), state)
    assert not flow.requires_grad
    assert not network().training


def test_says_what_it_does_to_the_log_only(caplog, capsys):
    image = np.zeros((32, 32), np.uint8)
    with caplog.at_level(logging.DEBUG, "glunet"):
        matcher().match(image, image)
    assert "frame (256, 256)" in caplog.text
    assert capsys.readouterr() == ("", "")


BATCH = torch.zeros(2, 3, 40, 50, dtype=torch.uint8)


@pytest.mark.parametrize(
    ("source", "target", "expected"),
    [
        (BATCH[0], BATCH, "B x 3 x H x W"),
        (BATCH[:, :1], BATCH, "source batch"),
        (BATCH, BATCH[:, :, :20], "target batch"),
        (BATCH[:1], BATCH, "pairs"),
        (BATCH[:0], BATCH[:0], "B x 3 x H x W"),
        (BATCH.numpy(), BATCH, "ndarray"),
        (BATCH.to("meta"), BATCH, "is on meta"),
        (BATCH.float() + 3, BATCH, "0..1"),
        (BATCH.long(), BATCH, "int64"),
        (torch.tensor(3.0), BATCH, "B x 3 x H x W"),
    ],
)
def test_flow_refuses(source, target, expected):
    with pytest.raises(GlunetError, match=expected):
        matcher().flow(source, target)


def test_too_large_is_refused_before_anything_is_decoded(tmp_path, monkeypatch):
    path = tmp_path / "large.png"
    Image.new("1", (14000, 12000)).save(path)
    monkeypatch.setattr(matcher_module, "open_image", None)  # must not be reached
    monkeypatch.setattr(matcher_module, "available_bytes", lambda device: 3_000_000_000)
    expected = r"^A target of 14000 x 12000 and a source of 256 x 256 .* 3\.0 GB is available on cpu: make the images"
    with pytest.raises(GlunetError, match=expected):
        matcher().match(SOURCE, path)
    with pytest.raises(GlunetError, match="a source of 14000 x 12000"):
        matcher().match(path, TARGET)
    endless = np.broadcast_to(np.uint8(0), (300000, 300000, 3))
    with pytest.raises(GlunetError, match="300000"):
        matcher().match(endless, TARGET)
    with pytest.raises(GlunetError, match="4 pairs"):
        matcher().flow(BATCH.repeat(2, 1, 30, 30), BATCH.repeat(2, 1, 30, 30))


def test_memory_runs_out_all_the_same(monkeypatch):
    def refuse(*args: object, **options: object) -> None:
        raise RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes.")

    monkeypatch.setattr(network(), "encode", refuse)
    with pytest.raises(GlunetError, match="no more is available"):
        matcher().match(SOURCE, TARGET)


def test_available_memory_is_told():
    available = memory.available_bytes(torch.device("cpu"))
    assert available is None or 10_000_000 < available < 1e15
    assert memory.human(1.25e9) == "1.2 GB"
    assert memory.human(3e7) == "30 MB"


def test_estimate_grows_with_what_is_large():
    small = memory.needed_bytes((32, 32), (32, 32), 1)
    assert memory.needed_bytes((32, 32), (64, 64), 1) - small < 1e6  # one frame for all below 256
    assert memory.needed_bytes((520, 520), (520, 520), 1) > 320e6  # the measured peak
    assert memory.needed_bytes((520, 520), (520, 520), 8) > 4 * memory.needed_bytes((520, 520), (520, 520), 1)
