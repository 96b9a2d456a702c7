"""Photographs as drawings: black and white lines where the photograph has edges, the same ones each time."""

import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
import skimage.data
from benchmarks import drawings
from PIL import Image


def test_what_is_darker_than_around_is_a_line() -> None:
    image = np.full((80, 90, 3), 200, np.uint8)
    image[:, 40:43] = 20
    drawn = drawings.drawing(image)
    assert drawn.shape == (80, 90)
    assert (drawn[:, 41] == 0).all()
    assert (drawn[:, :30] == 255).all()


def test_archives_and_a_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    for number in range(4):
        Image.fromarray(skimage.data.astronaut()[number : number + 200, :300]).save(photos / f"{number}.png")
    with tarfile.open(tmp_path / "photos.tar", "w") as archive:
        archive.add(photos, "photos")
    sequences = tmp_path / "sequences"
    (sequences / "v_one").mkdir(parents=True)
    Image.fromarray(skimage.data.astronaut()[:100, :120]).save(sequences / "v_one" / "1.ppm")
    (sequences / "v_one" / "H_1_2").write_text("1 0 0 0 1 0 0 0 1")
    monkeypatch.setattr(drawings, "COUNTS", (3, 2))
    monkeypatch.setattr(drawings, "SHORT", 100)
    tar = str(tmp_path / "photos.tar")
    for out in ("a", "b"):
        monkeypatch.setattr(sys, "argv", ["drawings", tar, tar, str(sequences), str(tmp_path / out)])
        drawings.main()
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*"))
    assert len([file for file in files if file.parts[0] == "drawings"]) == 3
    assert len([file for file in files if file.parts[0] == "held"]) == 2
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
        assert set(np.unique(np.asarray(Image.open(tmp_path / "a" / file)))) == {0, 255}
    with Image.open(next((tmp_path / "a" / "held").iterdir())) as picture:
        assert min(picture.size) == 100
    assert (tmp_path / "a" / "devset" / "sequences" / "v_one" / "H_1_2").read_text().startswith("1 0 0")
