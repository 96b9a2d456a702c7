"""In other people's places: the same direction, order and shapes as theirs, on a known shift."""

import cv2
import numpy as np
import pytest
import torch
from skimage import data
from skimage.registration import optical_flow_tvl1
from skimage.transform import resize, warp

import glunet
from glunet.errors import GlunetError
from glunet.interop import DenseMatcher, DenseOpticalFlow, napari_layers, optical_flow
from glunet.match import Match, Provenance

RIGHT, DOWN = 6, 3  # by so much the content of the second frame lies further on


@pytest.fixture(scope="module")
def matcher() -> glunet.Matcher:
    return glunet.load(device="cpu", search="none", polish=False)


@pytest.fixture(scope="module")
def frames() -> tuple[np.ndarray, np.ndarray]:
    photo = (resize(data.astronaut(), (280, 290)) * 255).astype(np.uint8)
    return photo[10:266, 10:266], photo[10 - DOWN : 266 - DOWN, 10 - RIGHT : 266 - RIGHT]


def test_opencv(matcher, frames):
    first, second = (np.ascontiguousarray(frame[..., ::-1]) for frame in frames)
    grey = [cv2.cvtColor(frame, cv2.COLOR_BGR2GRAY) for frame in (first, second)]
    theirs = cv2.DISOpticalFlow_create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM).calc(*grey, None)
    ours = DenseOpticalFlow(matcher).calc(first, second)
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    for flow in (ours, theirs):
        np.testing.assert_allclose(np.median(flow, axis=(0, 1)), (RIGHT, DOWN), atol=0.3)
    np.testing.assert_allclose(ours, matcher.match(frames[1], frames[0]).flow, atol=1e-3)  # the colours are turned
    place = np.zeros_like(ours)
    assert DenseOpticalFlow(matcher).calc(*grey, place) is place
    np.testing.assert_allclose(np.median(place, axis=(0, 1)), (RIGHT, DOWN), atol=0.3)
    with pytest.raises(GlunetError, match="one size"):
        DenseOpticalFlow(matcher).calc(first, second[:200])


def test_scikit_image(matcher, frames):
    reference, moving = (frame.mean(axis=2).astype(np.uint8) for frame in frames)
    theirs = optical_flow_tvl1(reference / 255, moving / 255)
    ours = optical_flow(reference, moving, matcher)
    assert ours.shape == theirs.shape
    for flow in (ours, theirs):
        np.testing.assert_allclose(np.median(flow, axis=(1, 2)), (DOWN, RIGHT), atol=0.5)
    grid = np.stack(np.meshgrid(*map(np.arange, reference.shape), indexing="ij"))
    before = np.abs(moving - reference.astype(float)).mean()
    after = np.abs(warp(moving / 255, grid + ours, mode="edge") * 255 - reference).mean()
    assert after < before / 4


def test_kornia(matcher, frames):
    batch = torch.stack([torch.from_numpy(frame.copy()).permute(2, 0, 1) / 255 for frame in frames])
    out = DenseMatcher(matcher, points=200)({"image0": batch, "image1": batch.flip(0)})
    assert {name: values.ndim for name, values in out.items()} == {
        "keypoints0": 2, "keypoints1": 2, "confidence": 1, "batch_indexes": 1,
    }  # fmt: skip
    moved = out["keypoints1"] - out["keypoints0"]
    for number, sign in ((0, 1), (1, -1)):
        its = moved[out["batch_indexes"] == number]
        assert len(its) > 100
        torch.testing.assert_close(
            its.median(dim=0).values, sign * torch.tensor((RIGHT, DOWN)).float(), atol=0.3, rtol=0
        )
    assert float(out["confidence"].min()) >= 0.5
    with pytest.raises(GlunetError, match="pairs are expected"):
        DenseMatcher(matcher)({"image0": batch, "image1": batch[:1]})


def test_kornias_own_matcher_is_asked_alike(matcher):
    feature = pytest.importorskip("kornia.feature")
    theirs = feature.LoFTR(pretrained=None).eval()
    images = {"image0": torch.rand(1, 1, 64, 64), "image1": torch.rand(1, 1, 64, 72)}
    with torch.no_grad():
        expected = theirs(dict(images))
    ours = DenseMatcher(matcher)(images)
    assert ours.keys() <= expected.keys()
    assert all(ours[name].shape[1:] == expected[name].shape[1:] for name in ours)


def test_napari(matcher, frames):
    match = matcher.match(frames[1], frames[0])
    layers = napari_layers(match, every=32)
    assert [kind for _, _, kind in layers] == ["image", "image", "image", "vectors"]
    begins, lengths = np.moveaxis(layers[-1][0], 1, 0)
    np.testing.assert_allclose(np.median(lengths, axis=0), (DOWN, RIGHT), atol=0.3)
    assert begins.max() <= 255
    with pytest.raises(GlunetError, match="1 or more"):
        napari_layers(match, every=0)
    with pytest.raises(GlunetError, match="does not know its images"):
        napari_layers(Match(match.flow, match.source_size, Provenance("none")))


def test_napari_takes_them(matcher, frames):
    layers = pytest.importorskip("napari.layers")
    for layer, (values, settings, kind) in zip(
        ("target", "source, warped", "confidence", "flow"), napari_layers(matcher.match(*frames)), strict=True
    ):
        assert layers.Layer.create(values, settings, kind).name == layer
