"""Folders and tar files of photographs."""

import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glunet.errors import GlunetError
from glunet.training.photographs import Photographs, decode, find


def jpeg(width: int, height: int, exif: bytes = b"") -> bytes:
    out = io.BytesIO()
    Image.fromarray(np.random.default_rng(width).integers(0, 255, (height, width, 3), np.uint8)).save(
        out, "JPEG", exif=exif
    )
    return out.getvalue()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "below").mkdir()
    (tmp_path / "a.jpg").write_bytes(jpeg(900, 500))
    (tmp_path / "below" / "b.JPEG").write_bytes(jpeg(120, 100))
    (tmp_path / "tiny.jpg").write_bytes(jpeg(40, 100))
    (tmp_path / "broken.jpg").write_bytes(jpeg(300, 300)[:9000])
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "notes.txt").write_text("notes")
    with tarfile.open(tmp_path / "more.tar", "w") as tar:
        for name, width in (("x/1.jpg", 200), ("x/2.jpg", 300)):
            content = jpeg(width, 150)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return tmp_path


def test_finds_checks_and_decodes(folder: Path) -> None:
    photographs = Photographs(find(folder))
    assert len(photographs) == 7
    complaints = photographs.check()
    assert len(photographs) + len(complaints) == 7
    assert any("tiny.jpg" in c and "under 64" in c for c in complaints)
    assert any("text.png" in c for c in complaints)
    assert photographs.largest == (900, 500)
    assert photographs.needed == 3 * (400 * 720 + 300 * 300 + 100 * 120 + 150 * 200 + 150 * 300)
    shapes = [tuple(photographs[i].shape) for i in range(len(photographs))]
    assert set(shapes) == {(3, 400, 720), (3, 100, 120), (3, 150, 200), (3, 150, 300)}


def test_a_photograph_cut_off_gives_its_place_to_the_next(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    photographs = Photographs(find(folder))
    photographs.check()
    number = next(i for i, place in enumerate(photographs.places) if "broken" in str(place))
    assert photographs[number] is photographs[(number + 1) % len(photographs)]
    assert photographs[number] is photographs[number]
    assert caplog.text.count("broken.jpg cannot be decoded") == 1
    alone = Photographs([photographs.places[number]])
    with pytest.raises(GlunetError, match="None of 1 photographs can be decoded"):
        alone[0]


def test_sixteen_bits_are_not_cut_off(tmp_path: Path) -> None:
    """Thermal cameras and microscopes: the same grey levels as a matcher sees."""
    levels = np.linspace(0, 65535, 100 * 80).astype(np.uint16).reshape(80, 100)
    Image.fromarray(levels).save(tmp_path / "a.png")
    Image.fromarray(levels).save(tmp_path / "b.tif")
    for place in find(tmp_path):
        picture = decode(place)
        assert picture.shape == (3, 80, 100)
        assert np.abs(picture[0].numpy() - levels / 257).max() <= 0.51


def test_huge_photographs_are_said_not_decoded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "large.jpg").write_bytes(jpeg(300, 200))
    (tmp_path / "huge.jpg").write_bytes(jpeg(900, 500))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 50_000)  # Pillow warns from there, refuses from twice that
    photographs = Photographs(find(tmp_path))
    (complaint,) = photographs.check()
    assert "huge.jpg: over 178 megapixels" in complaint
    assert photographs[0].shape == (3, 200, 300)


def test_memory_is_bounded(folder: Path) -> None:
    photographs = Photographs(find(folder / "more.tar"), memory=3 * 150 * 200)
    first, second = photographs[0], photographs[1]
    assert photographs[0] is first
    assert photographs[1] is not second


def test_exif_rotation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    (tmp_path / "turned.jpg").write_bytes(jpeg(200, 100, exif.tobytes()))
    assert decode(find(tmp_path)[0]).shape == (3, 200, 100)


def test_refuses_what_holds_no_photographs(tmp_path: Path) -> None:
    with pytest.raises(GlunetError, match="No images"):
        find(tmp_path)
    with pytest.raises(GlunetError, match="does not exist"):
        find(tmp_path / "nowhere")
    (tmp_path / "bad.tar").write_bytes(b"x" * 2000)
    with pytest.raises(GlunetError, match="cannot be read as a tar"):
        find(tmp_path / "bad.tar")
