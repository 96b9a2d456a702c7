"""Batches: what is written for each pair, and that each is written once, whatever happens in between."""

import errno
import os
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Command
from glunet.batch import run
from glunet.batch.run import Done, Job
from glunet.errors import GlunetError
from glunet.flow.files import read_flow
from glunet.images import pairs as pair_lists
from glunet.images.folders import smaller
from glunet.images.pairs import every
from glunet.images.reading import load_pixels
from untrained import matcher as untrained

pq = pytest.importorskip("pyarrow.parquet")
pytest.importorskip("fsspec")

PAIRS = [(f"{i}.png", f"{j}.png") for i, j in every(3)]
PLAIN = {"search": "none", "polish": False}


@pytest.fixture
def photos(smooth_pictures: Callable[[int], Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with three images, and random weights in the place of the package's."""
    monkeypatch.setattr(run, "load", lambda *names, **settings: untrained())
    return smooth_pictures(3)


def job(photos: Path, **changed: Any) -> Job:
    return Job(str(photos), photos.parent / "out", **{"least": 0.01, **changed})


def rows(folder: Path) -> list[dict[str, Any]]:
    """All rows, in the order of their names."""
    files = [pq.read_table(path).to_pylist() for path in folder.glob("*.parquet")]
    return sorted((row for file in files for row in file), key=lambda row: (row["source"], row["target"]))


def named(folder: Path) -> list[pair_lists.Names]:
    return [(row["source"], row["target"]) for row in rows(folder)]


def test_a_row_says_what_the_match_of_the_pair_says(photos: Path) -> None:
    run.run(job(photos, size=80, flows=True, points=50), PAIRS[:2], block=4)
    assert named(photos.parent / "out") == PAIRS[:2]
    assert pq.read_table(photos.parent / "out").num_rows == 2  # the folder is a data set, whatever else is in it
    for row in rows(photos.parent / "out"):
        source, target = (smaller(load_pixels(photos / row[role]), 80) for role in ("source", "target"))
        match = untrained().match(source, target)
        points = match.sample(50, 0.01)
        assert row["error"] is None
        assert row["source_size"] == row["target_size"] == [120, 160]
        assert row["score"] == pytest.approx(match.verdict.score)
        assert row["same"] is match.verdict.same
        np.testing.assert_allclose(row["target_points"], points.target * 2 + 0.5, rtol=1e-6)
        np.testing.assert_allclose(row["source_points"], points.source * 2 + 0.5, atol=1e-3)
        np.testing.assert_array_equal(np.array(row["confidence"], np.float32), points.confidence)
        flow = read_flow(photos.parent / "out" / row["flow"])
        np.testing.assert_array_equal(flow.flow, match.flow)
        assert flow.metadata["weights"] == "untrained"


def test_a_bad_image_fails_its_pairs_only(photos: Path) -> None:
    (photos / "bad.png").write_bytes(b"nothing")
    told: list[Done] = []
    run.run(job(photos), [*PAIRS, ("bad.png", "0.png"), ("1.png", "gone.png")], block=3, watch=told.append)
    failed = {(row["source"], row["target"]): row["error"] for row in rows(photos.parent / "out") if row["error"]}
    assert set(failed) == {("bad.png", "0.png"), ("1.png", "gone.png")}
    assert "not an image" in failed["bad.png", "0.png"]
    assert "does not exist" in failed["1.png", "gone.png"]
    assert sum(done.failed for done in told) == 2
    assert sum(done.pairs for done in told) == len(rows(photos.parent / "out")) == 5


class Enough(Exception):
    pass


def test_a_run_that_was_ended_goes_on_and_each_pair_is_written_once(photos: Path) -> None:
    def ended(done: Done) -> None:
        raise Enough

    with pytest.raises(Enough):
        run.run(job(photos), PAIRS[:2], block=1, watch=ended)
    out = photos.parent / "out"
    assert len(rows(out)) == 1
    (out / ".part-0123-x.parquet").write_bytes(b"half")  # of a process that was killed
    assert run.run(job(photos), PAIRS[:2], block=1) == 1
    assert run.run(job(photos), [(b, a) for a, b in PAIRS], block=4) == 2  # the list has grown
    assert sorted(map(sorted, named(out))) == sorted(map(sorted, PAIRS))
    assert not list(out.glob(".part-*"))


def test_a_full_disk_loses_nothing_that_was_written(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real, calls = pq.write_table, []

    def full(table: Any, path: Path) -> None:
        calls.append(path)
        if len(calls) == 2:
            Path(path).write_bytes(b"half")
            raise OSError(errno.ENOSPC, "No space left on device")
        real(table, path)

    monkeypatch.setattr(pq, "write_table", full)
    with pytest.raises(GlunetError, match=r"No space left on device.*the same command goes on from there"):
        run.run(job(photos), PAIRS, block=1)
    out = photos.parent / "out"
    assert (len(rows(out)), list(out.glob(".part-*"))) == (1, [])
    assert run.run(job(photos), PAIRS, block=1) == 1
    assert named(out) == PAIRS


def test_results_of_other_settings_are_not_mixed(photos: Path) -> None:
    run.run(job(photos), PAIRS[:1])
    with pytest.raises(GlunetError, match="begun with another size, points"):
        run.run(job(photos, size=64, points=7), PAIRS)
    assert len(rows(photos.parent / "out")) == 1
    shutil.copytree(photos.parent / "out", photos.parent / "strange")
    (photos.parent / "strange/_batch.json").unlink()
    with pytest.raises(GlunetError, match="something else"):
        run.run(Job(str(photos), photos.parent / "strange"), PAIRS)


def test_images_come_from_any_address_of_fsspec(photos: Path) -> None:
    import fsspec

    memory = fsspec.filesystem("memory")
    memory.put(str(photos) + "/", "/batch/", recursive=True)
    memory.pipe("/batch/bad.png", b"nothing")
    try:
        pairs = [*PAIRS[:1], ("0.png", "bad.png"), ("0.png", "gone.png")]
        run.run(Job("memory://batch", photos.parent / "far", least=0.01), pairs)
    finally:
        memory.rm("/batch", recursive=True)
    run.run(job(photos), PAIRS[:1])
    found = rows(photos.parent / "far")
    assert found[:1] == rows(photos.parent / "out")
    assert "/batch/bad.png' is not an image" in found[1]["error"]
    assert "/batch/gone.png' cannot be read" in found[2]["error"]


def test_what_cannot_be_is_said_before_anything_is_made(photos: Path, command: Command) -> None:
    out = photos.parent / "out"
    pair_lists.write(photos.parent / "pairs.txt", PAIRS)
    for words, told in (
        (("--images", photos / "gone"), "is no folder"),
        (("--images", "nowhere://bucket"), "cannot be reached"),
        (("--images", photos, "--workers", 2), "--ray local"),
    ):
        code, _, said = command("batch", photos.parent / "pairs.txt", *words, "--out", out)
        assert (code, told in said, out.exists()) == (2, True, False), said


@pytest.mark.parametrize(("library", "extra"), [("pyarrow", "batch"), ("fsspec", "batch"), ("ray", "ray")])
def test_a_missing_library_is_named(photos: Path, monkeypatch: pytest.MonkeyPatch, library: str, extra: str) -> None:
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(GlunetError, match=rf"pip install 'glunet\[{extra}\]'"):
        run.run(job(photos), PAIRS, ray="local")


def test_the_command(photos: Path, command: Command) -> None:
    pair_lists.write(photos.parent / "pairs.txt", [*PAIRS, ("0.png", "gone.png")])
    words = ("batch", photos.parent / "pairs.txt", "--images", photos, "--out", photos.parent / "out", "--block", 4)
    code, out, told = command(*words)
    assert code == 0
    assert "3 pairs matched, 1 failed, 0 were there before" in out
    assert "gone.png" in told
    assert "0 pairs matched, 0 failed, 4 were there before" in command(*words)[1]


@pytest.mark.filterwarnings("ignore")  # Ray's own
def test_a_worker_that_is_killed_loses_nothing(smooth_pictures: Callable[[int], Path]) -> None:
    pytest.importorskip("ray.data")
    photos = smooth_pictures(4)
    pairs = [(f"{i}.png", f"{j}.png") for i, j in every(4)] + [("0.png", "gone.png")]
    workers: list[int] = []

    def watch(done: Done) -> None:
        workers.append(done.worker)
        if len(workers) == 1:
            os.kill(done.worker, signal.SIGKILL)

    ray_out = photos.parent / "ray"
    run.run(Job(str(photos), ray_out, settings=PLAIN, workers=2), pairs, block=1, ray="local", watch=watch)
    assert len(set(workers)) > 1
    assert not list(ray_out.glob(".part-*"))
    run.run(Job(str(photos), photos.parent / "here", settings=PLAIN), pairs, block=1)
    assert named(ray_out) == sorted(pairs)
    assert rows(ray_out) == rows(photos.parent / "here")
