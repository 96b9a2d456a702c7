"""Every loader on a tiny copy of its official layout: direction, resizing, masks, which mean, and damaged data."""

from pathlib import Path

import numpy as np
import pytest

import layouts
from glunet import GlunetError
from glunet.evaluation.baselines import Identity
from glunet.evaluation.datasets import BENCHMARKS, FlowTruth, HomographyTruth, PointTruth, Sample, benchmark
from glunet.evaluation.run import evaluate
from glunet.evaluation.scoring import check_sample
from glunet.geometry.estimation import apply_homography


def open_copy(name: str, tmp_path: Path) -> tuple[layouts.Copy, dict[str, Sample]]:
    copy = layouts.COPIES[name](tmp_path)
    dataset = benchmark(name).open(tmp_path)
    return copy, {pair.name: pair.load() for pair in dataset.pairs}


def is_coloured(image: np.ndarray, point: tuple[float, float], colour: tuple[int, int, int]) -> bool:
    """Whether the pixel nearest to a point has nearly the colour, after whatever resizing the protocol asks for."""
    x, y = (int(np.floor(value + 0.5)) for value in point)
    if not (0 <= y < image.shape[0] and 0 <= x < image.shape[1]):
        return False
    return bool(np.abs(image[y, x].astype(int) - colour).max() < 60)


@pytest.mark.parametrize("name", layouts.COPIES)
def test_truth_carries_the_target_to_the_source(name: str, tmp_path: Path) -> None:
    copy, samples = open_copy(name, tmp_path)
    assert len(samples) == copy.pairs
    groups = {pair.name: pair.group for pair in benchmark(name).open(tmp_path).pairs}
    for expected in copy.expected:
        sample = samples[expected.name]
        check_sample(sample)
        assert groups[expected.name] == expected.group
        for target, source, colour in zip(expected.target, expected.source, layouts.COLOURS, strict=False):
            assert is_coloured(sample.target, target, colour)
            assert is_coloured(sample.source, source, colour)
            # And nowhere else: a loader that swaps the images would pass where nothing moves.
            assert not is_coloured(sample.source, target, colour)
            truth = sample.truth
            if isinstance(truth, PointTruth):
                nearest = np.abs(truth.target - target).sum(axis=1).argmin()
                np.testing.assert_allclose(truth.target[nearest], target, atol=1e-6)
                np.testing.assert_allclose(truth.source[nearest], source, atol=1e-6)
            else:
                assert isinstance(truth, FlowTruth)
                x, y = (int(np.floor(value + 0.5)) for value in target)
                assert truth.valid[y, x]
                carried = np.array(target) + truth.flow[y, x]
                np.testing.assert_allclose(carried, source, atol=expected.tolerance)


@pytest.mark.parametrize("name", layouts.COPIES)
def test_a_part_is_called_a_part_and_no_motion_is_wrong(name: str, tmp_path: Path) -> None:
    copy = layouts.COPIES[name](tmp_path)
    results = evaluate(benchmark(name).open(tmp_path), Identity())
    assert not results.skipped
    assert results.part == (f"{copy.part}: not comparable with published figures" if copy.part else None)
    for metric in benchmark(name).metrics:
        assert np.isfinite(results.figure(metric))
    if benchmark(name).metrics[0] == "aepe":
        assert results.headline > 3


def test_the_folder_above_will_do_as_well(tmp_path: Path) -> None:
    layouts.middlebury(tmp_path / "middlebury")
    assert len(benchmark("middlebury").open(tmp_path).pairs) == 1


# Masks, sizes and references


def test_view_of_a_homography_set(tmp_path: Path) -> None:
    """At 240 x 240 target x shows source (x / 1.5 - 10) / 2 * 2.4 = 0.8 x - 12, so that x < 15 looks out of it."""
    _, samples = open_copy("hpatches-240", tmp_path)
    truth = samples["v_one/1-2"].truth
    assert isinstance(truth, FlowTruth)
    columns = truth.valid[120]
    assert columns.argmax() == 15
    assert columns[15:].all()
    # y: source = (y / 2 + 6) / 2 * 3 = 0.75 y + 9 stays below 239.
    assert truth.valid[:, 120].all()


def test_kitti_masks(tmp_path: Path) -> None:
    _, samples = open_copy("kitti2015", tmp_path)
    counts = {name: int(sample.truth.valid.sum()) for name, sample in samples.items()}  # type: ignore[union-attr]
    assert counts == {"000003_10/occ": 54 * 48, "000003_10/noc": 50 * 48}


def test_sintel_and_middlebury_masks(tmp_path: Path) -> None:
    _, samples = open_copy("sintel", tmp_path / "a")
    assert int((~samples["clean/alley_1/frame_0007"].truth.valid).sum()) == 100  # type: ignore[union-attr]
    _, samples = open_copy("middlebury", tmp_path / "b")
    truth = samples["Venus"].truth
    assert isinstance(truth, FlowTruth)
    assert np.argwhere(~truth.valid).tolist() == [[0, 0], [7, 5]]
    assert truth.flow[~truth.valid].max() == 0


def test_tss_is_padded_and_masked(tmp_path: Path) -> None:
    _, samples = open_copy("tss", tmp_path)
    one, two = samples["JODS/car_01_02/1"], samples["JODS/car_01_02/2"]
    for sample in (one, two):
        assert sample.source.shape == sample.target.shape == (56, 64, 3)
        assert isinstance(sample.truth, FlowTruth)
    # 40 x 35 pixels of object, one of them unknown; nothing is valid in the padding.
    assert int(one.truth.valid.sum()) == 40 * 35 - 1  # type: ignore[union-attr]
    assert not one.truth.valid[48:].any()  # type: ignore[union-attr]
    assert not two.truth.valid[:, 60:].any()  # type: ignore[union-attr]
    assert one.target[48:].max() == 0
    # alpha counts the longer side of the source as it was: image 2 (60 x 56) for target 1.
    assert one.references == {"": 60}
    assert two.references == {"": 64}


def test_references_of_key_point_sets(tmp_path: Path) -> None:
    # a spans 28 x 18, b 24 x 22; the source of a-b is a.
    _, samples = open_copy("pf-willow", tmp_path / "a")
    assert samples["car(S)/a-b"].references[""] == pytest.approx(28)
    assert samples["car(S)/b-a"].references[""] == pytest.approx(24)
    _, samples = open_copy("pf-pascal", tmp_path / "b")
    assert samples["bicycle/a-b"].references == pytest.approx({"img": 56, "kp": 28})
    assert len(samples["bicycle/a-b"].truth.target) == 3  # type: ignore[union-attr]
    _, samples = open_copy("spair", tmp_path / "c")
    assert samples["000001-a-b:car"].references == {"": 35}


def test_pf_pascal_reads_points_from_the_list(tmp_path: Path) -> None:
    copy = layouts.pf_pascal(tmp_path)
    cells = [";".join(str(p[i] + 1) for p in layouts.KEYS[k]) for k in "ab" for i in (0, 1)]
    head = "source_image,target_image,class,XA,YA,XB,YB"
    layouts.text(
        tmp_path / "test_pairs_pf_pascal.csv", f"{head}\nJPEGImages/a.jpg,JPEGImages/b.jpg,2,{','.join(cells)}\n"
    )
    (pair,) = benchmark("pf-pascal").open(tmp_path).pairs
    truth = pair.load().truth
    assert isinstance(truth, PointTruth)
    np.testing.assert_allclose(truth.target, copy.expected[0].target)
    np.testing.assert_allclose(truth.source, copy.expected[0].source)


def test_point_lists_are_shortened_and_padded(tmp_path: Path) -> None:
    _, samples = open_copy("megadepth", tmp_path)
    (sample,) = samples.values()
    assert sample.source.shape == sample.target.shape == (592, 768, 3)


def test_hpatches_homography(tmp_path: Path) -> None:
    """Shorter side 480: the source 100 x 80 becomes 600 x 480 (6 times), the target 160 x 120 640 x 480 (4 times)."""
    layouts.hpatches(tmp_path)
    dataset = benchmark("hpatches-homography").open(tmp_path)
    assert [pair.group for pair in dataset.pairs] == ["illumination"] * 5 + ["viewpoint"] * 5
    sample = dataset.pairs[5].load()
    assert sample.source.shape == (480, 600, 3)
    assert sample.target.shape == (480, 640, 3)
    assert isinstance(sample.truth, HomographyTruth)
    source, target = layouts.scaled(layouts.PLANAR_SOURCE, 6, 6), layouts.scaled(layouts.PLANAR_TARGET, 4, 4)
    np.testing.assert_allclose(apply_homography(sample.truth.matrix, np.array(source)), target)


def test_motorcycle_is_half_a_stereo_pair() -> None:
    (pair,) = benchmark("motorcycle").open().pairs
    sample = pair.load()
    truth = sample.truth
    assert isinstance(truth, FlowTruth)
    assert 0.5 < truth.valid.mean() < 1
    assert (truth.flow[..., 0][truth.valid] < 0).all()
    assert (truth.flow[..., 1] == 0).all()


# Bad data: said with the path, never passed over


def all_files(root: Path) -> list[Path]:
    return sorted(path for path in root.rglob("*") if path.is_file())


def outcome(name: str, root: Path) -> tuple[int, list[str]]:
    """How many pairs were measured or skipped, and everything that was said."""
    try:
        results = evaluate(benchmark(name).open(root), Identity())
    except GlunetError as error:
        return 10**6, [str(error)]
    if results.skipped:
        assert results.part is not None
        assert f"{len(results.skipped)} skipped" in results.part
    return len(results.scores) + len(results.skipped), [skip.reason for skip in results.skipped]


@pytest.mark.parametrize("name", layouts.COPIES)
@pytest.mark.parametrize("damage", ["missing", "empty", "half"])
def test_damage_is_said_with_the_path(name: str, damage: str, tmp_path: Path) -> None:
    """Any one file missing, empty or cut in half: an error or a skipped pair that names it, never a pair fewer."""
    whole = layouts.COPIES[name](tmp_path / "whole")
    for number, file in enumerate(all_files(whole.root)):
        if damage == "half" and file.suffix not in {".png", ".ppm", ".jpg", ".flo", ".mat", ".json"}:
            continue  # half a text may be a whole one
        root = tmp_path / f"{damage}{number}"
        path = layouts.COPIES[name](root).root / file.relative_to(whole.root)
        content = path.read_bytes()
        path.unlink()
        if damage != "missing":
            path.write_bytes(content[: len(content) // 2] if damage == "half" else b"")
        pairs, said = outcome(name, root)
        assert pairs >= whole.pairs
        assert all(str(root) in sentence for sentence in said)
        assert said or any(name in str(file.relative_to(whole.root)) for name in whole.unused)


@pytest.mark.parametrize("name", [n for n in BENCHMARKS if n != "motorcycle"])
def test_wrong_places_are_said(name: str, tmp_path: Path) -> None:
    with pytest.raises(GlunetError, match="no such folder"):
        benchmark(name).open(tmp_path / "nowhere")
    with pytest.raises(GlunetError, match="expected"):
        benchmark(name).open(tmp_path)
    with pytest.raises(GlunetError, match="needs the folder"):
        benchmark(name).open()


def test_truth_of_another_size(tmp_path: Path) -> None:
    layouts.middlebury(tmp_path)
    layouts.flo(tmp_path / "other-gt-flow/Venus/flow10.flo", (60, 48), 1, 1)
    with pytest.raises(GlunetError, match=r"60x48, but frame10\.png is 64x48"):
        evaluate(benchmark("middlebury").open(tmp_path), Identity())


def test_an_empty_mask_is_no_nan(tmp_path: Path) -> None:
    layouts.tss(tmp_path)
    layouts.mask(tmp_path / "JODS/car_01_02/mask1.png", (64, 48), slice(0, 0), slice(0, 0))
    results = evaluate(benchmark("tss").open(tmp_path), Identity())
    assert [skip.name for skip in results.skipped] == ["JODS/car_01_02/1"]
    assert "leaves no pixel" in results.skipped[0].reason
    assert np.isfinite(results.headline)
    assert results.part is not None
    assert "1 of 2 pairs, 1 skipped" in results.part


def test_a_singular_homography(tmp_path: Path) -> None:
    layouts.hpatches(tmp_path)
    layouts.text(tmp_path / "v_one/H_1_4", "1 0 0 2 0 0 0 0 1")
    results = evaluate(benchmark("hpatches").open(tmp_path), Identity())
    assert [skip.name for skip in results.skipped] == ["v_one/1-4"]
    assert "H_1_4: expected an invertible homography" in results.skipped[0].reason


@pytest.mark.parametrize(
    ("row", "message"),
    [
        ("s.png,t.png,,,", "no truth given"),
        ("s.png,t.png,f.flo,h.txt,", "flow and homography given"),
        (",t.png,f.flo,,", "no source or no target"),
        ("s.png,t.png,,,nine.txt", "missing; expected a file of points"),
    ],
)
def test_a_csv_row_that_says_too_little(row: str, message: str, tmp_path: Path) -> None:
    layouts.pairs(tmp_path)
    layouts.text(tmp_path / "mine.csv", f"source,target,flow,homography,points\n{row}\n")
    with pytest.raises(GlunetError, match=message):
        evaluate(benchmark("pairs").open(tmp_path / "mine.csv"), Identity())


def test_an_unknown_set_is_said() -> None:
    with pytest.raises(GlunetError, match="no evaluation set 'kitty'; there are hpatches-240"):
        benchmark("kitty")
