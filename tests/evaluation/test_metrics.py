"""Metrics against numbers worked out by hand, against libraries, and against laws."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from glunet import GlunetError
from glunet.evaluation import metrics

# One row of five pixels: errors 0, 1, 3, 5 and 10 px, as 3-4-5 triangles and straight shifts.
TRUTH = np.array([[[0, 0], [7, 0], [0, -40], [30, 40], [100, 0]]], np.float32)
SHIFT = np.array([[[0, 0], [1, 0], [0, 3], [3, -4], [-6, 8]]], np.float32)
ERRORS = [0, 1, 3, 5, 10]


def test_epe_of_triangles() -> None:
    assert metrics.epe(TRUTH + SHIFT, TRUTH).tolist() == [ERRORS]


def test_epe_is_the_euclidean_distance() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(2, 20, 2))
    np.testing.assert_allclose(metrics.epe(a, b), np.diag(cdist(a, b)))


def test_aepe_by_hand() -> None:
    assert metrics.aepe(TRUTH + SHIFT, TRUTH) == pytest.approx(19 / 5)
    assert metrics.aepe(TRUTH + SHIFT, TRUTH, [[True, True, False, False, True]]) == pytest.approx(11 / 3)


@pytest.mark.parametrize(("threshold", "share"), [(0.5, 0.2), (1, 0.4), (3, 0.6), (5, 0.8), (9.99, 0.8), (10, 1)])
def test_pck_includes_its_threshold(threshold: float, share: float) -> None:
    assert metrics.pck(ERRORS, threshold) == pytest.approx(share)


def test_reference_sizes_by_hand() -> None:
    points = [[10, 5], [40, 7], [12, 95]]
    assert metrics.reference_size("image", image=(200, 300)) == 300
    assert metrics.reference_size("image", image=(500, 300)) == 500
    assert metrics.reference_size("keypoints", points=points) == 90
    assert metrics.reference_size("box", box=(10, 20, 110, 50)) == 100
    with pytest.raises(GlunetError, match="expected 'image', 'keypoints' or 'box'"):
        metrics.reference_size("diagonal", image=(1, 2))


def test_fl_needs_both_criteria() -> None:
    # error, true length: 3 px is no outlier; 4 of 50 is (8 %); 4 of 100 is not (4 %); 5 of 100 is not (5 % exactly);
    # 6 of 100 is; 4 of 0 is.
    errors, lengths = [3, 4, 4, 5, 6, 4], [1, 50, 100, 100, 100, 0]
    assert metrics.fl_outliers(errors, lengths).tolist() == [False, True, False, False, True, True]


def test_corner_error_by_hand() -> None:
    shift = np.array([[1, 0, 3], [0, 1, 4], [0, 0, 1]])
    assert metrics.corner_error(shift, np.eye(3), (100, 200)) == pytest.approx(5)
    # Twice as wide: the two right corners of a 201 px wide image move 200 px, the left ones stay.
    assert metrics.corner_error(np.diag([2, 1, 1]), np.eye(3), (100, 201)) == pytest.approx(100)
    assert metrics.corner_error(-7 * np.eye(3), np.eye(3), (100, 200)) == pytest.approx(0)


def test_no_homography_is_infinitely_wrong() -> None:
    assert metrics.corner_error(None, np.eye(3), (10, 10)) == np.inf
    beyond = [[1, 0, 0], [0, 1, 0], [-0.01, 0, 1]]
    assert metrics.corner_error(beyond, np.eye(3), (100, 200)) == np.inf


def test_auc_by_hand() -> None:
    # All exact: everything. None below: nothing.
    assert metrics.recall_auc([0, 0], 3) == pytest.approx(1)
    assert metrics.recall_auc([4, 5], 3) == 0
    # Errors 1 and 4, up to 2: a triangle from (0, 0) to (1, 1/2), then flat: (1/4 + 1/2) / 2.
    assert metrics.recall_auc([4, 1], 2) == pytest.approx(0.375)
    # Errors 1, 2, infinite up to 4: 1/6 + (1/3 + 2/3)/2 + 2 * 2/3, over 4.
    assert metrics.recall_auc([np.inf, 2, 1], 4) == pytest.approx((1 / 6 + 1 / 2 + 4 / 3) / 4)


def test_auc_agrees_with_numerical_integration() -> None:
    errors = np.sort(np.random.default_rng(2).exponential(4, 200))
    below = errors[errors < 10]
    x = np.linspace(0, 10, 200001)
    curve = np.interp(x, [0, *below], np.arange(len(below) + 1) / 200)
    assert metrics.recall_auc(errors, 10) == pytest.approx(np.trapezoid(curve, x) / 10, abs=1e-4)


positive = st.floats(0, 1e4)


@given(st.lists(positive, min_size=1), positive, positive)
def test_pck_grows_with_its_threshold(errors: list[float], one: float, other: float) -> None:
    assert metrics.pck(errors, min(one, other)) <= metrics.pck(errors, max(one, other))


@given(st.lists(positive, min_size=1, max_size=50), st.floats(0.1, 100))
def test_auc_lies_below_the_recall(errors: list[float], threshold: float) -> None:
    recall = np.mean(np.array(errors) < threshold)
    assert -1e-12 <= metrics.recall_auc(errors, threshold) <= recall + 1e-12


def test_nothing_valid_is_an_error_not_nan() -> None:
    nothing = np.zeros((1, 5), bool)
    with pytest.raises(GlunetError, match="no valid pixel"):
        metrics.aepe(TRUTH, TRUTH, nothing)
    for measure in (metrics.pck, metrics.recall_auc):
        with pytest.raises(GlunetError, match="no valid pixel"):
            measure([], 3)
    with pytest.raises(GlunetError, match="one shape"):
        metrics.epe(TRUTH, TRUTH[:, :3])
