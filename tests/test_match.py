"""A Match: its map, single points, warping, and what it writes down."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glunet import __version__
from glunet.errors import GlunetError
from glunet.flow.files import read_flow
from glunet.match import Match, Provenance

PROVENANCE = Provenance("test", "ab" * 32, {"uint8_truncation": False})


def a_match(flow: np.ndarray, source_size: tuple[int, int] | None = None) -> Match:
    return Match(flow.astype(np.float32), source_size or flow.shape[:2], PROVENANCE)


def constant(x: float, y: float, height: int = 40, width: int = 50) -> np.ndarray:
    return np.broadcast_to(np.array((x, y), np.float32), (height, width, 2)).copy()


def test_map_and_in_view():
    match = a_match(constant(3, -2), (45, 51))
    assert match.target_size == (40, 50)
    assert match.map.dtype == np.float32
    assert match.map.shape == (40, 50, 2)
    assert match.map[10, 20].tolist() == [23, 8]
    assert match.in_view.shape == (40, 50)
    assert match.in_view.sum() == 38 * 48  # two rows above the source, two columns right of it


@given(st.floats(-0.5, 49.5, width=32), st.floats(-0.5, 39.5, width=32))
def test_at_is_exact_for_an_affine_flow(x, y):
    """Bilinear sampling reproduces what is linear in x and y, up to the border's centres."""
    rows, columns = np.mgrid[:40, :50]
    match = a_match(np.stack((31 + 0.25 * columns - 0.5 * rows, 2 * rows + 7), -1), (200, 200))
    near_x, near_y = np.clip(x, 0, 49), np.clip(y, 0, 39)
    expected = (x + 31 + 0.25 * near_x - 0.5 * near_y, y + 2 * near_y + 7)
    found, confidence = match.at(np.array([[x, y]]))
    np.testing.assert_allclose(found, [expected], atol=1e-3)
    assert confidence == pytest.approx(1)


def test_at_agrees_with_the_map_at_pixels():
    match = a_match(np.random.default_rng(0).normal(0, 9, (40, 50, 2)))
    y, x = np.mgrid[:40, :50]
    found, confidence = match.at(np.stack((x.ravel(), y.ravel()), -1))
    assert found.dtype == confidence.dtype == np.float32
    np.testing.assert_allclose(confidence.reshape(40, 50), match.in_view, atol=1e-3)
    seen = match.in_view
    np.testing.assert_allclose(found.reshape(40, 50, 2)[seen], match.map[seen], atol=1e-3)
    assert np.isnan(found[confidence == 0]).all()
    nothing = match.at(np.zeros((0, 2)))
    assert nothing[0].shape == (0, 2)
    assert nothing[1].shape == (0,)


@pytest.mark.parametrize(
    "points", [[[50, 3]], [[3, 40]], [[-1, 3]], [[np.nan, 3]], [3, 4], [[1, 2, 3]], [["a", "b"]], [[0, 0], [1e30, 0]]]
)
def test_at_refuses(points):
    with pytest.raises(GlunetError, match=r"^Point"):
        a_match(constant(0, 0)).at(np.array(points))


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int32, np.float16, np.float32, np.float64, bool])
@pytest.mark.parametrize("channels", [(), (1,), (3,), (7,)])
def test_warp_moves_whole_pixels(dtype, channels):
    image = (np.random.default_rng(0).random((45, 60, *channels)) * 200).astype(dtype)
    warped = a_match(constant(3, 5), (45, 60)).warp(image)
    assert warped.dtype == image.dtype
    assert warped.flags.c_contiguous
    slack = 2e-3 if warped.dtype.kind == "f" else 0  # positions are float32, so that weights are off by 1e-5
    np.testing.assert_allclose(warped, image[5:45, 3:53], rtol=slack, atol=slack)
    warped = a_match(constant(-3, 0), (45, 60)).warp(image)
    np.testing.assert_allclose(warped[:, 3:], image[:40, :47], rtol=slack, atol=slack)
    assert not warped[:, :3].any()


def test_warp_between_pixels_is_bilinear_and_rounded():
    image = np.tile(np.array([0, 3, 255], np.uint8), (40, 20))
    assert a_match(constant(0.5, 0, 40, 50), (40, 60)).warp(image)[0, :2].tolist() == [2, 129]


def test_warp_takes_pictures(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "a.png")
    match = a_match(constant(0, 0))
    for given_image in (tmp_path / "a.png", Image.fromarray(image), image):
        assert np.array_equal(match.warp(given_image), image)


def test_warp_refuses(tmp_path):
    match = a_match(constant(0, 0))
    for image in (np.zeros((50, 40), np.uint8), np.zeros((40, 50), object), np.zeros(40), np.zeros((40, 50), complex)):
        with pytest.raises(GlunetError, match="mage to warp"):
            match.warp(image)
    with pytest.raises(GlunetError, match="does not exist"):
        match.warp(tmp_path / "none.png")


@pytest.mark.parametrize("suffix", [".flo", ".png", ".npz"])
def test_files_carry_provenance(tmp_path, suffix):
    match = a_match(constant(2, 3), (60, 70))
    written = match.save(tmp_path / f"flow{suffix}")
    assert sorted(written) == sorted(tmp_path.iterdir())
    back = read_flow(written[0])
    assert np.array_equal(back.flow, match.flow)
    assert back.metadata == {
        "glunet": __version__,
        "weights": "test",
        "sha256": "ab" * 32,
        "settings": {"uint8_truncation": False},
        "target_size": [40, 50],
        "source_size": [60, 70],
    }
    assert json.loads(json.dumps(match.metadata())) == back.metadata


def test_save_refuses_what_kitti_cannot_hold(tmp_path):
    with pytest.raises(GlunetError, match=r"600\.0 px.*\.npz"):
        a_match(constant(600, 0)).save(tmp_path / "flow.png")
    assert list(tmp_path.iterdir()) == []
