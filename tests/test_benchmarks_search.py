"""The counts of `python -m benchmarks.search`: who is worse, refused, lost, and what is a square of a photograph."""

import numpy as np
from benchmarks import search

import glunet
from glunet.evaluation.datasets.base import PointTruth
from made_up import pair


def made(alone: float, error: float, right: float, same: bool, hypothesis: str = "", seconds: float = 2) -> search.Row:
    return search.Row("pair", alone, error, right, same, hypothesis, 1.0, seconds)


def test_worse_is_by_more_than_a_quarter_pixel_and_five_percent_of_what_was_near():
    assert made(8.5, 9.2, 1, True).worse
    assert not made(8.5, 8.8, 1, True).worse, "3.5 %"
    assert not made(0.2, 0.4, 1, True).worse, "0.2 px"
    assert not made(30, 60, 0, True).worse, "not near"


def test_counts():
    rows = [made(1, 0.5, 0.9, True), made(1, 2, 0.6, False), made(50, 60, 0, True, "keypoints", 4)]
    assert list(search.summary(rows)) == [
        "3 pairs; refused 1 of 2 right ones",
        "said to match though lost: pair",
        "worse than the network alone: 1 of 2 that it has below 20 px",
        "no hypothesis needed: 1 pairs, 2.00 times the network, 2.00 at most",
        "found by a hypothesis: 1 pairs, 4.00 times the network, 4.00 at most",
        "nothing found: 1 pairs, 2.00 times the network, 2.00 at most",
    ]


def test_a_pair_is_a_row():
    matcher = glunet.load(search="none", polish=False)
    sample = pair("pair", [0, 0.5, 9], size=(64, 80)).load()
    row = search.row("pair", sample, matcher, matcher)
    assert row.error == row.alone > 0
    assert row.seconds > 0
    points = PointTruth(np.array(((3.0, 4.0),)), np.array(((6.0, 8.0),)))
    assert search.errors(np.zeros((10, 10, 2)), points) == [5]
