"""Which images to match, by what they look like and where they were taken."""

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from conftest import Command
from glunet import load
from glunet.batch import candidates
from glunet.images.pairs import every, read
from places import SHARED

HPATCHES = SHARED / "devset/hpatches-sequences-release"


@given(st.lists(st.tuples(st.floats(-89, 89), st.floats(-180, 180)), min_size=2, max_size=12), st.floats(1, 2e7))
def test_near_is_the_great_circle(positions: list[tuple[float, float]], metres: float) -> None:
    found = set(candidates.near([*positions, None], metres))
    for i, j in every(len(positions)):
        (a, b), (c, d) = np.radians(positions[i]), np.radians(positions[j])
        haversine = np.sin((c - a) / 2) ** 2 + np.cos(a) * np.cos(c) * np.sin((d - b) / 2) ** 2
        apart = 2 * 6_371_000 * np.arcsin(min(1.0, np.sqrt(haversine)))
        if abs(apart - metres) > 1e-3 * metres:
            assert ((i, j) in found) == (apart < metres)


def _taken_at(path: Path, latitude: tuple[str, tuple[float, ...]], longitude: tuple[str, tuple[float, ...]]) -> None:
    exif = Image.Exif()
    exif.get_ifd(0x8825).update({1: latitude[0], 2: latitude[1], 3: longitude[0], 4: longitude[1]})
    Image.new("RGB", (64, 64)).save(path, exif=exif)


def test_pairs_by_gps(tmp_path: Path, command: Command) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    _taken_at(photos / "a.jpg", ("S", (33.0, 51.0, 24.0)), ("W", (70.0, 30.0, 0.0)))
    _taken_at(photos / "b.jpg", ("S", (33.0, 51.0, 25.0)), ("W", (70.0, 30.0, 0.0)))  # 31 m to the south
    _taken_at(photos / "c.jpg", ("N", (33.0, 51.0, 24.0)), ("W", (70.0, 30.0, 0.0)))
    Image.new("RGB", (64, 64)).save(photos / "d.jpg")
    assert candidates.position(photos / "a.jpg") == pytest.approx((-33.8566667, -70.5))
    code, _, told = command("pairs", photos, "--within", 40, "--out", tmp_path / "pairs.txt")
    assert code == 0
    assert "1 of 4 images" in told
    assert (tmp_path / "pairs.txt").read_text() == "a.jpg b.jpg\n"
    code, _, told = command("pairs", photos, "--within", 30, "--out", tmp_path / "none.txt")
    assert (code, (tmp_path / "none.txt").exists()) == (2, False)
    assert "30 m" in told


def test_all_window_and_similar(tmp_path: Path, command: Command, smooth_pictures: Callable[[int], Path]) -> None:
    photos = smooth_pictures(4)
    for number in range(4):  # the last four are the first four, darker and cut
        picture = Image.open(photos / f"{number}.png").crop((8, 8, 152, 112)).point(lambda level: level * 0.8)
        picture.save(photos / f"{number + 4}.png")
    (photos / "bad.png").write_bytes(b"nothing")
    counts = {}
    for option in ("", "--window 1", "--similar 1"):
        file = tmp_path / "pairs.txt"
        code, _, told = command("pairs", photos, *option.split(), "--out", file)
        assert code == 0
        assert "bad.png" in told
        counts[option] = read(file)
    assert [len(found) for found in counts.values()] == [28, 7, 4]
    assert set(counts["--similar 1"]) == {(f"{n}.png", f"{n + 4}.png") for n in range(4)}
    code, _, told = command("pairs", photos, "--window", 2, "--within", 9, "--out", tmp_path / "p")
    assert (code, "give one of them" in told) == (2, True)


@pytest.mark.skipif(not HPATCHES.is_dir(), reason="the development set is not here")
def test_retrieval_on_shuffled_hpatches() -> None:
    images = sorted(HPATCHES.glob("*/*.ppm"))
    random.Random(0).shuffle(images)
    numbers, descriptors, problems = candidates.described(load(device="cpu"), images)
    assert (len(numbers), problems) == (len(images), [])
    scenes = [image.parent for image in images]
    hits = total = 0
    for i, scene in enumerate(scenes):
        near = descriptors - descriptors.mean(axis=0)
        near /= np.linalg.norm(near, axis=1, keepdims=True)
        likeness = near @ near[i]
        likeness[i] = -2
        hits += sum(scenes[j] == scene for j in np.argsort(-likeness)[:5])
        total += min(5, scenes.count(scene) - 1)
    assert hits / total >= 0.8
    found = set(candidates.nearest(descriptors, 5))
    assert found == {(i, j) for i, j in every(len(images)) if scenes[i] == scenes[j]}
