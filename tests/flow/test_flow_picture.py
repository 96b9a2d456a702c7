"""Colours of flow, and the sheet."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from glunet.flow.picture import UNKNOWN, WHEEL, checkerboard, flow_to_rgb, overlay, sheet, wheel_picture


def colour(x: float, y: float, longest: float | None = 1.0) -> list[int]:
    return flow_to_rgb(np.array([[[x, y]]], np.float32), longest)[0, 0].tolist()


def test_wheel_is_the_published_one():
    assert WHEEL.shape == (55, 3)
    for position, expected in zip(
        (0, 15, 21, 25, 36, 49), ("ff0000", "ffff00", "00ff00", "00ffff", "0000ff", "ff00ff"), strict=True
    ):
        assert WHEEL[position].tolist() == list(bytes.fromhex(expected))
    assert np.abs(np.diff(WHEEL, axis=0)).sum(axis=1).max() <= 64  # no jump within, nor at the seam
    assert np.abs(WHEEL[0] - WHEEL[-1]).sum() <= 64


def test_directions_and_lengths():
    assert colour(0, 0) == [255, 255, 255]
    assert colour(1, 0) == [255, 0, 0]
    red, green, blue = colour(0, 1)  # down: towards yellow
    assert red == 255
    assert green > 200
    assert blue == 0
    assert colour(0.5, 0)[0] == 255
    assert colour(0.5, 0)[1] in (127, 128)
    assert colour(2, 0) == [191, 0, 0]  # beyond the longest: darker


@given(st.floats(0.01, 100), st.floats(0, 6.28), st.floats(0.5, 50))
def test_colours_depend_on_the_ratio_alone(length, angle, factor):
    flow = np.array([[[np.cos(angle), np.sin(angle)], [0.3, 0.2]]]) * length
    again = flow_to_rgb(flow * factor, max=1.5 * length * factor)
    assert np.abs(flow_to_rgb(flow, max=1.5 * length).astype(int) - again).max() <= 1


def test_longest_is_found_and_unknown_is_grey():
    flow = np.zeros((3, 4, 2), np.float32)
    assert (flow_to_rgb(flow) == 255).all()
    flow[0, 0] = (8, 0)
    flow[1, 1] = np.nan
    flow[1, 2] = (np.inf, 0)
    flow[2, 2] = (1e9, 0)
    valid = np.ones((3, 4), bool)
    valid[2, 2] = False
    picture = flow_to_rgb(flow, valid=valid)
    assert picture.dtype == np.uint8
    assert picture[0, 0].tolist() == [255, 0, 0]
    for y, x in ((1, 1), (1, 2), (2, 2)):
        assert tuple(picture[y, x]) == UNKNOWN
    assert not (np.abs(WHEEL - UNKNOWN).max(axis=1) < 60).any()


def test_checkerboard_and_overlay():
    black, white = np.zeros((40, 80, 3), np.uint8), np.full((40, 80, 3), 255, np.uint8)
    board = checkerboard(black, white, squares=8)
    assert (board[:10, :10] == 0).all()
    assert (board[:10, 10:20] == 255).all()
    assert (board[10:20, :10] == 255).all()
    assert overlay(black, white)[0, 0].tolist() == [0, 255, 255]
    assert overlay(white, black)[0, 0].tolist() == [255, 0, 0]
    image = np.random.default_rng(0).integers(0, 256, (40, 80, 3)).astype(np.uint8)
    assert np.ptp(overlay(image, image), axis=2).max() == 0


def test_wheel_shows_the_colours_it_explains():
    wheel = np.asarray(wheel_picture(101))
    assert wheel[0, 0, 3] == 0
    for x, y in ((0.7, 0.0), (-0.5, 0.3), (0.1, -0.8)):
        seen = wheel[round(50 + 50.5 * y), round(50 + 50.5 * x)]
        assert seen[3] == 255
        assert np.abs(seen[:3].astype(int) - colour(x, y)).max() <= 12


@pytest.mark.parametrize(("source", "target"), [((60, 80), (60, 80)), ((50, 200), (40, 300)), ((200, 40), (300, 32))])
@pytest.mark.parametrize("seen", [0.0, 0.5, 1.0])
def test_sheet_holds_any_two_sizes(source, target, seen):
    random = np.random.default_rng(0)
    images = [random.integers(0, 256, (*size, 3)).astype(np.uint8) for size in (source, target, target)]
    flow = random.normal(0, 5, (*target, 2)).astype(np.float32)
    in_view = np.zeros(target, bool)
    in_view[: round(seen * target[0])] = True
    page = sheet(*images, flow, in_view, note="a note " * 20)
    assert isinstance(page, Image.Image)
    assert page.mode == "RGB"
    assert max(page.size) < 2500
    assert min(page.size) > 300
    assert (np.asarray(page)[0] == 255).all()  # nothing reaches over the margin
    assert (np.asarray(page)[:, -10:] == 255).all()


def test_sheet_of_no_motion():
    image = np.full((64, 64, 3), 90, np.uint8)
    page = np.asarray(sheet(image, image, image, np.zeros((64, 64, 2), np.float32), np.ones((64, 64), bool)))
    assert (page == 90).all(axis=2).mean() > 0.3
