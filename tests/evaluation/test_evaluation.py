"""From predictions to figures: which mean over what, the cache, batches, baselines, tables, and figures that drift."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import layouts
from glunet import GlunetError
from glunet.evaluation import expected, tables
from glunet.evaluation.baselines import Dis, Identity
from glunet.evaluation.cache import Cache, content_key
from glunet.evaluation.datasets import (
    FlowTruth,
    HomographyTruth,
    Pair,
    PointTruth,
    Sample,
    benchmark,
)
from glunet.evaluation.datasets.base import Published
from glunet.evaluation.homography import homography_of_flow
from glunet.evaluation.results import Results
from glunet.evaluation.run import evaluate
from glunet.evaluation.run_all import evaluate_all
from glunet.evaluation.scoring import at_points
from glunet.evaluation.worst import write_worst
from glunet.flow.geometry import frame_flow_to_source
from made_up import GREY, dataset, pair

# Errors 0 and 8 (mean 4, half outliers) in one pair, 1, 1, 1 and 5 (mean 2) in another, 6 in a third.
PAIRS = [pair("a", [0, 8], "g", "s"), pair("b", [1, 1, 1, 5], "g", "t"), pair("c", [6], "h", "s")]


def test_mean_over_pairs() -> None:
    results = evaluate(dataset(PAIRS), Identity())
    assert results.figure("aepe", "all") == pytest.approx((5 + 2) / 2)  # subgroups s (a and c) and t (b)
    flat = [pair("a", [0, 8]), pair("b", [1, 1, 1, 5]), pair("c", [6])]
    results = evaluate(dataset(flat), Identity())
    assert results.figure("aepe") == pytest.approx((4 + 2 + 6) / 3)
    assert results.figure("pck1") == pytest.approx((1 / 2 + 3 / 4 + 0) / 3)
    # 5 px are within 0.05 x 100.
    assert results.figure("pck_0.05") == pytest.approx((1 / 2 + 1 + 0) / 3)


def test_fl_is_pooled_whatever_the_mean() -> None:
    # Outliers: 8; 5; 6, of seven pixels.
    assert evaluate(dataset(PAIRS), Identity()).figure("fl") == pytest.approx(3 / 7)


def test_mean_over_pixels() -> None:
    results = evaluate(dataset(PAIRS, over="pixels"), Identity())
    assert results.figure("aepe") == pytest.approx((8 + 8 + 6) / 7)
    assert results.figure("aepe", "g") == pytest.approx(16 / 6)
    assert results.pooled("pck1") == pytest.approx(4 / 7)


def test_mean_over_groups_and_subgroups() -> None:
    pairs = [pair("a", [2], "g", "s"), pair("b", [4], "g", "s"), pair("c", [9], "g", "t"), pair("d", [1], "h", "s")]
    results = evaluate(dataset(pairs, over="groups"), Identity())
    # g: s has 3, t has 9, so 6; h has 1.
    assert results.figure("aepe", "g") == pytest.approx(6)
    assert results.figure("aepe", "all") == pytest.approx(3.5)
    assert results.groups == ("g", "h")


def test_one_group_may_stand_for_the_set() -> None:
    results = evaluate(dataset(PAIRS, headline="h"), Identity())
    assert results.headline == pytest.approx(6)
    assert list(results.to_json()["figures"]) == ["g", "h"]


def test_worst_first() -> None:
    assert [score.name for score in evaluate(dataset(PAIRS), Identity()).worst(2)] == ["c", "a"]
    by_share = evaluate(dataset(PAIRS, metrics=("pck1",)), Identity())
    assert [score.name for score in by_share.worst(2)] == ["c", "a"]


def test_limit_spreads_over_the_set() -> None:
    made = dataset([pair(str(n), [n], unit) for n, unit in enumerate("aaabbbccc")])
    assert [p.name for p in made.limited(3)] == ["0", "3", "6"]
    results = evaluate(made, Identity(), limit=3)
    assert len(results.scores) == 3
    assert results.part is not None
    assert "3 of 9 pairs" in results.part
    assert evaluate(made, Identity(), limit=99).part is None


def test_asking_for_what_is_not_there() -> None:
    results = evaluate(dataset(PAIRS), Identity())
    with pytest.raises(GlunetError, match="has no metric 'pck7'"):
        results.figure("pck7")
    with pytest.raises(GlunetError, match="no pair of 'k' was measured"):
        results.figure("aepe", "k")


def test_progress_counts_every_pair() -> None:
    seen: list[tuple[int, int, int]] = []
    evaluate(dataset(PAIRS), Identity(), progress=lambda done, total, scores: seen.append((done, total, len(scores))))
    assert seen == [(1, 3, 1), (2, 3, 2), (3, 3, 3)]


# What cannot be measured


def test_a_pair_that_cannot_be_read_is_counted() -> None:
    def load() -> Sample:
        raise GlunetError("/data/x.png: missing.")

    results = evaluate(dataset([*PAIRS, Pair("x", load, unit="x")]), Identity())
    assert [(skip.name, skip.reason) for skip in results.skipped] == [("x", "/data/x.png: missing.")]
    assert results.part == "3 of 4 pairs, 1 skipped: not comparable with published figures"
    with pytest.raises(GlunetError, match=r"none of 1 pairs could be measured; the first: /data/x\.png: missing"):
        evaluate(dataset([Pair("x", load)]), Identity())


@pytest.mark.parametrize(
    ("sample", "message"),
    [
        (Sample(GREY, GREY, FlowTruth(np.zeros((20, 29, 2), np.float32), np.ones((20, 29), bool))), "29x20 pixels"),
        (Sample(GREY, GREY, FlowTruth(np.zeros((20, 30, 2), np.float32), np.zeros((20, 30), bool))), "no pixel of"),
        (Sample(GREY, GREY, FlowTruth(np.full((20, 30, 2), 1e10, np.float32), np.ones((20, 30), bool))), "beyond any"),
        (
            Sample(GREY, GREY, FlowTruth(np.full((20, 30, 2), np.nan, np.float32), np.ones((20, 30), bool))),
            "beyond any",
        ),
        (Sample(GREY, GREY, PointTruth(np.zeros((0, 2)), np.zeros((0, 2)))), "no point is annotated"),
        (Sample(GREY, GREY, PointTruth(np.zeros((2, 2)), np.zeros((3, 2)))), "as many points"),
        (Sample(GREY, GREY, PointTruth(np.array([[40.0, 3]]), np.zeros((1, 2)))), "outside its target"),
        (Sample(GREY, GREY, PointTruth(np.array([[1.0, 3]]), np.array([[np.nan, 3]]))), "not finite"),
    ],
)
def test_truth_that_cannot_be_measured_against(sample: Sample, message: str) -> None:
    with pytest.raises(GlunetError, match=message):
        evaluate(dataset([Pair("x", lambda: sample)]), Identity())


class Wrong(Identity):
    """Gives whatever it was made with."""

    identity = "wrong"

    def __init__(self, flow: NDArray[np.float32]) -> None:
        self.flow = flow

    def match(self, source: NDArray[np.uint8], target: NDArray[np.uint8]) -> NDArray[np.float32]:
        return self.flow


def test_a_method_that_returns_nonsense_is_stopped() -> None:
    with pytest.raises(GlunetError, match="not finite"):
        evaluate(dataset(PAIRS), Wrong(np.full((20, 30, 2), np.nan, np.float32)))
    with pytest.raises(GlunetError, match=r"returned \(3, 4, 2\), expected \(20, 30, 2\)"):
        evaluate(dataset(PAIRS), Wrong(np.zeros((3, 4, 2), np.float32)))


# Predictions that are kept


class Counting(Identity):
    """No motion, but how often it was asked is known, and it may be killed."""

    batch = 2

    def __init__(self, identity: str = "counting", killed_at: int | None = None) -> None:
        self.identity, self.killed_at = identity, killed_at
        self.batches: list[int] = []

    def match_many(self, pairs: list[tuple[NDArray[np.uint8], NDArray[np.uint8]]]) -> list[NDArray[np.float32]]:
        if self.killed_at is not None and len(self.batches) == self.killed_at:
            raise KeyboardInterrupt
        self.batches.append(len(pairs))
        return super().match_many(pairs)


MANY = [pair(f"p{n}", [n]) for n in range(5)]


def test_batches_hold_pairs_of_one_size() -> None:
    mixed = [*MANY[:3], pair("wide", [1], size=(20, 40)), pair("wider", [2], size=(20, 40)), MANY[3]]
    counting = Counting()
    results = evaluate(dataset(mixed), counting)
    assert counting.batches == [2, 1, 2, 1]
    assert [score.name for score in results.scores] == ["p0", "p1", "p2", "wide", "wider", "p3"]
    assert results.figure("aepe") == pytest.approx((0 + 1 + 2 + 1 + 2 + 3) / 6)


def test_a_killed_run_goes_on(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        evaluate(dataset(MANY), Counting(killed_at=1), cache=cache)
    resumed = Counting()
    results = evaluate(dataset(MANY), resumed, cache=cache)
    assert sum(resumed.batches) == 3
    fresh = evaluate(dataset(MANY), Counting())
    assert [s.sums for s in results.scores] == [s.sums for s in fresh.scores]
    again = Counting()
    assert evaluate(dataset(MANY), again, cache=cache).seconds is None
    assert again.batches == []


def test_other_weights_or_pixels_are_predicted_anew(tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    evaluate(dataset(MANY[:1]), Counting("one"), cache=cache)
    other = Counting("two")
    evaluate(dataset(MANY[:1]), other, cache=cache)
    assert other.batches == [1]
    key = content_key(GREY, GREY)
    assert key != content_key(GREY, GREY + np.eye(20, 30, dtype=np.uint8)[..., None])
    assert key != content_key(GREY.reshape(30, 20, 3), GREY.reshape(30, 20, 3))


@pytest.mark.parametrize("content", [b"", b"\x93NUMPY half of it"])
def test_a_damaged_prediction_is_made_anew(content: bytes, tmp_path: Path) -> None:
    cache = Cache(tmp_path)
    evaluate(dataset(MANY[:1]), Counting(), cache=cache)
    (file,) = tmp_path.rglob("*.npy")
    file.write_bytes(content)
    again = Counting()
    evaluate(dataset(MANY[:1]), again, cache=cache)
    assert again.batches == [1]
    assert np.load(file).shape == (20, 30, 2)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == [file.name]


def test_two_truths_of_the_same_images_are_predicted_once(tmp_path: Path) -> None:
    layouts.kitti2015(tmp_path)
    counting = Counting()
    counting.batch = 1
    results = evaluate(benchmark("kitti2015").open(tmp_path), counting)
    assert counting.batches == [1]
    assert [score.group for score in results.scores] == ["occ", "noc"]


# Reading a flow at points, and a homography out of it


def test_points_are_read_bilinearly_or_at_the_nearest_pixel() -> None:
    y, x = np.mgrid[:8, :10]
    flow = np.stack((2.0 * x + y, 3.0 * y), axis=-1)
    points = np.array([[2.25, 3.5], [0, 0], [9, 7], [8.5, 6.75], [-0.4, 7.4]])
    bilinear = at_points(flow, points)
    np.testing.assert_allclose(bilinear, [[8, 10.5], [0, 0], [25, 21], [23.75, 20.25], [7, 21]])
    # Halves go up; beyond the border counts as the border.
    nearest = at_points(flow, points, nearest=True)
    np.testing.assert_allclose(nearest, [[2 * 2 + 4, 12], [0, 0], [25, 21], [18 + 7, 21], [7, 21]])


def test_a_homography_comes_back_out_of_its_flow() -> None:
    # Target (x, y) is source (1.2 x + 5, 0.9 y - 3): source to target x = (X - 5) / 1.2, y = (Y + 3) / 0.9.
    y, x = np.mgrid[:200, :300].astype(np.float64)
    flow = np.stack((0.2 * x + 5, -0.1 * y - 3), axis=-1)
    matrix = homography_of_flow(flow, (240, 320))
    assert matrix is not None
    truth = np.array([[1 / 1.2, 0, -5 / 1.2], [0, 1 / 0.9, 3 / 0.9], [0, 0, 1]])
    np.testing.assert_allclose(matrix / matrix[2, 2], truth, atol=1e-3)
    assert homography_of_flow(flow + 10000, (240, 320)) is None


def test_homography_sets_are_scored_by_corners() -> None:
    target = Sample(GREY, GREY, HomographyTruth(np.array([[1, 0, 3.0], [0, 1, 4], [0, 0, 1]])))
    made = dataset([Pair("x", lambda: target)], metrics=("auc3", "auc10"))
    results = evaluate(made, Identity())
    # One error of 5 px: nothing up to 3; up to 10 a triangle 5 wide and 5 px of full recall.
    assert results.scores[0].corner_error == pytest.approx(5, abs=1e-3)
    assert results.figure("auc3") == 0
    assert results.figure("auc10") == pytest.approx(0.75, abs=1e-3)
    assert json.dumps(results.to_json())


# Tables, pictures, figures that must not drift


def made_results() -> Results:
    published = (Published("Somebody", "A paper, 2020", {("all", "aepe"): 1.25, ("g", "aepe"): 2.5}),)
    return evaluate(dataset(PAIRS, over="groups", published=published, full=9), Identity())


def test_tables_show_parts_and_sources() -> None:
    first, second = tables.of_benchmark([made_results()])
    markdown = first.markdown()
    assert "| no motion | 4.50 |" in markdown
    assert "| published: Somebody | 1.25 |" in markdown
    assert "3 of 9 pairs: not comparable with published figures" in markdown
    assert "Somebody: A paper, 2020." in markdown
    assert second.head == ("method", "g", "h")
    assert second.rows == (("no motion", "3.00", "6.00"), ("published: Somebody", "2.50", ""))
    assert tables.of_all([[made_results()]], ["x was not measured"]).notes[-1] == "x was not measured"


@pytest.mark.parametrize(
    ("metric", "heading", "shown"),
    [
        ("aepe", "AEPE px", "0.46"),
        ("pck1", "PCK-1 %", "45.7"),
        ("fl", "Fl %", "45.7"),
        ("auc10", "AUC@10 %", "45.7"),
        ("pck_0.05", "PCK@0.05 %", "45.7"),
        ("pck_0.1_kp", "PCK@0.1 (kp) %", "45.7"),
    ],
)
def test_headings(metric: str, heading: str, shown: str) -> None:
    assert tables.label(metric) == heading
    assert tables.text(metric, 0.4567) == shown


def test_every_metric_of_every_benchmark_has_figures(tmp_path: Path) -> None:
    """Published figures are of metrics and groups that exist, and shares are shares."""
    from glunet.evaluation import BENCHMARKS

    for item in BENCHMARKS.values():
        assert all(tables.label(metric) for metric in (*item.metrics, *item.summary))
        for entry in item.published:
            assert entry.source
            for (_, metric), value in entry.figures.items():
                assert metric in item.metrics
                assert value > 0
                assert metric == "aepe" or value < 1


def test_drift_is_told(tmp_path: Path) -> None:
    results = made_results()
    figures: expected.Expected = {}
    expected.record(figures, [results])
    path = expected.save(figures, tmp_path / "figures.json")
    figures = expected.load(path)
    assert expected.check(figures, [results]) == ([], [])
    for methods in figures["made-up"].values():
        methods["no motion"]["aepe"] *= 1.1
    drifted, unknown = expected.check(figures, [results])
    assert drifted == ["made-up, no motion: AEPE px is 4.50, expected 4.95."]
    assert unknown == []
    less = evaluate(dataset(PAIRS[:2]), Identity())
    assert expected.check(figures, [less])[1] == [f"made-up, no motion, {expected.key_of(less)[1]}"]


def test_committed_figures_hold_where_no_data_is_needed() -> None:
    pytest.importorskip("skimage")
    results = [evaluate(benchmark("motorcycle").open(), m) for m in (Identity(), Dis())]
    assert expected.check(expected.load(), results) == ([], [])


def test_worst_pictures(tmp_path: Path) -> None:
    copy = layouts.pairs(tmp_path / "data")
    opened = benchmark("pairs").open(copy.root)
    results = evaluate(opened, Identity())
    written = write_worst(opened, Identity(), results, 2, tmp_path / "worst")
    assert len(written) == 2
    assert all(path.stat().st_size > 2000 for path in written)
    assert "-01-" in written[0].name


def test_all_sets_below_a_folder(tmp_path: Path) -> None:
    layouts.middlebury(tmp_path / "middlebury")
    layouts.tss(tmp_path / "TSS_CVPR2016")
    (tmp_path / "KITTI2012").mkdir()
    by_benchmark, failed, datasets = evaluate_all(tmp_path, [Identity()])
    assert [results[0].benchmark.name for results in by_benchmark] == ["motorcycle", "middlebury", "tss"]
    assert len(failed) == 1
    assert failed[0].startswith("KITTI 2012 was not measured: ")
    assert set(datasets) == {"motorcycle", "middlebury", "tss"}
    with pytest.raises(GlunetError, match="no such folder"):
        evaluate_all(tmp_path / "nowhere", [Identity()])


def test_no_motion_for_another_size_is_the_design_s() -> None:
    flow = Identity().match(np.zeros((24, 50, 3), np.uint8), GREY)
    same = frame_flow_to_source(torch.zeros(1, 2, 20, 30), (24, 50))[0].permute(1, 2, 0).numpy()
    np.testing.assert_array_equal(flow, same)
