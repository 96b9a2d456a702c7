"""COLMAP and hloc: what pycolmap and h5py read back, on a scene whose geometry is known."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import rendered
from glunet import cli
from glunet.colmap import database
from glunet.colmap.collect import Settings, collect, meet
from glunet.colmap.database import Verified, quiet
from glunet.colmap.keypoints import NONE, Keypoints
from glunet.colmap.tracks import track_lengths
from glunet.images import pairs as pairs_module
from glunet.images.folders import pictures
from glunet.inference.confidence import Calibration
from glunet.inference.encoded import Encoded
from glunet.match import Match, Provenance
from untrained import matcher as untrained

pycolmap = pytest.importorskip("pycolmap")
h5py = pytest.importorskip("h5py")

SIZE, FOCAL = (96, 128), 120.0
CAMERAS = rendered.cameras(4, SIZE, FOCAL)
PAINT = rendered.noise(0), rendered.noise(1)
STRANGE = Calibration((1.0,), (0.0, 1.0), ((1.0, 0.0),), 2.0, {})  # says of every pair that it shows different things


class Truth:
    """A matcher that knows the scene. The first pixel tells which view an image is."""

    device = torch.device("cpu")
    provenance = Provenance("truth")

    def __init__(self, strange: tuple[tuple[int, int], ...] = ()) -> None:
        self.strange = strange
        self.encoded: list[int] = []

    def encode(self, pixels: np.ndarray) -> Encoded:
        self.encoded.append(int(pixels[0, 0, 0]))
        return untrained().open(pixels)

    def match(self, source: Encoded, target: Encoded, backward: bool = True) -> Match:
        s, t = int(source.picture[0, 0, 0]), int(target.picture[0, 0, 0])
        there, back = rendered.flow(CAMERAS[t], CAMERAS[s]), rendered.flow(CAMERAS[s], CAMERAS[t])
        calibration = STRANGE if (t, s) in self.strange else None
        return Match(there, source.size, Provenance("truth"), back, calibration)


@pytest.fixture(scope="session")
def rendered_views() -> list[np.ndarray]:
    views = [rendered.picture(camera, PAINT) for camera in CAMERAS]
    for number, view in enumerate(views):
        view[0, 0] = number
    return views


@pytest.fixture
def photos(tmp_path, rendered_views) -> Path:
    """Four views; names with a space and a folder among them."""
    folder = tmp_path / "photos"
    (folder / "more").mkdir(parents=True)
    for name, view in zip(("view 1.png", "view2.png", "view10.png", "more/view.png"), rendered_views, strict=True):
        Image.fromarray(view).save(folder / name)
    return folder


# What goes wrong on the way


def test_a_run_that_ends_early_loses_no_pair_and_another_goes_on(run, photos, tmp_path, truth, monkeypatch):
    out, whole = tmp_path / "database.db", tmp_path / "whole.db"
    assert run(photos, "--out", whole, *KNOWN)[0] == 0
    asked = []
    match = truth.match

    def dying(*pair, **options):
        asked.append(pair)
        if len(asked) == 4:
            raise KeyboardInterrupt
        return match(*pair, **options)

    monkeypatch.setattr(truth, "match", dying)
    code, _, _ = run(photos, "--out", out, *KNOWN)
    assert code != 0
    assert not out.exists()
    assert len(list((tmp_path / "database.db.pairs").glob("*.npz"))) == 3
    code, _, errors = run(photos, "--out", out, *KNOWN, "--resume", "--cell", 16)
    assert code == 2
    assert "begun with another settings" in errors
    code, _, errors = run(photos, "--out", out, *KNOWN, "--resume")
    assert (code, errors) == (0, "")
    assert len(asked) == 4 + 3
    assert sorted(path.name for path in tmp_path.iterdir()) == ["database.db", "photos", "whole.db"]
    one, other = (database.read_verified(path) for path in (out, whole))
    assert [pair.names for pair in one] == [pair.names for pair in other]
    assert [pair.matches for pair in one] == [pair.matches for pair in other]
    assert all(np.array_equal(a.inliers, b.inliers) for a, b in zip(one, other, strict=True))


def test_images_that_cannot_be_read_are_passed_over(run, photos, tmp_path):
    cut = photos / "cut.jpg"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (96, 128, 3)).astype(np.uint8)).save(cut)
    cut.write_bytes(cut.read_bytes()[:3000])
    (photos / "dangling.png").symlink_to(tmp_path / "nowhere.png")
    out = tmp_path / "database.db"
    code, _, errors = run(photos, "--out", out)
    assert code == 2
    assert "dangling.png" in errors
    code, _, errors = run(photos, "--out", out, "--keep-going")
    assert code == 0, errors
    assert "dangling.png" in errors
    assert "cut.jpg" in errors
    assert len({name for pair in database.read_verified(out) for name in pair.names}) == 4


@pytest.mark.parametrize("words", [
    ("--out", "none/database.db"),
    ("--camera-params", "1,2"),
    ("--camera-mode", "single", "small"),
])  # fmt: skip
def test_what_will_fail_is_said_before_anything_is_matched(run, photos, tmp_path, truth, words, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if "small" in words:  # sizes that one camera cannot have
        Image.fromarray(np.zeros((64, 64, 3), np.uint8)).save(photos / "small.png")
    out = () if "--out" in words else ("--out", "database.db")
    code, _, errors = run(photos, *out, *(word for word in words if word != "small"))
    assert code == 2
    assert len(errors.splitlines()) == 1
    assert not truth.encoded
    assert [path.name for path in tmp_path.iterdir()] == ["photos"]


ORDER = ["more/view.png", "view2.png", "view10.png", "view 1.png"]
NUMBER = {"view 1.png": 0, "view2.png": 1, "view10.png": 2, "more/view.png": 3}
KNOWN = ("--camera-mode", "single", "--camera-model", "PINHOLE", "--camera-params", "120,120,64,48")


@pytest.fixture
def truth() -> Truth:
    return Truth()


@pytest.fixture
def run(command_with, truth):
    return command_with("colmap", truth)


# The database


def test_pycolmap_reads_and_reconstructs(run, photos, tmp_path, truth):
    out = tmp_path / "database.db"
    code, printed, errors = run(photos, "--out", out, "--cell", 4, *KNOWN)
    assert (code, errors) == (0, "")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["database.db", "photos"]
    assert sorted(truth.encoded) == [0, 1, 2, 3]
    assert "more/view.png - view2.png" in printed
    assert "images each" in printed
    assert printed.splitlines()[-1] == str(out)

    with pycolmap.Database.open(out) as database:
        images = {image.name: image.image_id for image in database.read_all_images()}
        assert sorted(images) == sorted(ORDER)
        assert database.num_cameras() == 1
        points = {name: database.read_keypoints(number) for name, number in images.items()}
        apart = []
        names = {number: name for name, number in images.items()}
        for pair, matches in zip(*database.read_all_matches(), strict=True):
            a, b = (names[number] for number in pycolmap.pair_id_to_image_pair(pair))
            assert len(np.unique(matches[:, 0])) == len(np.unique(matches[:, 1])) == len(matches) > 50
            # COLMAP's half pixel is taken off, then the scene itself says where a point is in the other view.
            first, second = points[a][matches[:, 0]] - 0.5, points[b][matches[:, 1]] - 0.5
            apart.append(np.linalg.norm(at(CAMERAS[NUMBER[a]], CAMERAS[NUMBER[b]], first) - second, axis=1))
        assert len(apart) == 6
        assert np.median(np.concatenate(apart)) < 0.2
        assert np.percentile(np.concatenate(apart), 95) < 1.2  # where ways meet, up to `reach` is given

    model = reconstruct(out, photos, tmp_path / "mapped")
    assert model.num_reg_images() == 4
    print(f"mean track length {mean_track_length(model):.2f}")
    assert mean_track_length(model) > 3
    assert model.compute_mean_reprojection_error() < 0.5
    # Up to one similarity, the cameras stand where they stood.
    found = np.array([model.find_image_with_name(name).projection_center() for name in ORDER])
    true = np.array([CAMERAS[NUMBER[name]].centre for name in ORDER])
    assert rendered.misfit(found, true) < 0.02


def test_reconstruct_writes_model_points_and_numbers(run, photos, tmp_path):
    out, model = tmp_path / "database.db", tmp_path / "database-model"
    code, printed, errors = run(photos, "--out", out, "--cell", 4, *KNOWN, "--reconstruct")
    assert (code, errors) == (0, "")
    assert printed.splitlines()[-1].startswith(f"{model}: 4 of 4 images, ")
    numbers = json.loads((model / "numbers.json").read_text())
    assert (numbers["images"], numbers["left_out"]) == (4, [])
    assert numbers["mean_track_length"] > 3
    assert numbers["mean_reprojection_error"] < 0.5
    read = pycolmap.Reconstruction(model)
    assert read.num_points3D() == numbers["points"] > 100
    assert next(iter(read.cameras.values())).params.tolist() == [120, 120, 64, 48]  # known, so left alone
    found = np.array([read.find_image_with_name(name).projection_center() for name in ORDER])
    assert rendered.misfit(found, np.array([CAMERAS[NUMBER[name]].centre for name in ORDER])) < 0.02
    assert (model / "points.ply").read_bytes().startswith(b"ply\n")
    # Models are not replaced without a word, nor is one left over of a run that had more.
    for name in ("database-model-2", "database-model-mine"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "numbers.json").write_text("{}")
    out.unlink()
    assert "database-model' is there already" in run(photos, "--out", out, *KNOWN, "--reconstruct")[2]
    assert run(photos, "--out", out, "--cell", 4, *KNOWN, "--reconstruct", "--overwrite")[0] == 0
    assert {path.name for path in tmp_path.iterdir()} == {model.name, "database-model-mine", out.name, "photos"}
    assert "leave --no-verify out" in run(photos, "--out", out, "--overwrite", "--reconstruct", "--no-verify")[2]


def test_what_cannot_be_reconstructed_is_said(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr(pycolmap, "incremental_mapping", lambda *arguments: {})
    code, _, errors = run(photos, "--out", tmp_path / "a.db", "--reconstruct")
    assert code == 2
    assert "could reconstruct nothing" in errors
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "photos"]


def reconstruct(database: Path, folder: Path, mapped: Path):
    """COLMAP's model of all there is, with the cameras that are known."""
    mapped.mkdir()
    options = pycolmap.IncrementalPipelineOptions()
    options.num_threads, options.random_seed, options.ba_refine_focal_length = 1, 0, False
    with quiet(pycolmap):
        models = pycolmap.incremental_mapping(database, folder, mapped, options)
    assert len(models) == 1
    return models[0]


def mean_track_length(model) -> float:
    """In how many images a point is seen, on average; two keypoints of one image count once."""
    return float(np.mean([len({e.image_id for e in point.track.elements}) for point in model.points3D.values()]))


def at(target: rendered.Camera, source: rendered.Camera, points: np.ndarray) -> np.ndarray:
    found = Match(rendered.flow(target, source), SIZE, Provenance("truth"))
    return found.at(points.clip(0, (SIZE[1] - 1, SIZE[0] - 1)))[0]


def test_large_images_are_matched_small_and_written_large(run, monkeypatch, tmp_path, truth, rendered_views):
    """The same views, four times as large, matched as small ones: keypoints are those, in pixels of the files."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for number in range(2):
        Image.fromarray(rendered_views[number].repeat(4, 0).repeat(4, 1)).save(folder / f"{number}.png")
    encode = truth.encode

    def told(pixels: np.ndarray) -> Encoded:  # bringing it down has changed the pixel that says which view it is
        pixels[0, 0] = np.argmin([np.abs(pixels.astype(int) - view).mean() for view in rendered_views])
        return encode(pixels)

    monkeypatch.setattr(truth, "encode", told)
    assert run(folder, "--out", tmp_path / "a.db", "--size", 128)[0] == 0
    with pycolmap.Database.open(tmp_path / "a.db") as database:
        matches = database.read_matches(1, 2)
        first, second = (database.read_keypoints(i)[matches[:, i - 1]] / 4 - 0.5 for i in (1, 2))
        assert database.read_camera(1).width == 512
    apart = np.linalg.norm(at(CAMERAS[0], CAMERAS[1], first) - second, axis=1)
    assert len(apart) > 50
    assert np.median(apart) < 0.05


def test_pairs_that_show_something_else_are_named_and_left_out(run, photos, tmp_path, truth):
    truth.strange = ((3, 0), (3, 2))
    code, _, errors = run(photos, "--out", tmp_path / "a.db")
    assert code == 0
    assert sorted(errors.splitlines())[0].startswith("glunet: left out more/view.png and view 1.png: these two do not")
    assert len(errors.splitlines()) == 2
    with pycolmap.Database.open(tmp_path / "a.db") as database:
        assert database.num_matched_image_pairs() == 4
    truth.strange = tuple((a, b) for a in range(4) for b in range(4))
    code, _, errors = run(photos, "--out", tmp_path / "b.db")
    assert code == 2
    assert "nothing to write" in errors
    assert not (tmp_path / "b.db").exists()


def test_the_packages_weights_reconstruct(monkeypatch, tmp_path):
    """Photographs painted on the scene, matched by the network that comes with the package, mapped by COLMAP."""
    data = pytest.importorskip("skimage.data")
    views = rendered.cameras(3, (120, 160), 150.0)
    paint = [
        np.asarray(Image.fromarray(image).resize(size))
        for image, size in ((data.coffee(), (500, 350)), (data.astronaut(), (150, 150)))
    ]
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, camera in enumerate(views):
        Image.fromarray(rendered.picture(camera, paint, 50.0)).save(folder / f"{number}.png")
    known = ("--camera-mode", "single", "--camera-model", "PINHOLE", "--camera-params", "150,150,80,60")
    words = ("glunet", "colmap", str(folder), "--out", str(tmp_path / "a.db"), "--cell", "4", *known)
    monkeypatch.setattr(sys, "argv", [*words])
    with pytest.raises(SystemExit) as end:
        cli.main()
    assert not end.value.code
    model = reconstruct(tmp_path / "a.db", folder, tmp_path / "mapped")
    assert model.num_reg_images() == 3
    found = np.array([model.find_image_with_name(f"{i}.png").projection_center() for i in range(3)])
    off = rendered.misfit(found, np.array([camera.centre for camera in views]))
    length, error = mean_track_length(model), model.compute_mean_reprojection_error()
    print(f"mean track length {length:.2f}, reprojection error {error:.2f} px, cameras off by {100 * off:.1f} %")
    assert length > 2.5
    assert error < 1
    assert off < 0.05


# hloc


def test_hloc_reads_what_it_names(run, photos, tmp_path):
    out = tmp_path / "hloc"
    code, printed, _ = run(photos, "--out", tmp_path / "a.db", "--hloc", out, "--window", 1)
    assert code == 0
    assert printed.split("\n")[-4:-1] == [str(out / name) for name in ("features.h5", "matches.h5", "pairs.txt")]
    listed = (out / "pairs.txt").read_text().splitlines()
    assert listed == ["more/view.png view2.png", "view2.png view10.png", "view10.png view 1.png"]
    with (
        h5py.File(out / "features.h5") as features,
        h5py.File(out / "matches.h5") as matches,
        pycolmap.Database.open(tmp_path / "a.db") as database,
    ):
        images = {image.name: image.image_id for image in database.read_all_images()}
        for name, number in images.items():
            group = features[name]
            assert np.array_equal(group["keypoints"][()] + np.float32(0.5), database.read_keypoints(number))
            assert group["scores"].shape == (len(group["keypoints"]),)
            assert group["image_size"][()].tolist() == [128, 96]
        for a, b in (("more/view.png", "view2.png"), ("view10.png", "view 1.png")):
            group = matches["/".join(name.replace("/", "-") for name in (a, b))]
            partners, scores = group["matches0"][()], group["matching_scores0"][()]
            assert partners.dtype.kind == "i"
            assert len(partners) == len(scores) == len(features[a]["keypoints"])
            assert ((partners >= 0) == (scores > 0)).all()
            rows = np.flatnonzero(partners >= 0)
            pairs = np.stack((rows, partners[rows]), axis=-1)
            stored = database.read_matches(images[a], images[b])
            assert {tuple(row) for row in pairs.tolist()} == {tuple(row) for row in stored.tolist()}


# Keypoints and tracks


@settings(max_examples=40)
@given(st.integers(2, 9), st.integers(0, 999))
def test_a_cell_holds_one_keypoint_and_the_nearest_is_found(cell, seed):
    random = np.random.default_rng(seed)
    size = (random.integers(10, 60), random.integers(10, 60))
    keypoints = Keypoints(tuple(size), cell)
    for _ in range(3):
        points = random.uniform(-0.5, np.array(size[::-1]) - 0.5, (50, 2)).astype(np.float32)
        numbers = keypoints.add(points, random.random(50))
        taken = numbers != NONE
        assert np.array_equal(keypoints.points[numbers[taken]], points[taken])
    cells = np.floor((keypoints.points + 0.5) / cell)
    assert len(np.unique(cells, axis=0)) == len(keypoints) == len(keypoints.scores)
    reach = cell * random.uniform(0.1, 1)
    asked = random.uniform(-0.5, np.array(size[::-1]) - 0.5, (80, 2)).astype(np.float32)
    distance = np.linalg.norm(asked[:, None] - keypoints.points, axis=2)
    expected = np.where(distance.min(1) <= reach, distance.argmin(1), NONE)
    assert np.array_equal(keypoints.nearest(asked, reach), expected)
    confidence = random.random(tuple(size)).astype(np.float32)
    fresh = keypoints.candidates(confidence, 0.5)
    assert (confidence[tuple(fresh.astype(int).T[::-1])] >= 0.5).all()
    assert (keypoints.add(fresh, np.ones(len(fresh))) != NONE).all()


def test_a_third_image_meets_the_same_keypoints():
    """Two pairs with the first image, then the third pair: its matches end at keypoints that are there."""
    views = [Keypoints(SIZE, 8) for _ in range(3)]

    def match(t: int, s: int) -> Match:
        return Truth().match(*(untrained().open(np.full((*SIZE, 3), i, np.uint8)) for i in (s, t)))

    first, _ = meet(match(0, 1), views[0], views[1], Settings())
    meet(match(0, 2), views[0], views[2], Settings())
    before = len(views[2])
    closing, scores = meet(match(1, 2), views[1], views[2], Settings())
    assert len(first) > 80
    known = closing[closing[:, 1] < before]
    assert len(known) > 0.7 * len(first)
    assert (np.diff(scores) <= 0).all()


def test_track_lengths_are_counted_in_images():
    def pair(a: str, b: str, *inliers: tuple[int, int]) -> Verified:
        return Verified((a, b), 9, np.array(inliers, np.uint32).reshape(-1, 2), "x")

    found = track_lengths([pair("a", "b", (0, 5), (1, 1)), pair("b", "c", (5, 2)), pair("c", "d", (2, 0), (7, 7))])
    assert sorted(found) == [2, 2, 4]
    assert len(track_lengths([pair("a", "b")])) == 0
    # A loop that comes back to another keypoint of the same image is one track of three images.
    assert track_lengths([pair("a", "b", (0, 0)), pair("b", "c", (0, 0)), pair("a", "c", (1, 0))]).tolist() == [3]


# Images and pairs


def test_steps_and_time_left_are_shown_to_a_terminal(run, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    code, printed, errors = run(photos, "--out", tmp_path / "a.db")
    assert code == 0
    assert "6/6" in errors
    assert "6/6" not in printed


def test_each_image_is_encoded_once(truth, photos):
    listed = pictures(photos)
    assert [picture.name for picture in listed] == ORDER
    collect(truth, listed, pairs_module.every(4), Settings(size=None))
    assert sorted(truth.encoded) == [0, 1, 2, 3]


def test_images_are_taken_as_colmap_takes_them(tmp_path):
    """COLMAP does not turn what EXIF says is turned: nor do the pixels that are matched."""
    stored = np.arange(40 * 60 * 3, dtype=np.uint32).reshape(40, 60, 3).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6
    for name in ("a.png", "b.png"):
        Image.fromarray(stored).save(tmp_path / name, exif=exif)
    first = pictures(tmp_path)[0]
    assert first.size == (40, 60)
    assert np.array_equal(first.pixels(), stored)
    bitmap = pycolmap.Bitmap.read(tmp_path / "a.png", True)
    assert (bitmap.height, bitmap.width) == (40, 60)


def test_what_cannot_be_done_is_said(run, monkeypatch, photos, tmp_path):
    out = tmp_path / "a.db"
    out.write_text("mine")
    empty = tmp_path / "empty"
    empty.mkdir()
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes(b"x")
    (broken / "b.png").write_bytes(b"x")
    for words, told in (
        ((tmp_path / "none", "--out", tmp_path / "b.db"), "is no folder"),
        ((empty, "--out", tmp_path / "b.db"), "holds no images"),
        ((broken, "--out", tmp_path / "b.db"), "a.png' is not an image"),
        ((photos, "--out", out), "is there already"),
        ((photos, "--out", tmp_path / "b.db", "--window", 0), "window of 0"),
        ((photos, "--out", tmp_path / "b.db", "--window", 1, "--exhaustive"), "give one of them"),
        ((photos, "--out", tmp_path / "b.db", "--pairs", "none.txt"), "cannot be read"),
        ((photos, "--out", tmp_path / "b.db", "--camera-mode", "two"), "'two' is not one of"),
        ((photos, "--out", tmp_path / "b.db", "--camera-model", "TIN"), "no camera model 'TIN'"),
        ((photos, "--out", tmp_path / "b.db", "--camera-params", "1,2"), "pycolmap did not take"),
        ((photos, "--out", tmp_path / "b.db", "--round-trip", -1), "positive number"),
    ):
        code, _, errors = run(*words)
        assert code == 2
        assert told in errors
        assert errors.startswith("glunet: ")
        assert errors.count("\n") == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.db", "broken", "empty", "photos"]
    assert out.read_text() == "mine"
    assert run(photos, "--out", out, "--overwrite", "--window", 1)[0] == 0
    monkeypatch.setattr(pairs_module, "FEW", 3)
    assert "4 images make 6 pairs" in run(photos, "--out", tmp_path / "b.db")[2]
    monkeypatch.setitem(sys.modules, "pycolmap", None)
    assert "pip install 'glunet[colmap]'" in run(photos, "--out", tmp_path / "b.db")[2]
