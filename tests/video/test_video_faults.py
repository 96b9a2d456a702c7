"""What a video command must not do: mix two films, take its results for frames, or call a cut-off film complete."""

import json
from functools import partial

import pytest
from PIL import Image

from glunet import loading
from glunet.video.reader import open_frames

av = pytest.importorskip("av")

from films import Pan, picture, write_frames, write_video  # noqa: E402


@pytest.fixture
def run(monkeypatch, command):
    """`run(...)` -> exit code, stdout, stderr of `glunet video ...`."""
    monkeypatch.setattr(loading, "load", lambda name, device, **settings: Pan())
    return partial(command, "video")


def test_resume_of_an_exchanged_film_is_refused(run, tmp_path):
    out, five = tmp_path / "out", write_video(tmp_path / "in.mov", [picture(n) for n in range(5)])
    assert run(five, "--out", out)[0] == 0
    write_video(five, [picture(n)[::-1].copy() for n in range(5)])
    (out / "000000-to-000001.flo").unlink()
    code, _, errors = run(five, "--out", out, "--resume")
    assert code == 2
    assert "another content" in errors


def test_frames_that_were_exchanged_are_noticed(run, tmp_path):
    folder, out = write_frames(tmp_path / "frames", 3), tmp_path / "out"
    assert run(folder, "--out", out)[0] == 0
    assert run(folder, "--out", out, "--resume")[0] == 0
    Image.fromarray(picture(7)).save(folder / "1.png")
    code, _, errors = run(folder, "--out", out, "--resume")
    assert code == 2
    assert "another content" in errors


def test_results_are_never_taken_for_frames(run, tmp_path):
    folder = write_frames(tmp_path / "frames", 3)
    for out in (folder, tmp_path / "frames" / ".." / "frames"):
        code, _, errors = run(folder, "--out", out, "--format", "png")
        assert code == 2
        assert "name another" in errors
    assert len(list(folder.iterdir())) == 3


@pytest.mark.parametrize("suffix", [".mkv", ".mov", ".mp4"])
def test_a_cut_off_film_is_not_called_complete(run, tmp_path, suffix):
    codec = {".mkv": "ffv1", ".mov": "png", ".mp4": "mpeg4"}[suffix]
    options = {"movflags": "faststart"} if suffix != ".mkv" else {}
    path = write_video(tmp_path / f"in{suffix}", [picture(n) for n in range(30)], codec=codec, **options)
    assert open_frames(path).count == 30
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * 0.6)])
    cut = open_frames(path)
    assert cut.count >= 29
    assert cut.stored < 29
    code, _, errors = run(path, "--out", tmp_path / "out")
    assert code == 2
    assert "frame" in errors, "the first that is damaged, or that the file ends before"
    assert json.loads((tmp_path / "out" / "video.json").read_text())["complete"] is False
