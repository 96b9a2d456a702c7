"""Robust models: recovered exactly from clean matches, and in spite of wrong ones; sentences where there is none."""

import cv2
import numpy as np
import pytest

from glunet.errors import GlunetError
from glunet.geometry.estimation import apply_homography, estimate, resizing
from glunet.geometry.points import Correspondences
from glunet.match import Match, Provenance

MATRIX = np.array(((1.05, 0.08, 6), (-0.06, 0.98, 4), (2e-4, -1e-4, 1)))
CAMERA = np.array(((300, 0, 160), (0, 310, 120), (0, 0, 1.0)))


def match_of(matrix: np.ndarray, wrong: float = 0.0, size: tuple[int, int] = (120, 160)) -> Match:
    """The match that a homography makes, a share of its columns replaced by noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[: size[0], : size[1]].astype(np.float64)
    grid = np.stack((x, y), -1)
    flow = apply_homography(matrix, grid) - grid
    bad = random.random(size[1]) < wrong
    flow[:, bad] += random.normal(0, 30, (size[0], int(bad.sum()), 2))
    return Match(flow.astype(np.float32), (size[0] + 30, size[1] + 30), Provenance("test"))


@pytest.mark.parametrize("wrong", [0.0, 0.4])
def test_homography(wrong):
    match = match_of(MATRIX, wrong)
    np.testing.assert_allclose(match.homography(), MATRIX, atol=2e-2 if wrong else 1e-2)
    corners = np.array(((0, 0), (159, 0), (0, 119), (159, 119.0)))
    np.testing.assert_allclose(
        apply_homography(match.homography(), corners), apply_homography(MATRIX, corners), atol=0.1
    )
    model = match.model("homography", count=1000)
    errors = np.linalg.norm(apply_homography(MATRIX, model.points.target) - model.points.source, axis=1)
    assert (errors[model.inliers] < 3).all()
    assert model.inliers[errors < 0.5].mean() > 0.95
    assert len(model.inliers) == len(model.points.target)
    assert np.array_equal(match.homography(), match.homography())


def rigid() -> tuple[Correspondences, np.ndarray, np.ndarray]:
    """Points of a scene with depth, seen by two cameras, a fifth of them wrong; rotation and unit translation."""
    random = np.random.default_rng(0)
    points = random.uniform((-2, -1.5, 4), (2, 1.5, 8), (800, 3))
    rotation, _ = cv2.Rodrigues(np.array((0.05, -0.12, 0.03)))
    translation = np.array((0.6, 0.1, 0.05))
    target, source = (
        apply_homography(CAMERA, seen[:, :2] / seen[:, 2:]) for seen in (points, points @ rotation.T + translation)
    )
    source[:160] += random.normal(0, 40, (160, 2))
    return (
        Correspondences(target.astype(np.float32), source.astype(np.float32), np.ones(800, np.float32)),
        rotation,
        translation / np.linalg.norm(translation),
    )


def test_fundamental():
    points, _, _ = rigid()
    model = estimate("fundamental", points)
    ones = np.ones((800, 1))
    target, source = np.hstack((points.target, ones)), np.hstack((points.source, ones))
    lines = target @ model.matrix.T  # of the source
    distance = np.abs((source * lines).sum(1)) / np.hypot(lines[:, 0], lines[:, 1])
    assert np.median(distance[160:]) < 0.05
    assert model.inliers[160:].mean() > 0.95
    assert model.inliers[:160].mean() < 0.2


def test_essential_and_pose():
    points, rotation, translation = rigid()
    model = estimate("essential", points, cameras=(CAMERA, CAMERA))
    np.testing.assert_allclose(model.rotation, rotation, atol=5e-3)
    np.testing.assert_allclose(model.translation, translation, atol=2e-2)
    assert model.inliers[160:].mean() > 0.9


def test_methods_of_a_match():
    match = match_of(np.array(((1, 0, 3), (0, 1, 2), (0, 0, 1.0))))
    assert match.fundamental().shape == (3, 3)  # of a plane many fit
    assert match.essential(CAMERA, CAMERA).shape == (3, 3)


def test_refusals():
    match = match_of(MATRIX)
    away = Match(match.flow + 1000, (120, 160), match.provenance)
    with pytest.raises(GlunetError, match="4 or more confident correspondences, but the match has 0"):
        away.homography()
    with pytest.raises(GlunetError, match="positive"):
        match.homography(threshold=0)
    for camera in (np.eye(2), np.diag((0, 1, 1)), np.full((3, 3), np.nan), np.ones((3, 3))):
        with pytest.raises(GlunetError, match="second camera matrix"):
            match.essential(CAMERA, camera)
    line = np.stack((np.arange(50), np.arange(50)), -1).astype(np.float32)
    with pytest.raises(GlunetError, match="was not found"):
        estimate("homography", Correspondences(line[:5], np.zeros((5, 2), np.float32), np.ones(5, np.float32)))


def test_resizing_brings_the_outer_edges_onto_each_other():
    edges = np.array(((-0.5, -0.5), (29.5, 19.5)))
    np.testing.assert_allclose(
        apply_homography(resizing((20, 30), (50, 40)), edges), ((-0.5, -0.5), (39.5, 49.5)), atol=1e-9
    )


def test_apply_homography_agrees_with_opencv():
    matrix = np.array([[1.1, 0.1, 5], [-0.05, 0.9, 3], [1e-4, 2e-4, 1]])
    points = np.random.default_rng(1).uniform(0, 500, (50, 2))
    expected = cv2.perspectiveTransform(points[None], matrix)[0]
    np.testing.assert_allclose(apply_homography(matrix, points), expected, atol=1e-9)


def test_what_is_behind_the_camera_is_unknown():
    matrix = np.array([[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]])
    assert np.isnan(apply_homography(matrix, np.array([[200, 0]]))).all()
