"""Video: what is read and what is written, by PyAV's and OpenCV's own eyes; broken, odd and cut-off files; memory."""

import gc
import json
import sys
import weakref
from dataclasses import replace
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest

from glunet import loading
from glunet.errors import GlunetError
from glunet.flow.files import read_flow
from glunet.images.folders import natural
from glunet.inference.confidence import Calibration
from glunet.inference.encoded import Encoded
from glunet.match import Match
from glunet.video import film as film_module
from glunet.video import stabilise
from glunet.video.film import film
from glunet.video.flows import flows
from glunet.video.reader import open_frames
from untrained import matcher as untrained

av = pytest.importorskip("av")

from films import PAN, SIZE, Pan, frames_of, number_of, picture, write_frames, write_video  # noqa: E402

VideoStream = av.video.stream.VideoStream


@pytest.fixture
def pan() -> Pan:
    return Pan()


@pytest.fixture
def run(command_with, pan):
    return command_with("video", pan)


@pytest.fixture
def five(tmp_path) -> Path:
    return write_video(tmp_path / "in.mov", [picture(n) for n in range(5)])


# What is written


@pytest.mark.parametrize(("direction", "sign"), [("forward", -1), ("backward", 1)])
def test_consecutive_frames(run, pan, five, tmp_path, direction, sign):
    """Forward, what is at x on the earlier frame's grid is at x - PAN in the later one, as the window moves on."""
    out = tmp_path / "out"
    code, printed, errors = run(five, "--out", out, "--direction", direction)
    assert (code, errors) == (0, "")
    pairs = [(n, n + 1) if direction == "forward" else (n + 1, n) for n in range(4)]
    names = [f"{target:06d}-to-{source:06d}.flo" for target, source in pairs]
    assert sorted(path.name for path in out.iterdir()) == sorted([*names, "video.json"])
    assert str(out / names[0]) in printed
    for name in names:
        assert np.allclose(cv2.readOpticalFlow(str(out / name)), np.float32(PAN) * sign)
    assert sorted(pan.encoded) == list(range(5))  # each once
    told = json.loads((out / "video.json").read_text())
    assert told["complete"] is True
    assert told["flow_size"] == list(SIZE)
    assert [(pair["target"], pair["source"]) for pair in told["pairs"]] == pairs
    times = [pair["time"] for pair in told["pairs"]]
    assert times == pytest.approx([0.1 * target for target, _ in pairs])
    assert told["weights"] == "pan"


def test_against_a_fixed_frame(run, pan, five, tmp_path):
    out = tmp_path / "out"
    code, _, errors = run(five, "--out", out, "--against", 2, "--from", 1, "--format", "png", "--mp4", "warped")
    assert (code, errors) == (0, "")
    assert sorted(path.name for path in out.glob("*.png")) == [f"000002-to-00000{n}.png" for n in (1, 3, 4)]
    assert sorted(pan.encoded) == [1, 2, 3, 4]
    pixels = cv2.imread(str(out / "000002-to-000004.png"), cv2.IMREAD_UNCHANGED)[..., ::-1].astype(float)
    assert np.allclose((pixels[..., :2] - 32768) / 64, np.float32(PAN) * -2)
    assert read_flow(out / "000002-to-000004.png").metadata["frames"] == [2, 4]
    # Seen from frame 2, every frame looks like it.
    shown = frames_of(out / "warped.mp4")
    assert len(shown) == 3
    for _, pixels in shown:
        inner = np.s_[8:-8, 10:-10, :2]
        assert np.abs(pixels[inner].astype(float) - picture(2)[inner]).mean() < 6


def test_a_fixed_frame_carried_along(run, five, tmp_path):
    """Backward: on each frame's grid, pointing into the fixed one; warped, the fixed frame as each frame sees it."""
    out = tmp_path / "out"
    assert run(five, "--out", out, "--against", 0, "--direction", "backward", "--mp4", "warped")[0] == 0
    assert sorted(path.name for path in out.glob("*.flo")) == [f"00000{n}-to-000000.flo" for n in range(1, 5)]
    assert np.allclose(cv2.readOpticalFlow(str(out / "000004-to-000000.flo")), np.float32(PAN) * 4)
    shown = frames_of(out / "warped.mp4")[3][1].astype(float)
    inner = np.s_[10:-10, 14:-14, :2]
    assert np.abs(shown[inner] - picture(4)[inner]).mean() < 6


def test_steps_and_time_left_are_shown_to_a_terminal(run, five, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, printed, errors = run(five, "--out", tmp_path / "out")
    assert code == 0
    assert "matching" in errors
    assert "4/4" in errors
    assert "matching" not in printed


@pytest.mark.parametrize("suffix", ["npz", "flo5"])
def test_other_formats(run, five, tmp_path, suffix):
    out = tmp_path / "out"
    assert run(five, "--out", out, "--format", suffix, "--every", 2)[0] == 0
    files = sorted(out.glob(f"*.{suffix}"))
    assert [file.name for file in files] == [f"000000-to-000002.{suffix}", f"000002-to-000004.{suffix}"]
    stored = read_flow(files[1])
    assert np.allclose(stored.flow, np.float32(PAN) * -2)
    assert stored.metadata["weights"] == "pan"


def test_films_keep_the_times_of_uneven_frames(run, tmp_path):
    times = [0, 0.1, 0.15, 0.4, 1.0]
    path = write_video(tmp_path / "in.mov", [picture(n) for n in range(5)], times)
    assert open_frames(path).times == pytest.approx(times)
    code, _, errors = run(path, "--out", tmp_path / "out", "--mp4", "flow", "--mp4", "stabilised", "--format", "none")
    assert (code, errors) == (0, "")
    assert [time for time, _ in frames_of(tmp_path / "out" / "flow.mp4")] == pytest.approx(times[:-1], abs=1e-3)
    assert [time for time, _ in frames_of(tmp_path / "out" / "stabilised.mp4")] == pytest.approx(times, abs=1e-3)
    assert not list((tmp_path / "out").glob("*.flo"))
    colours = frames_of(tmp_path / "out" / "flow.mp4")[2][1][24, 32].astype(int)
    # To the upper left is between cyan and blue on Middlebury's wheel.
    assert colours[2] > 200
    assert colours[0] < 100


def test_odd_sides_are_padded_and_said(run, tmp_path):
    path = write_video(tmp_path / "in.mov", [picture(n, (47, 63)) for n in range(3)])
    code, _, errors = run(path, "--out", tmp_path / "out", "--mp4", "flow")
    assert code == 0
    assert "one row or column more" in errors
    assert frames_of(tmp_path / "out" / "flow.mp4")[0][1].shape == (48, 64, 3)
    assert read_flow(tmp_path / "out" / "000000-to-000001.flo").flow.shape == (47, 63, 2)


def test_smaller_frames_are_said(run, tmp_path):
    path = write_video(tmp_path / "in.mov", [picture(n, (96, 128)) for n in range(3)])
    code, _, errors = run(path, "--out", tmp_path / "out", "--size", 64)
    assert code == 0
    assert "in pixels of 64 x 48" in errors
    told = json.loads((tmp_path / "out" / "video.json").read_text())
    assert told["flow_size"] == [48, 64]
    assert told["pairs"][0]["size"] == [96, 128]


def test_the_network_itself(monkeypatch, run, tmp_path):
    """The package's real path: an (untrained) network, and the way each image goes into it."""
    made = untrained()
    monkeypatch.setattr(loading, "load", lambda name, device, **settings: made)
    path = write_video(tmp_path / "in.mov", [picture(n) for n in range(2)])
    assert run(path, "--out", tmp_path / "out", "--no-confidence")[0] == 0
    expected = made.match(picture(1), picture(0), confidence=False).flow
    assert np.allclose(cv2.readOpticalFlow(str(tmp_path / "out" / "000000-to-000001.flo")), expected, atol=1e-3)


# Memory


def test_memory_does_not_grow(pan, tmp_path):
    """Whatever the length, two frames are held, and one match."""
    path = write_video(tmp_path / "in.mov", [picture(n) for n in range(30)])
    matches: weakref.WeakSet[Match] = weakref.WeakSet()
    for step in flows(pan, open_frames(path), range(30)):
        matches.add(step.match)
        assert len(matches) <= 2
    assert len(pan.encoded) == 30
    assert pan.most <= 2
    del step
    gc.collect()
    assert len(pan.alive) == len(matches) == 0


# Stabilising


def test_a_steady_pan_is_left_alone_and_a_shake_is_taken_out():
    random = np.random.default_rng(1)
    times = np.sort(random.uniform(0, 4, 60))
    steady = [
        np.array(((1, 0, 30 * (b - a)), (0, 1, -8 * (b - a)), (0, 0, 1.0)))
        for a, b in np.diff(times)[:, None] * 0 + np.stack((times[:-1], times[1:]), 1)
    ]
    for matrix in stabilise.smooth_path(steady, times, SIZE, 1.0):
        assert np.allclose(matrix, np.eye(3), atol=1e-6)
    shake = [shift(*random.normal(0, 3, 2), 0.02 * random.normal()) for _ in times]
    places = [shift(30 * t, -8 * t) @ s for t, s in zip(times, shake, strict=True)]
    motions = [b @ np.linalg.inv(a) for a, b in pairwise(places)]
    shown = stabilise.smooth_path(motions, times, SIZE, 1.0)
    centre = np.array((32, 24, 1))
    before = [np.linalg.inv(p) @ centre for p in places]
    after = [np.linalg.inv(p) @ m @ centre for p, m in zip(places, shown, strict=True)]
    assert jitter(after) < 0.2 * jitter(before)


def shift(x: float, y: float, angle: float = 0.0) -> np.ndarray:
    c, s = np.cos(angle), np.sin(angle)
    return np.array(((c, -s, x), (s, c, y), (0, 0, 1)))


def jitter(path: list[np.ndarray]) -> float:
    return float(np.abs(np.diff(np.stack(path), n=2, axis=0)).mean())


def test_a_cut_is_no_motion(run, pan, five, tmp_path, monkeypatch):
    """Where the verdict is that two frames show different things, the film begins anew."""
    table = {"pair": (1.0,), "pixel": (0.0, 9.0), "right": ((1.0, 0.0),), "fitted": {}}
    plain = pan.match

    def match(source: Encoded, target: Encoded, confidence: bool, search: str | None = None) -> Match:
        cut = number_of(source.picture) == 3
        return replace(plain(source, target, confidence), calibration=Calibration(**table, threshold=2.0 * cut))

    monkeypatch.setattr(pan, "match", match)
    assert run(five, "--out", tmp_path / "out", "--mp4", "stabilised")[0] == 0
    told = json.loads((tmp_path / "out" / "video.json").read_text())
    assert [pair["same"] for pair in told["pairs"]] == [True, True, False, True]
    assert [problem["frames"] for problem in told["problems"]] == [[2, 3]]
    assert len(frames_of(tmp_path / "out" / "stabilised.mp4")) == 5


def test_a_cut_begins_a_new_path():
    motions = [shift(5, 0), None, shift(0, 5), shift(0, 5)]
    shown = stabilise.smooth_path(motions, np.arange(5.0), SIZE, 1.0)
    assert len(shown) == 5
    assert all(np.allclose(matrix, np.eye(3), atol=1e-6) for matrix in shown)


@pytest.mark.parametrize("direction", ["forward", "backward"])
def test_stabilised_film_stands_still(run, five, tmp_path, direction):
    words = ("--against", 0, "--mp4", "stabilised", "--format", "none", "--direction", direction)
    code, _, errors = run(five, "--out", tmp_path / "out", *words)
    assert (code, errors) == (0, "")
    shown = frames_of(tmp_path / "out" / "stabilised.mp4")
    assert len(shown) == 5
    inner = np.s_[10:-10, 14:-14, :2]
    for _, pixels in shown:
        assert np.abs(pixels[inner].astype(float) - picture(0)[inner]).mean() < 6


# What cannot be read


def spoil(path: Path, number: int) -> None:
    """Overwrites the packet of one frame."""
    with av.open(str(path)) as container:
        packet = [packet for packet in container.demux(video=0) if packet.size][number]
        start, size = packet.pos, packet.size
    content = bytearray(path.read_bytes())
    content[start : start + size] = bytes(size)
    path.write_bytes(content)


def test_a_broken_frame_is_named(run, five, tmp_path):
    spoil(five, 2)
    code, _, errors = run(five, "--out", tmp_path / "out")
    assert code == 2
    assert errors.count("\n") == 1
    assert "frame 2: " in errors
    assert "--keep-going" in errors
    assert (tmp_path / "out" / "000000-to-000001.flo").exists()
    assert json.loads((tmp_path / "out" / "video.json").read_text())["complete"] is False

    code, _, errors = run(five, "--out", tmp_path / "out", "--keep-going", "--mp4", "stabilised")
    assert code == 0
    assert "passed over frame 2: " in errors
    told = json.loads((tmp_path / "out" / "video.json").read_text())
    assert told["complete"] is True
    assert [problem["frames"] for problem in told["problems"]] == [[2]]
    assert [(pair["target"], pair["source"]) for pair in told["pairs"]] == [(0, 1), (1, 3), (3, 4)]
    assert np.allclose(cv2.readOpticalFlow(str(tmp_path / "out" / "000001-to-000003.flo")), np.float32(PAN) * -2)
    assert len(frames_of(tmp_path / "out" / "stabilised.mp4")) == 4


def test_a_broken_frame_before_the_first_wanted_one_does_not_matter(run, five, tmp_path):
    spoil(five, 1)
    assert run(five, "--out", tmp_path / "out", "--from", 2)[0] == 0
    code, _, errors = run(five, "--out", tmp_path / "out", "--against", 1, "--keep-going")
    assert code == 2
    assert "Frame 1" in errors


def test_a_film_that_is_cut_off(run, tmp_path):
    path = write_video(tmp_path / "in.mov", [picture(n) for n in range(6)], movflags="faststart")
    content = path.read_bytes()
    path.write_bytes(content[: len(content) * 2 // 3])
    frames = open_frames(path)
    assert frames.count == 6
    problems = [frame.problem for frame in frames.read(range(6))]
    assert problems[0] == ""
    assert problems[-1]
    code, _, errors = run(path, "--out", tmp_path / "out", "--keep-going")
    assert code == 0
    assert "passed over frame 5" in errors


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
def test_coded_out_of_order(tmp_path, codec):
    """Frames of codecs that predict both ways come in the order they are shown, and count right."""
    name = "in.mp4" if codec == "libx264" else "in.avi"
    path = write_video(tmp_path / name, [picture(n) for n in range(20)], codec=codec)
    frames = open_frames(path)
    assert frames.count == 20
    read = list(frames.read(range(3, 18, 4)))
    assert [frame.number for frame in read] == [3, 7, 11, 15]
    shown = frames_of(path)
    assert all(np.array_equal(frame.pixels, shown[frame.number][1]) for frame in read)
    assert codec == "mpeg4" or [number_of(frame.pixels) for frame in read] == [3, 7, 11, 15]
    assert [frame.time for frame in read] == pytest.approx([0.3, 0.7, 1.1, 1.5], abs=1e-3)


@pytest.mark.skipif(not hasattr(VideoStream, "set_display_rotation"), reason="this PyAV writes no rotation")
def test_rotation_is_applied(tmp_path):
    upright = picture(3)
    stored = np.ascontiguousarray(np.rot90(upright, 1))
    path = write_video(tmp_path / "in.mov", [stored, stored], rotation=-90)
    first = next(open_frames(path).read(range(2))).pixels
    assert np.array_equal(first, upright)


def test_what_is_no_video(run, tmp_path):
    out = tmp_path / "out"
    (tmp_path / "text.mp4").write_text("no video")
    (tmp_path / "empty.mp4").touch()
    (tmp_path / "folder").mkdir()
    with av.open(str(tmp_path / "sound.wav"), "w") as container:
        stream = container.add_stream("pcm_s16le", rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 800), np.int16), format="s16", layout="mono")
        frame.rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    one = write_video(tmp_path / "one.mov", [picture(0)])
    two = write_video(tmp_path / "two.mov", [picture(0), picture(1)])
    for words, told in (
        ((tmp_path / "none.mp4",), "does not exist"),
        ((tmp_path / "text.mp4",), "cannot be read as a video"),
        ((tmp_path / "empty.mp4",), "cannot be read as a video"),
        ((tmp_path / "folder",), "holds no images"),
        ((tmp_path / "sound.wav",), "has no video stream, only audio"),
        ((one,), "holds one frame, but a flow is between two"),
        ((two, "--from", 1), "of which one is asked for"),
        ((two, "--to", 7), "has frames 0 to 1"),
        ((two, "--from", 1, "--to", 0), "has frames 0 to 1"),
        ((two, "--against", 2), "has frames 0 to 1"),
        ((two, "--format", "tiff"), "'tiff' is not one of"),
        ((two, "--direction", "up"), "'up' is not one of"),
        ((two, "--mp4", "all"), "'all' is not one of"),
        ((two, "--format", "none"), "nothing to do"),
        ((two, "--size", 5), "64 is the least"),
        ((two, "--fps", 5), "no folder"),
        ((two, "--resume", "--mp4", "flow"), "without --mp4"),
    ):
        code, _, errors = run(*words, "--out", out)
        assert code == 2
        assert told in errors
        assert errors.startswith("glunet: ")
        assert errors.count("\n") == 1
        assert not out.exists()
    code, _, errors = run(two, "--out", two)
    assert (code, "is a file, but a folder" in errors) == (2, True)


def test_pyav_is_asked_for(monkeypatch, run, five, tmp_path):
    monkeypatch.setitem(sys.modules, "av", None)
    code, _, errors = run(five, "--out", tmp_path / "out")
    assert code == 2
    assert "pip install 'glunet[video]'" in errors


# A folder, and again


def test_a_folder_is_a_video_sorted_by_its_numbers(run, tmp_path):
    folder = write_frames(tmp_path / "frames", 12, "frame-{}.png")
    (folder / "notes.txt").write_text("no frame")
    (folder / "frame-4.png").write_bytes(b"broken")
    out = tmp_path / "out"
    code, _, errors = run(folder, "--out", out, "--keep-going", "--fps", 5, "--from", 2, "--mp4", "warped")
    assert code == 0
    assert "passed over frame 4: The frame image" in errors
    told = json.loads((out / "video.json").read_text())
    numbers = [2, 3, 5, 6, 7, 8, 9, 10, 11]
    assert [(p["target"], p["source"]) for p in told["pairs"]] == list(pairwise(numbers))
    assert np.allclose(cv2.readOpticalFlow(str(out / "000009-to-000010.flo")), np.float32(PAN) * -1)
    assert told["pairs"][0]["time"] == pytest.approx(0.4)


def test_resume_matches_only_what_is_missing(run, pan, five, tmp_path):
    out = tmp_path / "out"
    assert run(five, "--out", out)[0] == 0
    full = json.loads((out / "video.json").read_text())
    (out / "000002-to-000003.flo").unlink()
    pan.encoded.clear()
    assert run(five, "--out", out, "--resume")[0] == 0
    assert pan.encoded == [3, 2]
    assert json.loads((out / "video.json").read_text())["pairs"] == full["pairs"]
    code, _, errors = run(five, "--out", out, "--resume", "--direction", "backward")
    assert code == 2
    assert "made with another direction, meaning" in errors
    code, _, errors = run(five, "--out", out)
    assert code == 0
    assert "are replaced" in errors


# Films by themselves


def make_film(path: Path, *sizes: tuple[int, int], stop: bool = False) -> None:
    with film(path, Fraction(10)) as add:
        for n, size in enumerate(sizes):
            add(picture(n, size), n / 10)
        if stop:
            raise KeyboardInterrupt


def test_a_film_is_there_whole_or_not_at_all(tmp_path):
    with pytest.raises(GlunetError, match="one size"):
        make_film(tmp_path / "a.mp4", SIZE, (32, 32))
    with pytest.raises(GlunetError, match="no picture"):
        make_film(tmp_path / "a.mp4")
    with pytest.raises(KeyboardInterrupt):
        make_film(tmp_path / "a.mp4", SIZE, stop=True)
    with pytest.raises(GlunetError, match="cannot be written"):
        make_film(tmp_path / "none" / "a.mp4", SIZE)
    assert list(tmp_path.iterdir()) == []


def test_a_film_without_h264(monkeypatch, tmp_path):
    monkeypatch.setattr(film_module, "ENCODERS", {"nonsense": {}, "mpeg4": {"q": "3"}})
    make_film(tmp_path / "a.mp4", *4 * [SIZE])
    assert [time for time, _ in frames_of(tmp_path / "a.mp4")] == pytest.approx([0, 0.1, 0.2, 0.3], abs=1e-3)
    monkeypatch.setattr(film_module, "ENCODERS", {"nonsense": {}})
    with pytest.raises(GlunetError, match="no encoder"):
        make_film(tmp_path / "b.mp4", SIZE)


def test_names_are_sorted_by_their_numbers():
    names = ["a10.png", "a9.png", "B1.png", "a1b2.png", "a1b10.png"]
    assert [p.name for p in sorted(map(Path, names), key=natural)] == [
        "a1b2.png",
        "a1b10.png",
        "a9.png",
        "a10.png",
        "B1.png",
    ]
