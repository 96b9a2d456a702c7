"""Polish: flows that are known to a fraction of a pixel, what is left alone, and what is borrowed."""

import cv2
import numpy as np
import pytest

from glunet.inference import polish, search
from glunet.inference.likeness import grid, views
from textured import SIZE, constant, scene, seen_through, similarity
from untrained import matcher


@pytest.mark.parametrize("depth", [8, 16])
def test_polish_halves_the_error_of_a_known_shift_below_a_pixel(depth):
    source = scene(8, (160, 200))
    if depth == 16:  # 12 bits in 16: a sixteenth of the range
        source = source / 16
    true = np.array(((1, 0, 10.4), (0, 1, 8.7), (0, 0, 1.0)))
    pair = views(source, seen_through(source, true, SIZE))
    rough = constant(10.4 + 0.6, 8.7 - 0.5)
    error = np.linalg.norm(polish.refined(rough, pair) - (10.4, 8.7), axis=-1)
    assert polish.looks_alike(rough, pair)
    assert np.median(error) < 0.5 * np.hypot(0.6, 0.5) / 2
    assert (error > np.hypot(0.6, 0.5) + 0.3).mean() < 0.01


def test_polish_leaves_two_different_things_alone():
    pair = views(scene(9), scene(10))
    assert not polish.looks_alike(constant(0, 0), pair)
    match = matcher(polish="auto").match(scene(9) / 255, scene(10) / 255)
    np.testing.assert_array_equal(match.flow, matcher().match(scene(9) / 255, scene(10) / 255).flow)


def test_polish_never_leads_out_of_the_source_nor_to_what_is_not_valid():
    source = scene(11, (160, 200))
    valid = np.ones((160, 200), bool)
    valid[:, :60] = False
    pair = views(source, source[20:140, 20:180], valid)
    rough = constant(20.7, 19.4)
    found = polish.refined(rough, pair)
    before, after = pair.in_view(rough), pair.in_view(found)
    assert (after | ~before).all()
    np.testing.assert_array_equal(found[~before], rough[~before])


def test_what_has_moved_before_a_still_plane_gets_its_own_flow_back():
    """A square that moved by 12 px; a flow whose edge lies 6 px too far out is cut back to it."""
    target = scene(12, (120, 160))
    source = target.copy()
    source[40:80, 72:112] = target[40:80, 60:100]
    flow = np.zeros((*SIZE, 2), np.float32)
    flow[34:86, 54:106] = (12, 0)
    true = np.zeros((*SIZE, 2), np.float32)
    true[40:80, 60:100] = (12, 0)
    seen = np.ones(SIZE, bool)
    seen[40:80, 100:112] = False  # covered in the source
    found = polish.refined(flow, views(source, target))
    wrong = [(np.linalg.norm(f - true, axis=-1) > 3)[seen].sum() for f in (flow, found)]
    assert wrong[1] < wrong[0] / 2


def test_on_a_plane_seen_from_the_side_a_borrowed_flow_is_that_of_the_pixel_itself():
    """With a zoom of 1.5 the flow six pixels away is three pixels off."""
    source = scene(13, (240, 320))
    true = similarity(20, 1.5, SIZE, (240, 320))
    true[2, :2] = 1e-4, -2e-4
    right = search.homography_flow(true, SIZE)
    wrong = right.copy()
    wrong[50:70, 60:66] += 4
    pair = views(source, seen_through(source, true, SIZE))
    found = np.linalg.norm(polish.borrow(wrong, pair, true) - right, axis=-1)
    assert (found < 0.1).mean() > 0.99
    assert (found[50:70, 60:66] < 0.1).mean() > 0.9


@pytest.mark.parametrize("source_size", [SIZE, (240, 320)])
def test_polish_straightens_a_flow_that_waves_on_a_plane_seen_from_the_side(source_size):
    """Turned, nearer and tilted, so that the flow itself is not smooth; noise, so that hardly a pixel says much."""
    source = cv2.GaussianBlur(scene(14, source_size), (0, 0), 2) / 4 + 90  # as a wall in the shade
    true = similarity(12, 0.8 * source_size[0] / SIZE[0], SIZE, source_size)
    true[2, :2] = 6e-4, -3e-4
    noise = np.random.default_rng(0)
    images = (image + noise.normal(0, 2, image.shape) for image in (source, seen_through(source, true, SIZE)))
    pair = views(*(image.clip(0, 255).astype(np.float32) for image in images))
    right = search.homography_flow(true, SIZE)
    rough = right + np.sin(grid(SIZE)[..., ::-1] / 8).astype(np.float32)
    given = rough.copy()
    found = polish.refined(rough, pair)
    np.testing.assert_array_equal(rough, given)
    seen = pair.in_view(right) & pair.in_view(rough)
    before, after = (np.linalg.norm(flow - right, axis=-1)[seen] for flow in (rough, found))
    assert after.mean() < before.mean() / 3


def test_the_way_back_is_that_of_the_pair_exchanged_polished_as_well():
    shown, moved = scene(15) / 255, scene(15, (140, 180))[7:127, 9:169] / 255
    made = matcher(polish=True)
    back = made.match(shown, moved, backward=True).reverse.flow
    other = made.match(moved, shown)
    assert (np.linalg.norm(back - other.flow, axis=-1) < 0.01).mean() > 0.99
    plain = matcher(polish=False).match(moved, shown)
    assert (np.linalg.norm(other.flow - plain.flow, axis=-1) > 0.1).mean() > 0.05, "polish has something to do"
