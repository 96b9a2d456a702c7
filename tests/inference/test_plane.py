"""Scenes that are one plane: what is brought onto it, and what is not."""

from functools import partial

import numpy as np
import pytest
import skimage.data

import glunet
from glunet import matcher
from glunet.inference import plane, search
from glunet.inference.hypotheses import keypoints
from glunet.inference.likeness import grid, views
from textured import constant, scene, seen_through, similarity

SIZE = (240, 320)
TRUE = similarity(7, 1.1, SIZE, SIZE)
EVERYWHERE = np.ones(SIZE, np.float32)  # confidence


def wall():
    """A textured plane seen twice, and its flow."""
    source = scene(3, SIZE)
    return views(source, seen_through(source, TRUE, SIZE)), plane.homography_flow(TRUE, SIZE)


def noisy(flow: np.ndarray, pixels: float) -> np.ndarray:
    return flow + np.random.default_rng(0).normal(0, pixels, flow.shape).astype(np.float32)


def no_keypoints(simulate: bool) -> tuple[np.ndarray, np.ndarray]:
    return np.empty((0, 2)), np.empty((0, 2))


def test_a_wall_gets_the_flow_of_its_plane():
    seen, flow = wall()
    rough = noisy(flow, 0.4)
    sure = EVERYWHERE.copy()
    rough[:60, :80] += 25  # lost, and not sure of it
    sure[:60, :80] = 0
    found = plane.flattened(search.OneWay(rough, sure), seen, partial(keypoints, seen))
    assert found is not None
    assert found.dtype == np.float32
    inside = seen.in_view(flow)
    assert np.linalg.norm(found - flow, axis=-1)[inside].mean() < 0.1 < np.linalg.norm(rough - flow, axis=-1).mean()
    assert np.linalg.norm(found - flow, axis=-1)[:60, :80][inside[:60, :80]].max() < 1


def test_what_is_sure_to_lie_elsewhere_stays():
    """The street before the wall."""
    seen, flow = wall()
    rough = noisy(flow, 0.4)
    rough[210:] += (0, 9)
    found = plane.flattened(search.OneWay(rough, EVERYWHERE), seen, partial(keypoints, seen))
    assert found is not None
    street = seen.in_view(rough)[210:]
    np.testing.assert_array_equal(found[210:][street], rough[210:][street])
    assert np.linalg.norm(found - flow, axis=-1)[:210][seen.in_view(flow)[:210]].mean() < 0.2


def test_what_slid_on_the_plane_is_not_smoothed_away():
    """A part of the ground that moved by little, seen from above: nearer to the plane than what is called off it."""
    source = scene(3, SIZE)
    flow = constant(2, 1, SIZE)
    flow[80:160, 120:220] += (1.2, 0.8)
    seen = views(source, search.warp(source, flow))
    found = plane.flattened(search.OneWay(noisy(flow, 0.1), EVERYWHERE), seen, partial(keypoints, seen))
    assert found is not None
    assert np.linalg.norm(found - flow, axis=-1)[20:60, 20:-20].mean() < 0.2, "the ground is a plane"
    slid = found[95:145, 135:205] - (2, 1)
    assert np.abs(slid.mean(axis=(0, 1)) - (1.2, 0.8)).max() < 0.1


def test_a_scene_in_space_keeps_its_flow_though_all_of_it_is_near_a_plane():
    """Waves of less than a pixel, which keypoints see and a homography does not."""
    source = scene(3, SIZE)
    x, y = grid(SIZE)[..., 0], grid(SIZE)[..., 1]
    waves = np.dstack((0.8 * np.sin(y / 15), 0.8 * np.sin(x / 20))).astype(np.float32)
    flow = waves + constant(3, 1, SIZE)
    target = search.warp(source, flow)
    seen = views(source, target)
    assert plane._fitted(flow, EVERYWHERE > 0, 1.0, seen) is not None
    assert plane.flattened(search.OneWay(flow, EVERYWHERE), seen, partial(keypoints, seen)) is None


def test_without_keypoints_there_is_no_plane():
    seen, flow = wall()
    assert plane.flattened(search.OneWay(noisy(flow, 0.4), EVERYWHERE), seen, no_keypoints) is None
    assert plane.flattened(search.OneWay(flow, 0 * EVERYWHERE), seen, partial(keypoints, seen)) is None, (
        "nothing is sure"
    )
    unrelated = views(scene(4, SIZE), scene(5, SIZE))
    assert plane.flattened(search.OneWay(flow, EVERYWHERE), unrelated, partial(keypoints, unrelated)) is None


def test_simulated_views_are_asked_where_plain_keypoints_are_few():
    seen, flow = wall()
    asked = []

    def few(simulate: bool) -> tuple[np.ndarray, np.ndarray]:
        asked.append(simulate)
        target, source = keypoints(seen)
        return (target, source) if simulate else (target[:5], source[:5])

    assert plane.flattened(search.OneWay(noisy(flow, 0.4), EVERYWHERE), seen, few) is not None
    assert asked == [False, True]


def test_a_matcher_does_it_where_it_is_asked_to():
    """A photograph of a wall, turned by a little and noisy: as the package's weights say, and without."""
    bricks = skimage.data.brick()[:300, :400]
    matrix = similarity(4, 1.05, bricks.shape, bricks.shape)
    shown = seen_through(bricks.astype(np.float32), matrix, bricks.shape)
    shown = (shown + np.random.default_rng(0).normal(0, 12, bricks.shape)).clip(0, 255).astype(np.uint8)
    flow = plane.homography_flow(matrix, bricks.shape)
    default = glunet.load()
    match, rough = (made.match(bricks, shown) for made in (default, default.with_(plane=False)))
    assert match.found.plane
    assert match.found.as_dict()["plane"]
    assert not rough.found.plane
    inside = match.in_view & (np.abs(flow) < 1e5).all(-1)
    after, before = (np.linalg.norm(made.flow - flow, axis=-1)[inside].mean() for made in (match, rough))
    assert after < 0.7 * before


def both_ways(off: float, astray: float = 0.0) -> tuple[search.TwoWay, list]:
    """A flow that comes back, but lies `off` px beside the plane; of the target's rows a share is led elsewhere."""
    seen, flow = wall()
    back = plane.homography_flow(np.linalg.inv(TRUE), SIZE)
    elsewhere = np.arange(SIZE[0])[:, None, None] < astray * SIZE[0]
    there = np.where(elsewhere, constant(-30, 0, SIZE), flow + np.float32((off, 0)))
    # Of what is led elsewhere the way back is the opposite: the images' own, sure and of another place.
    again = np.where(elsewhere, constant(30, 0, SIZE), back - np.float32((off, 0)))
    ways = search.TwoWay(there.astype(np.float32), again.astype(np.float32))
    return ways, [(ways, seen, TRUE), (ways.reverse, seen.reverse, np.linalg.inv(TRUE))]


def test_a_flow_that_comes_near_a_plane_of_keypoints_is_brought_onto_it():
    off = 0.9 * plane.ROUGHLY * max(SIZE) / 1.1
    ways, known = both_ways(off)
    ways.flow[:20], ways.backward[200:] = 500, 500  # lost
    flows = plane.brought_onto(known)
    assert flows is not None
    there, back = flows
    np.testing.assert_allclose(there, plane.homography_flow(TRUE, SIZE), atol=1e-4)
    # What nothing stands for but the plane does not come back: a guess, that shall not look sure.
    np.testing.assert_array_equal(back[200:], ways.backward[200:])
    assert search.TwoWay(there, back).round_trip()[100:160, 100:200].max() < 0.1


def test_what_comes_near_no_plane_stays_as_it_is():
    assert plane.brought_onto(both_ways(2 * plane.ROUGHLY * max(SIZE))[1]) is None
    assert plane.brought_onto(both_ways(0, astray=0.5)[1]) is None


def test_what_comes_back_from_elsewhere_stays_before_a_plane():
    ways, known = both_ways(2, astray=0.1)
    flows = plane.brought_onto(known)
    assert flows is not None
    sure = known[0][1].in_view(ways.flow)[:10] & (ways.round_trip()[:10] <= 1)
    np.testing.assert_array_equal(flows[0][:10][sure], ways.flow[:10][sure])
    assert sure.any()


@pytest.mark.parametrize("polish", ["auto", True])
@pytest.mark.parametrize("found_plane", [True, False])
def test_on_a_plane_that_a_search_has_found_nothing_is_polished_unless_asked_for(monkeypatch, polish, found_plane):
    """Nor is it looked for a plane once more."""
    bricks = skimage.data.brick()[:300, :400]
    found = search.Found("", 0.9, 0.9, plane=found_plane)
    polished, looked = [], []
    monkeypatch.setattr(search.Searcher, "settled", lambda self, first: (first.flow, found))
    monkeypatch.setattr(search.Searcher, "__call__", lambda self, first: (first, found))
    monkeypatch.setattr(matcher, "refined", lambda flow, seen: polished.append(1) or flow)
    monkeypatch.setattr(matcher, "flattened", lambda *given: looked.append(1))
    glunet.load(polish=polish).match(bricks, bricks)
    assert bool(polished) is (polish is True or not found_plane)
    assert bool(looked) is not found_plane
