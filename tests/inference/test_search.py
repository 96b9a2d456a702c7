"""Search: hypotheses of known geometry, what is accepted and what is not."""

from functools import cache

import cv2
import numpy as np
import pytest
import skimage.data
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

import glunet
from glunet.errors import GlunetError
from glunet.geometry.estimation import apply_homography
from glunet.inference import hypotheses, search
from glunet.inference.likeness import Views, grid, views
from textured import SIZE, constant, scene, seen_through, similarity
from untrained import matcher


def worst(one: np.ndarray, other: np.ndarray, size: tuple[int, int]) -> float:
    """Largest distance between where two homographies lead the middle half of an image."""
    at = grid(size)[size[0] // 4 : -size[0] // 4, size[1] // 4 : -size[1] // 4].astype(np.float64)
    return float(np.linalg.norm(apply_homography(one, at) - apply_homography(other, at), axis=-1).max())


@settings(max_examples=8)
@given(st.floats(-180, 180), st.floats(0.7, 1.4), st.sampled_from(((240, 320), (300, 200))))
def test_keypoints_find_a_known_similarity(degrees, zoom, source_size):
    source = scene(1, source_size)
    true = similarity(degrees, zoom, SIZE, source_size)
    found = hypotheses.from_keypoints(views(source, seen_through(source, true, SIZE)))
    assert found
    assert worst(found[0].matrix, true, SIZE) < 1.5


def test_simulated_views_find_a_tilt_that_plain_keypoints_do_not():
    source = scene(2, (240, 320))
    true = similarity(30, 1, (240, 320), (240, 320)) @ similarity(0, 1, (240, 320), (240, 320))
    true[:2, :2] = true[:2, :2] @ np.diag((3.2, 1.0))
    true[:2, 2] += np.array((159.5, 119.5)) - apply_homography(true, np.array((159.5, 119.5)))
    pair = views(source, seen_through(source, true, (240, 320)))
    simulated = hypotheses.from_keypoints(pair, simulate=True)
    assert simulated
    at = np.array(((140.0, 100.0), (180.0, 140.0), (150.0, 130.0)))
    assert np.abs(apply_homography(simulated[0].matrix, at) - apply_homography(true, at)).max() < 3
    plain = hypotheses.from_keypoints(pair)
    assert not plain or plain[0].inliers < simulated[0].inliers / 2


def seen_from_the_side(source: np.ndarray, degrees: float) -> np.ndarray:
    """Target -> source of a wall seen so far from its side, in a target of the same size."""
    matrix = np.diag((1 / np.cos(np.deg2rad(degrees)), 1.0, 1.0)) @ similarity(
        20, 1, source.shape[:2], source.shape[:2]
    )
    middle = (np.array(source.shape[1::-1]) - 1) / 2
    matrix[:2, 2] += middle - apply_homography(matrix, middle)
    return matrix


def far_off(matrix: np.ndarray, true: np.ndarray) -> float:
    """By how many pixels at most a homography misses the middle strip of a target of 400 x 400."""
    strip = np.stack(np.meshgrid(np.linspace(185, 215, 5), np.linspace(50, 350, 5)), axis=-1)
    return float(np.linalg.norm(apply_homography(matrix, strip) - apply_homography(true, strip), axis=-1).max())


def bricks(degrees: float) -> tuple[Views, np.ndarray]:
    """A wall and itself from the side, and the homography between them."""
    source = skimage.data.brick()[:400, :400, None].repeat(3, axis=2).astype(np.float32)
    true = seen_from_the_side(source, degrees)
    return views(source, seen_through(source, true, (400, 400))), true


def test_views_tilted_by_four_find_a_wall_seen_from_80_degrees():
    pair, true = bricks(80)
    found = hypotheses.from_keypoints(pair, simulate=True)
    assert found[0].inliers > 50
    assert far_off(found[0].matrix, true) < 8


@pytest.mark.parametrize("degrees", [0, 75])
def test_keypoints_through_a_rough_homography_make_it_exact(degrees):
    """What is off by 15 px and 3 degrees is within half a pixel, and through that within a quarter."""
    pair, true = bricks(degrees)
    rough = similarity(3, 1.05, (400, 400), (400, 400)) @ true
    rough[:2, 2] += 15
    first, *_, last = hypotheses.through([hypotheses.Hypothesis(rough, "rough")], pair)
    assert first.exact
    assert last.exact
    assert last.origin == "rough"
    assert last.inliers > first.inliers >= search.SURE_NEARER
    assert far_off(last.matrix, true) < 0.25
    np.testing.assert_allclose(apply_homography(last.matrix, last.target), last.source, atol=3)
    assert hypotheses.through([], pair) == []


@pytest.mark.parametrize(("more", "taken"), [(0, True), (-1, False)])
def test_a_scene_is_brought_onto_a_plane_that_enough_keypoints_stand_for(more, taken):
    pair, true = bricks(30)
    true_there, true_back = (search.homography_flow(matrix, (400, 400)) for matrix in (true, np.linalg.inv(true)))
    searcher = search.Searcher(pair, lambda matrix: pytest.fail("no pass"), None, ())
    searcher.best = search.TwoWay(true_there + np.float32((2, 0)), true_back)  # within the tolerance
    at = np.random.default_rng(0).uniform(150, 250, (search.SURE_NEARER + more, 2))
    guess = hypotheses.Hypothesis(true, "made up", at, apply_homography(true, at), exact=True)
    searcher._flatten([guess])
    assert bool(np.abs(searcher.best.flow - true_there).max() < 1e-3) is taken
    assert searcher.on_plane is taken


@pytest.mark.parametrize("plain", [True, False])
def test_keypoints_are_looked_for_through_the_networks_own_homography_where_plain_ones_find_nothing(monkeypatch, plain):
    """And what they find is taken over, though the match agrees with itself already."""
    pair, true = bricks(70)
    rough = true.copy()
    rough[:2, 2] += 5
    ways = search.TwoWay(*(search.homography_flow(matrix, (400, 400)) for matrix in (rough, np.linalg.inv(rough))))
    known = [hypotheses.Hypothesis(rough, "keypoints")] if plain else []
    monkeypatch.setattr(search.Searcher, "_from_points", lambda self, longest: list(known))
    near = hypotheses.Hypothesis(rough, "the global level")
    searcher = search.Searcher(pair, lambda matrix: pytest.fail("no pass"), None, (), near=near)
    best, found = searcher(ways)
    strip = np.linalg.norm(best.flow - search.homography_flow(true, (400, 400)), axis=-1)[50:350, 185:215]
    assert found.before > search.AGREES
    assert (found.hypothesis == "the global level") is not plain
    assert (np.median(strip) < 0.5) is not plain


@pytest.mark.parametrize("plane", [True, False])
def test_relief_is_not_brought_onto_a_plane(monkeypatch, plane):
    asked = []
    monkeypatch.setattr(search.Searcher, "_flatten", lambda self, guesses: asked.append(guesses))
    photo = scene(1)
    matcher(search="auto", plane=plane).match(photo.astype(np.uint8), photo.astype(np.uint8), backward=True)
    assert bool(asked) is plane


def test_nothing_is_found_through_a_homography_between_unrelated_images():
    pair = views(skimage.data.astronaut().astype(np.float32), skimage.data.chelsea().astype(np.float32))
    assert hypotheses.through(hypotheses.coarse((300, 451), (512, 512)), pair) == []


def test_later_models_come_of_what_the_earlier_left_over():
    random = np.random.default_rng(0)
    target = random.uniform(0, 300, (200, 2))
    first, second = similarity(10, 1, SIZE, SIZE), similarity(-40, 1.3, SIZE, SIZE)
    source = np.where(np.arange(200)[:, None] < 130, apply_homography(first, target), apply_homography(second, target))
    pair = views(scene(0, (300, 300)), scene(0, (300, 300)))
    one, two = hypotheses.homographies(source, target, pair, "made up")
    assert (one.inliers, two.inliers) == (130, 70)
    assert worst(one.matrix, first, SIZE) < 0.1
    assert worst(two.matrix, second, SIZE) < 0.1


def test_a_homography_whose_horizon_crosses_the_image_keeps_its_points_before_it():
    steep = -np.array(((-1.0, 0, 10), (0, 1, 0), (0.02, 0, -1)))  # horizon at x = 50
    points = np.random.default_rng(0).uniform((60, 0), (100, 80), (50, 2))
    # The normalised matrix has the points behind it, as findHomography may return it.
    turned = hypotheses.oriented(steep, points, (100, 120), (100, 120))
    assert turned is not None
    assert (points @ turned[2, :2] + turned[2, 2] > 0).all()
    assert hypotheses.oriented(np.diag((-1.0, 1, 1)), points, SIZE, SIZE) is None, "a mirror image"
    assert hypotheses.oriented(np.diag((1e-3, 1e-3, 1)), points, SIZE, SIZE) is None, "a dot"


@pytest.mark.parametrize("source_size", [(120, 160), (90, 200)])
def test_coarse_hypotheses_join_the_middles(source_size):
    found = hypotheses.coarse(SIZE, source_size)
    assert len({guess.origin for guess in found}) == len(found) == 19
    turns = hypotheses.coarse(SIZE, source_size, every=False)
    assert [guess.origin for guess in turns] == [f"turned by {45 * i} degrees, zoomed by 1" for i in range(1, 8)]
    middle = np.array(((159 / 2, 119 / 2),))
    for guess in found:
        there = apply_homography(guess.matrix, middle)[0]
        np.testing.assert_allclose(there, ((source_size[1] - 1) / 2, (source_size[0] - 1) / 2))
        assert np.linalg.det(guess.matrix) > 0


def two_way(x: float, y: float) -> search.TwoWay:
    return search.TwoWay(constant(x, y), constant(-x, -y))


def test_agreement_counts_what_both_see():
    pair = views(scene(), scene())
    assert search.agreement(two_way(0, 0), pair) == 1
    assert search.agreement(two_way(100, 0), pair) == 1, "a third in view, and all of that comes back"
    assert search.agreement(search.TwoWay(constant(5, 0), constant(5, 0)), pair) == 0
    nearly_out = search.agreement(two_way(155, 0), pair)
    assert nearly_out < 0.3, "a strip of five pixels says little"
    masked = views(scene(), scene(), None, np.arange(160) < np.full((120, 1), 40))
    assert search.agreement(two_way(0, 0), masked) == 1


def test_a_plane_is_chosen_where_it_looks_more_alike():
    true = similarity(7, 1.1, SIZE, (240, 320))
    source = scene(3, (240, 320))
    pair = views(source, seen_through(source, true, SIZE))
    flow = search.homography_flow(true, SIZE)
    lost = flow + np.float32((25, -10))
    chosen = search.choose(lost, pair, [true])
    inner = (slice(10, -10), slice(10, -10))
    assert np.abs(chosen - flow)[inner].mean() < 1
    wrong = similarity(50, 1, SIZE, (240, 320))
    np.testing.assert_array_equal(search.choose(flow, pair, [wrong])[inner], flow[inner])


def test_unrelated_images_are_left_as_they_are():
    one, other = scene(4), scene(5)
    flow = two_way(3, 2)
    assert np.array_equal(search.choose(flow.flow, views(one, other), [similarity(20, 1, SIZE, SIZE)]), flow.flow)


def test_a_plane_is_continued_only_where_nothing_comes_back():
    true = similarity(5, 1, SIZE, SIZE)
    flow, back = search.homography_flow(true, SIZE), search.homography_flow(np.linalg.inv(true), SIZE)
    broken = flow.copy()
    broken[:, :40] += 30
    pair = views(scene(), scene())
    ways = search.TwoWay(broken, back)
    for known in ([true], []):  # of a hypothesis, and the match's own
        plane = search.one_plane(ways, pair, known)
        assert plane is not None
        assert np.abs(search.extended(ways, pair, plane) - flow).max() < 1
    random = np.random.default_rng(0).normal(0, 20, flow.shape).astype(np.float32)
    assert search.one_plane(search.TwoWay(random, back), pair, [true]) is None


def test_a_pass_is_composed_in_both_directions():
    """What a perfect network says of the source warped by a homography, in the coordinates of the source as it is."""
    matrix, rest = similarity(20, 1.2, SIZE, (200, 180)), similarity(3, 1, SIZE, SIZE)
    second = search.TwoWay(search.homography_flow(rest, SIZE), search.homography_flow(np.linalg.inv(rest), SIZE))
    lost = search.TwoWay(constant(9, 9), constant(40, 0, (200, 180)))
    pair = views(scene(0, (200, 180)), scene())
    merged = search.better_parts(lost, second, matrix, pair)
    whole = matrix @ rest
    seen = pair.in_view(search.homography_flow(whole, SIZE))
    error = np.linalg.norm(merged.flow - search.homography_flow(whole, SIZE), axis=-1)
    assert np.median(error[seen]) < 0.1
    back = search.homography_flow(np.linalg.inv(whole), (200, 180))
    seen_back = pair.reverse.in_view(back)
    assert np.median(np.linalg.norm(merged.backward - back, axis=-1)[seen_back]) < 0.1


NO_POINTS = (np.empty((0, 2)), np.empty((0, 2)))


def searched(first: search.TwoWay, passes: list[search.TwoWay], scores=None, points=NO_POINTS, **settings) -> tuple:
    """A search on textureless images (no keypoints) whose network answers from a list."""
    flat = np.full((*SIZE, 3), 128, np.float32)
    asked = []

    def again(matrix: np.ndarray) -> search.TwoWay:
        asked.append(matrix)
        return passes.pop(0) if passes else first

    pair = views(flat, flat)
    pictures = (flat.astype(np.uint8), flat.astype(np.uint8))
    coarse = search.GlobalLevel(scores, lambda: points) if scores else None
    return (*search.Searcher(pair, again, coarse, pictures, **settings)(first), asked)


def test_a_found_pair_costs_no_pass():
    best, found, asked = searched(two_way(3, 4), [])
    assert not asked
    assert found == search.Found("", 1.0, 1.0)
    np.testing.assert_array_equal(best.flow, constant(3, 4))


def noise_way(seed: int = 0) -> search.TwoWay:
    random = np.random.default_rng(seed)
    return search.TwoWay(*(random.normal(0, 40, (*SIZE, 2)).astype(np.float32) for _ in range(2)))


def quarter_scores(guesses) -> list[float]:
    """Of the images as they lie, and of the hypotheses."""
    return [0.02, *(0.5 if "turned by 90 degrees, zoomed by 1" in guess.origin else 0.02 for guess in guesses)]


def test_a_lost_pair_is_matched_through_the_coarse_hypothesis_that_scores_best():
    best, found, asked = searched(noise_way(), [two_way(0, 0), two_way(0, 0)], quarter_scores)
    assert "turned by 90 degrees" in found.hypothesis
    assert found.before < 0.1 < 0.8 < found.after
    assert len(asked) <= 3
    true = hypotheses.coarse(SIZE, SIZE)[[g.origin for g in hypotheses.coarse(SIZE, SIZE)].index(
        "turned by 90 degrees, zoomed by 1")].matrix  # fmt: skip
    inner = (slice(20, -20), slice(40, -40))
    assert np.abs(best.flow - search.homography_flow(true, SIZE))[inner].max() < 0.5


@pytest.mark.parametrize("holds", [True, False])
def test_what_smaller_copies_find_is_passed_once_at_full_size(holds):
    """And taken only if it holds there."""
    tried, asked = [], []

    def reduced(matrix: np.ndarray) -> search.TwoWay:
        tried.append(matrix)
        return two_way(0, 0)

    def again(matrix: np.ndarray) -> search.TwoWay:
        asked.append(matrix)
        return two_way(0, 0) if holds else noise_way(1)

    flat = np.full((*SIZE, 3), 128, np.float32)
    coarse = search.GlobalLevel(quarter_scores, lambda: NO_POINTS)
    pictures = (flat.astype(np.uint8), flat.astype(np.uint8))
    first = noise_way()
    best, found = search.Searcher(views(flat, flat), again, coarse, pictures, reduced=reduced)(first)
    assert len(asked) == 1
    # Through the homography of what was found, here that of the hypothesis.
    places = np.array(((40.0, 20.0), (120.0, 20.0), (80.0, 60.0), (40.0, 100.0), (120.0, 100.0)))
    found_there = apply_homography(asked[0], places)
    assert min(np.abs(found_there - apply_homography(matrix, places)).max() for matrix in tried) < 0.5
    if holds:
        assert "turned by 90 degrees" in found.hypothesis
        assert found.after > 0.8
    else:
        assert found == search.Found("", found.before, found.before)
        np.testing.assert_array_equal(best.flow, first.flow)


@pytest.mark.parametrize(("upright", "best", "tried"), [(0.4, 0.32, True), (0.4, 0.28, False)])
def test_a_coarse_hypothesis_is_tried_where_it_scores_nearly_as_well_as_the_images_as_they_lie(upright, best, tried):
    def scores(guesses) -> list[float]:
        return [upright, *(min(best, score) for score in quarter_scores(guesses)[1:])]

    _, _, asked = searched(noise_way(), [two_way(0, 0), two_way(0, 0)], scores)
    assert bool(asked) is tried


@pytest.mark.parametrize("how", ["auto", "full"])
def test_where_the_global_level_is_sure_of_the_images_as_they_lie_no_other_layout_is_asked_for(how):
    asked_for = []

    def scores(guesses) -> list[float]:
        asked_for.extend(guesses)
        return [0.5, *quarter_scores(guesses)[1:]]

    points = rough_points(similarity(25, 0.8, SIZE, SIZE))
    _, found, asked = searched(noise_way(), [two_way(0, 0)] * 4, scores, points, how=how)
    assert bool(asked) is bool(asked_for) is (how == "full")
    assert bool(found.hypothesis) is (how == "full")


def rough_points(true: np.ndarray, right: int = 60, wrong: int = 140) -> tuple[np.ndarray, np.ndarray]:
    """Points of a source and a target of SIZE of which few match, and these to some pixels."""
    random = np.random.default_rng(3)
    target = random.uniform((0, 0), (159, 119), (right + wrong, 2))
    source = apply_homography(true, target) + random.normal(0, 1.5, target.shape)
    source[right:] = random.uniform((0, 0), (159, 119), (wrong, 2))
    return source, target


def test_rough_points_of_which_most_are_wrong_give_a_known_similarity():
    true = similarity(25, 0.8, SIZE, SIZE)
    pair = views(scene(0), scene(1))
    found = hypotheses.from_features(rough_points(true), pair)
    assert {guess.origin for guess in found} == {"the encoder's features"}
    assert not any(guess.inliers for guess in found), "too rough to measure a flow by"
    assert min(worst(guess.matrix, true, SIZE) for guess in found) < 4
    assert hypotheses.from_features(NO_POINTS, pair) == []


def test_a_lost_pair_is_matched_through_the_encoders_features_before_the_coarse_grid_is_asked():
    true = similarity(25, 0.8, SIZE, SIZE)
    asked_for = []

    def scores(guesses) -> list[float]:
        asked_for.extend(sorted({guess.origin for guess in guesses}))
        off = [worst(guess.matrix, true, SIZE) if "features" in guess.origin else np.inf for guess in guesses]
        return [0.02, *(0.5 if i == np.argmin(off) else 0.02 for i in range(len(guesses)))]

    best, found, _ = searched(noise_way(), [two_way(0, 0)] * 4, scores, rough_points(true))
    assert found.hypothesis.startswith("the encoder's features")
    assert asked_for == ["the encoder's features"]
    inner = (slice(20, -20), slice(40, -40))
    assert np.abs(best.flow - search.homography_flow(true, SIZE))[inner].max() < 4


def test_keypoints_that_the_match_follows_are_counted():
    source = scene(6)
    true = similarity(10, 1.1, SIZE, SIZE)
    pair = views(source, seen_through(source, true, SIZE))
    there, back = (search.homography_flow(matrix, SIZE) for matrix in (true, np.linalg.inv(true)))
    for first, follows in ((search.TwoWay(there, back), True), (search.TwoWay(there + 30, back - 30), False)):
        guesses = hypotheses.from_keypoints(pair)
        assert guesses[0].inliers >= 50
        assert (search.misses(first.flow, guesses[0]) < 1) is follows
    _, found = search.Searcher(pair, None, None, (None, None))(search.TwoWay(there, back))  # type: ignore[arg-type]
    assert found.points >= 50


def test_a_hypothesis_that_does_not_agree_with_itself_is_not_accepted():
    first = noise_way()
    best, found, asked = searched(first, [noise_way(1), noise_way(2)], quarter_scores)
    assert asked
    assert found.hypothesis == ""
    np.testing.assert_array_equal(best.flow, first.flow)


def test_full_tries_every_hypothesis():
    count = len(hypotheses.coarse(SIZE, SIZE))
    _, _, asked = searched(noise_way(), [], quarter_scores, how="full")
    assert len(asked) >= count


@pytest.mark.parametrize(
    ("part", "seen_through", "passed"), [(0.4, None, True), (0.2, None, False), (0.4, 0, False), (0.4, 30, True)]
)
def test_a_sure_hypothesis_gets_a_pass_where_a_part_of_the_match_agrees_not_where_it_is_lost(
    part, seen_through, passed
):
    """What is lost though a hundred keypoints lie on its flow looks different to the network.

    Nor does it get one where the network's first pass was one through it, to within some pixels.
    """
    shift, noise, rows = two_way(3, 4), noise_way(), round(part * SIZE[0])
    first = search.TwoWay(*(np.concatenate((good[:rows], bad[rows:])) for good, bad in zip(shift, noise, strict=True)))
    at = np.random.default_rng(0).uniform((5, 5), (SIZE[1] - 10, rows - 2), (search.SURE + 20, 2))
    near = None
    if seen_through is not None:
        near = hypotheses.Hypothesis(np.array(((1.0, 0, 3 + seen_through), (0, 1, 4), (0, 0, 1))), "the global level")
    ours = (lambda one, other: (at + np.array((3, 4)), at),)
    _, found, asked = searched(first, [two_way(0, 0)], sources=ours, near=near)
    assert found.before < search.AGREES
    assert bool(asked) is passed
    assert (found.before >= search.LOST) is (part == 0.4)
    assert (found.after > 0.9) is passed


def test_a_users_own_points_are_asked():
    true = similarity(15, 1.2, SIZE, SIZE)
    at = np.random.default_rng(0).uniform(20, 100, (60, 2))

    def source(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        assert one.dtype == np.uint8
        assert one.shape == other.shape == (*SIZE, 3)
        return apply_homography(true, at), at

    _, found, asked = searched(noise_way(), [two_way(0, 0)], sources=(source,))
    assert "points of source 1" in found.hypothesis
    assert worst(asked[0], true, SIZE) < 0.1


# Through a matcher


@pytest.mark.parametrize("word", ["fast", "", "AUTO", 3, None.__class__])
def test_unknown_words_get_the_list_of_words(word):
    with pytest.raises(GlunetError, match="'none', 'auto', 'full'"):
        matcher(search=word)
    with pytest.raises(GlunetError, match=r"'auto'.*True or False"):
        matcher().match(scene() / 255, scene() / 255, polish=word)


def test_images_without_any_keypoint_go_on_without():
    flat = np.full((64, 80, 3), 90, np.uint8)
    match = matcher(search="auto", polish="auto").match(flat, flat)
    assert match.found is not None
    assert np.isfinite(match.flow).all()


def test_none_is_the_network_alone():
    image, other = scene(6) / 255, scene(7) / 255
    plain = matcher().match(image, other)
    around = matcher(search="auto", polish=True)
    np.testing.assert_array_equal(around.match(image, other, search="none", polish=False).flow, plain.flow)
    assert around.match(image, other, search="none", polish=False).found is None
    flow = around.flow(*(torch.from_numpy(np.float32(i)).permute(2, 0, 1)[None] for i in (image, other)))
    np.testing.assert_allclose(flow[0].permute(1, 2, 0), plain.flow, atol=1e-4)
    assert around.provenance.settings["search"] == "auto"
    assert "search" not in matcher().provenance.settings


def test_many_equals_one_by_one():
    pairs = [(scene(i) / 255, scene(i + 1) / 255) for i in range(2)]
    made = matcher(search="auto", polish=True)
    for outcome, pair in zip(made.match_many(pairs), pairs, strict=True):
        alone = made.match(*pair)
        np.testing.assert_allclose(outcome.match.flow, alone.flow, atol=1e-2)
        assert outcome.match.found.hypothesis == alone.found.hypothesis


@cache
def shipped() -> glunet.Matcher:
    return glunet.load()


def test_a_turned_photograph_is_found_and_says_how():
    image = cv2.resize(skimage.data.coffee(), (320, 240), interpolation=cv2.INTER_AREA)
    turned = np.ascontiguousarray(np.rot90(image, 1))
    match = shipped().match(turned, image)
    # np.rot90 once: the pixel (x, y) of the image lies at (y, W - 1 - x) of the turned one.
    x, y = np.moveaxis(grid(image.shape[:2]), -1, 0)
    error = np.hypot(match.map[..., 0] - y, match.map[..., 1] - (image.shape[1] - 1 - x))
    assert np.median(error) < 1
    assert match.found.hypothesis
    assert match.metadata()["search"]["hypothesis"] == match.found.hypothesis
    assert match.metadata()["search"]["keypoints"] == match.found.points
    assert match.found.after > match.found.before
