"""Planes of scientific TIFF: the one that was asked for, and a sentence where that is not clear."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glunet.errors import GlunetError
from glunet.interop.tiff import read_plane

tifffile = pytest.importorskip("tifffile")
HEIGHT, WIDTH = 40, 50


def stack(*sizes: int, samples: int = 0) -> np.ndarray:
    """Noise of 12 bits, another in each plane."""
    shape = (*sizes, HEIGHT, WIDTH, *((samples,) if samples else ()))
    return np.random.default_rng(0).integers(0, 4096, shape).astype(np.uint16)


def written(path: Path, pixels: np.ndarray, **how: Any) -> Path:
    tifffile.imwrite(path, pixels, **how)
    return path


@pytest.mark.parametrize(
    ("suffix", "how", "axes"),
    [
        ("tif", {"imagej": True}, "TZCYX"),
        ("ome.tif", {}, "TCZYX"),
        ("ome.tif", {"compression": "zlib"}, "CTZYX"),
        ("tif", {"photometric": "minisblack"}, "TCZYX"),
    ],
)
def test_planes_of_a_stack(tmp_path: Path, suffix: str, how: dict[str, Any], axes: str) -> None:
    sizes = {"T": 3, "C": 2, "Z": 4}
    pixels = stack(*(sizes[axis] for axis in axes[:3]))
    path = written(tmp_path / f"a.{suffix}", pixels, metadata={"axes": axes}, **how)
    for t, c, z in ((0, 0, 0), (2, 1, 3), (1, 0, 2)):
        index = {"T": t, "C": c, "Z": z}
        expected = pixels[tuple(index[axis] for axis in axes[:3])]
        assert np.array_equal(read_plane(path, t=t, c=c, z=z, stretch=False), expected)
    with pytest.raises(GlunetError, match=r"is a stack \(.*T of 3.*\): say which"):
        read_plane(path, c=0, z=0)
    with pytest.raises(GlunetError, match="2 entries along C, but 2 came"):
        read_plane(path, t=0, c=2, z=0)


def test_pages_without_names(tmp_path: Path) -> None:
    pixels = stack(5)
    path = tmp_path / "a.tif"
    with tifffile.TiffWriter(path) as file:
        for page in pixels:
            file.write(page, metadata=None)
    assert np.array_equal(read_plane(path, t=3, stretch=False), pixels[3])
    assert np.array_equal(read_plane(path, z=4, stretch=False), pixels[4])
    with pytest.raises(GlunetError, match="say which"):
        read_plane(path)


def test_colours_and_planar_channels(tmp_path: Path) -> None:
    colours = stack(samples=3)
    path = written(tmp_path / "a.tif", colours, photometric="rgb")
    assert np.array_equal(read_plane(path, stretch=False), colours)
    planar = written(tmp_path / "b.tif", colours.transpose(2, 0, 1), photometric="rgb", planarconfig="separate")
    assert np.array_equal(read_plane(planar, stretch=False), colours)
    with pytest.raises(GlunetError, match="no axis C"):
        read_plane(path, c=1)


def test_stretched_to_grey_levels(tmp_path: Path) -> None:
    pixels = 300 + 20 * np.random.default_rng(0).standard_normal((HEIGHT, WIDTH)).astype(np.float32)
    pixels[0, 0], pixels[0, 1] = 1e6, np.nan  # a hot pixel, and a dead one
    seen = read_plane(written(tmp_path / "a.tif", pixels))
    assert seen.dtype == np.float32
    assert (seen.min(), seen.max(), seen[0, 1]) == (0, 1, 0)
    assert abs(seen.mean() - 0.5) < 0.05
    assert np.ptp(read_plane(written(tmp_path / "b.tif", np.full((HEIGHT, WIDTH), 7, np.uint16)))) == 0


def test_only_the_page_is_read(tmp_path: Path) -> None:
    """The last page is broken: the others are read all the same, and it says so."""
    path = written(tmp_path / "a.tif", stack(3), compression="zlib", metadata={"axes": "TYX"}, photometric="minisblack")
    with tifffile.TiffFile(path) as file:
        place = file.pages[2].dataoffsets[0]
    content = bytearray(path.read_bytes())
    content[place : place + 200] = bytes(200)
    path.write_bytes(content)
    assert np.array_equal(read_plane(path, t=1, stretch=False), stack(3)[1])
    with pytest.raises(GlunetError, match="cannot be decoded"):
        read_plane(path, t=2)


def test_what_is_no_tiff(tmp_path: Path) -> None:
    (tmp_path / "a.tif").write_bytes(b"no tiff at all")
    with pytest.raises(GlunetError, match="is not a TIFF"):
        read_plane(tmp_path / "a.tif")
    with pytest.raises(GlunetError, match="cannot be read"):
        read_plane(tmp_path / "missing.tif")
    path = written(tmp_path / "b.tif", stack())
    with pytest.raises(GlunetError, match="1 series, but 1 came"):
        read_plane(path, series=1)
