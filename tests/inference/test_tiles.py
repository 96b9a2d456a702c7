"""Tiles: the same answer as the whole image at once, in less memory, or a sentence."""

import numpy as np
import pytest
import torch

from glunet.errors import GlunetError
from glunet.inference import tiles
from glunet.inference.frames import prepare
from glunet.matcher import Matcher
from glunet.network.family import build, configure
from untrained import matcher, network

RANDOM = np.random.default_rng(0)


def smooth(height: int, width: int) -> torch.Tensor:
    """A picture with structure at all scales."""
    layers = [
        torch.nn.functional.interpolate(
            torch.from_numpy(RANDOM.random((1, 3, height // step + 2, width // step + 2))).float(), (height, width)
        )
        for step in (2, 8, 40)
    ]
    return 255 * sum(layers) / 3


@pytest.mark.parametrize(("size", "side", "margin"), [((64, 96), 32, 8), ((10, 7), 16, 4), ((65, 33), 32, 48)])
def test_tiles_cover_the_plane_once(size, side, margin):
    count, around = np.zeros(size, int), np.zeros(size, int)
    for place in tiles.places(size, side, margin):
        count[place.kept()] += 1
        around[place.all()] += 1
        whole = np.arange(size[0] * size[1]).reshape(size)
        assert np.array_equal(whole[place.all()][place.inner()], whole[place.kept()])
    assert (count == 1).all()
    assert (around >= 1).all()


def test_features_are_those_of_the_whole_image():
    image, image_256 = prepare(smooth(320, 400), (320, 400))
    with torch.inference_mode():
        made = network()
        whole, tiled = made.encode(image, image_256), tiles.encode(made, 128, image, image_256)
    for name, level in whole._asdict().items():
        torch.testing.assert_close(getattr(tiled, name), level, atol=1e-3, rtol=1e-3, msg=name)


@pytest.mark.parametrize("extra", [0, 1])
def test_flow_is_that_of_the_whole_image(extra):
    """With random weights it is anything but smooth, and still no seam is to be found."""
    images = [prepare(smooth(384, 512), (384, 512)) for _ in range(2)]
    with torch.inference_mode():
        target, source = (network().encode(*image) for image in images)
        whole = network().decode(target, source, extra).flow1
        tiled = tiles.decode(network(), target, source, extra, 256)
    assert whole.std() > 1
    # What is left is rounding, by the shapes of the convolutions: a thousandth of the flow (its values reach hundreds),
    # at the seams as everywhere.
    apart = (whole - tiled).abs()
    for part in (apart, apart[..., 63:65], apart[..., 63:65, :]):
        assert part.mean() < 1e-3 * whole.std()


def test_max_memory_decides(caplog, monkeypatch):
    monkeypatch.setattr(tiles, "TILES", (256,))
    source, target = (smooth(*size)[0] / 255 for size in ((300, 420), (400, 600)))
    made = Matcher(network(), "untrained")
    whole = made.match(source, target)
    assert made.tile((300, 420), (400, 600)) is None
    with caplog.at_level("INFO", "glunet"):
        tiled = made.match(source, target, max_memory=590_000_000)
    assert "in tiles of 256" in caplog.text
    np.testing.assert_allclose(tiled.flow, whole.flow, atol=0.1)
    np.testing.assert_allclose(tiled.backward, whole.backward, atol=0.1)
    for few in (1000, 0):
        with pytest.raises(GlunetError, match=r"available|positive|allows"):
            made.match(source, target, max_memory=few)


def test_pyramid_and_passes_in_tiles_are_those_of_the_whole(monkeypatch):
    monkeypatch.setattr(tiles, "TILES", (256,))
    source, target = (smooth(*size)[0] / 255 for size in ((300, 420), (400, 600)))
    beyond = matcher(pyramid=True, passes=2)
    whole = beyond.match(source, target, confidence=False).flow
    tiled = beyond.match(source, target, confidence=False, max_memory=590_000_000).flow
    np.testing.assert_allclose(tiled, whole, atol=0.1)
    assert np.abs(whole - matcher().match(source, target, confidence=False).flow).mean() > 1


def test_tiles_get_smaller_with_the_memory():
    size = (6000, 8000)
    sides = [tiles.fitting_side(size, size, int(gb * 1e9)) for gb in (24, 16, 13, 5)]
    assert sides[0] == 2048
    assert sides[0] > sides[1] > sides[2]
    assert sides[3] is None


def test_other_networks_have_no_tiles():
    narrow = Matcher(build(configure("local-net")), "local")
    with pytest.raises(GlunetError, match="make the images smaller"):
        narrow.tile((4000, 4000), (4000, 4000), max_memory=10**9)
