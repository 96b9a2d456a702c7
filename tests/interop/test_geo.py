"""Georeferenced rasters: known movements come back in metres, and what cannot be compared says why."""

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import skimage.data
import skimage.transform
from typer.testing import CliRunner

import glunet
from glunet.cli import app
from glunet.errors import GlunetError
from glunet.interop import geo

UTM = "EPSG:32633"
EAST, NORTH = 500_000.0, 5_800_000.0  # of the upper left corner
PIXEL = 0.5  # metres


@pytest.fixture(scope="module")
def rasterio() -> Any:
    return pytest.importorskip("rasterio")


@pytest.fixture(scope="module")
def matcher():
    return glunet.load(search="none", polish=False)


def ground(columns: float = 0, rows: float = 0, size: tuple[int, int] = (200, 240)) -> np.ndarray:
    """A part of a photograph that begins so many pixels right and down of (100, 100): H x W x 3 uint8."""
    picture = skimage.data.astronaut().astype(np.float64) / 255
    shift = skimage.transform.AffineTransform(translation=(100 + columns, 100 + rows))
    return (255 * skimage.transform.warp(picture, shift, output_shape=size, order=3)).round().astype(np.uint8)


@pytest.fixture
def write(rasterio: Any, tmp_path: Path):
    def made(name: str, image: np.ndarray, **changed: Any) -> Path:
        if image.ndim == 2:
            image = image[..., None]
        profile = {
            "driver": "GTiff",
            "height": image.shape[0],
            "width": image.shape[1],
            "count": image.shape[2],
            "dtype": image.dtype,
            "crs": UTM,
            "transform": rasterio.Affine(PIXEL, 0, EAST, 0, -PIXEL, NORTH),
        } | changed
        with rasterio.open(tmp_path / name, "w", **profile) as raster:
            raster.write(image.transpose(2, 0, 1))
        return tmp_path / name

    return made


def read(rasterio: Any, path: Path) -> tuple[np.ndarray, Any]:
    with rasterio.open(path) as raster:
        return raster.read(), raster.profile | {"names": raster.descriptions, "units": raster.units}


def test_what_moved_east_and_north_does_so_in_metres(rasterio, write, matcher, tmp_path):
    # What the source shows at (x, y) the target shows 6 pixels to the right and 3.5 up: 3 m east, 1.75 m north.
    source, target = write("before.tif", ground()), write("after.tif", ground(-6, 3.5))
    seen = []
    found = geo.displacement(source, target, tmp_path / "moved.tif", matcher, watch=lambda *state: seen.append(state))
    moved, profile = read(rasterio, tmp_path / "moved.tif")
    inner = moved[:, 20:-20, 20:-20]
    assert np.abs(np.nanmedian(inner[0]) - 3) < 0.1
    assert np.abs(np.nanmedian(inner[1]) - 1.75) < 0.1
    assert (found.east, found.north) == pytest.approx((3, 1.75), abs=0.1)
    assert found.sure > 0.9
    assert found.spread < 0.2
    assert (profile["crs"], profile["transform"]) == (UTM, rasterio.Affine(PIXEL, 0, EAST, 0, -PIXEL, NORTH))
    assert profile["names"] == ("metres east", "metres north", "confidence")
    assert profile["units"][:2] == ("metre", "metre")
    assert 0 <= np.nanmin(moved[2]) <= np.nanmax(moved[2]) <= 1
    assert seen == [(1, 1)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["after.tif", "before.tif", "moved.tif"]


def test_another_grid_and_another_extent_are_no_movement(rasterio, write, matcher, tmp_path):
    half = rasterio.Affine(2 * PIXEL, 0, EAST - 20 * PIXEL, 0, -2 * PIXEL, NORTH + 20 * PIXEL)
    wider = ground(-20, -20, (240, 280)).reshape(120, 2, 140, 2, 3).mean(axis=(1, 3)).round().astype(np.uint8)
    source, target = write("before.tif", wider, transform=half), write("after.tif", ground())
    found = geo.displacement(source, target, tmp_path / "moved.tif", matcher)
    assert (found.east, found.north) == pytest.approx((0, 0), abs=0.1)
    assert found.covered > 0.95


def test_only_the_overlap_has_an_answer_and_no_data_has_none(rasterio, write, matcher, tmp_path):
    west = rasterio.Affine(PIXEL, 0, EAST - 100 * PIXEL, 0, -PIXEL, NORTH)  # ends 100 px before the target does
    late = ground().astype(np.float32) / 1000
    late[150:] = -9999
    source = write("before.tif", ground(-100), transform=west)
    target = write("after.tif", late, nodata=-9999)
    geo.displacement(source, target, tmp_path / "moved.tif", matcher)
    moved, _ = read(rasterio, tmp_path / "moved.tif")
    assert np.isnan(moved[:, 150:]).all()
    assert np.isnan(moved[:, :, 145:]).all()
    assert np.isfinite(moved[:, 20:130, 20:120]).mean() > 0.95
    assert np.abs(np.nanmedian(moved[:2, 20:130, 20:120])) < 0.1


def test_blocks_make_one_answer(rasterio, write, matcher, tmp_path):
    source, target = write("before.tif", ground()), write("after.tif", ground(-4, 0))
    found = geo.displacement(source, target, tmp_path / "moved.tif", matcher, block=110, margin=32)
    moved, _ = read(rasterio, tmp_path / "moved.tif")
    assert (found.east, found.north) == pytest.approx((2, 0), abs=0.1)
    assert np.isfinite(moved[:, 5:-5, 5:-5]).mean() > 0.98
    assert np.nanpercentile(np.abs(moved[0, 20:-20, 20:-20] - 2), 95) < 0.5


@pytest.mark.parametrize(
    ("height", "width", "block", "margin"), [(200, 240, 110, 32), (97, 33, 32, 0), (65, 64, 64, 5)]
)
def test_blocks_cover_all_once_and_are_large_enough(rasterio, height, width, block, margin):
    times = np.zeros((height, width), int)
    for inner, outer in geo._windows(height, width, block, margin):
        times[inner.row_off : inner.row_off + inner.height, inner.col_off : inner.col_off + inner.width] += 1
        assert outer.row_off <= inner.row_off
        assert outer.col_off <= inner.col_off
        assert inner.row_off + inner.height <= outer.row_off + outer.height <= height
        assert inner.col_off + inner.width <= outer.col_off + outer.width <= width
        assert min(outer.height, outer.width) >= 32
    assert (times == 1).all()


def test_feet_become_metres(rasterio, write, matcher, tmp_path):
    feet = {"crs": "EPSG:2263", "transform": rasterio.Affine(1, 0, 980_000, 0, -1, 200_000)}  # New York, US feet
    source, target = write("before.tif", ground(), **feet), write("after.tif", ground(-10, 0), **feet)
    found = geo.displacement(source, target, tmp_path / "moved.tif", matcher)
    assert found.east == pytest.approx(10 * 0.3048, abs=0.1)


def test_bands_are_chosen(rasterio, write, matcher, tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (200, 240), np.uint8)
    pair = [np.dstack((noise, ground(x, 0))) for x in (0, -6)]
    pair[1][..., 0] = noise[::-1]
    source, target = (write(name, image) for name, image in zip(("before.tif", "after.tif"), pair, strict=True))
    found = geo.displacement(source, target, tmp_path / "moved.tif", matcher, bands=(4, 3, 2))
    assert found.east == pytest.approx(3, abs=0.1)
    for bands in ((5,), (1, 2), (0, 1, 2)):
        with pytest.raises(GlunetError, match="give one or three of 1 to 4"):
            geo.displacement(source, target, tmp_path / "other.tif", matcher, bands=bands)
    assert not (tmp_path / "other.tif").exists()


def test_what_cannot_be_compared_says_why_and_leaves_nothing(rasterio, write, matcher, tmp_path):
    degrees = rasterio.Affine(1e-5, 0, 13, 0, -1e-5, 52)
    far = rasterio.Affine(PIXEL, 0, EAST + 10_000, 0, -PIXEL, NORTH)
    good = write("good.tif", ground())
    empty = np.zeros((200, 240), np.uint8)
    others = {
        "in degrees": write("degrees.tif", ground(), crs="EPSG:4326", transform=degrees),
        "one into the other's system": write("zone.tif", ground(), crs="EPSG:32632"),
        "do not overlap": write("far.tif", ground(), transform=far),
        "32 a side": write("tiny.tif", ground(size=(20, 240))),
        "no valid pixel": write("empty.tif", empty, nodata=0),
        "cannot be read as a raster": tmp_path / "missing.tif",
    }
    before = sorted(tmp_path.iterdir())
    for told, other in others.items():
        with pytest.raises(GlunetError, match=told):
            geo.displacement(other, good, tmp_path / "moved.tif", matcher)
    with pytest.raises(GlunetError, match="give at least 32"):
        geo.displacement(good, good, tmp_path / "moved.tif", matcher, block=8)
    kept = good.read_bytes()
    with pytest.raises(GlunetError, match="is one of the two rasters"):
        geo.displacement(others["one into the other's system"], good, good, matcher)
    assert good.read_bytes() == kept
    assert sorted(tmp_path.iterdir()) == before


def test_a_plain_picture_does_not_say_where_it_lies(rasterio, write, matcher, tmp_path):
    skimage.io.imsave(tmp_path / "plain.png", ground(), check_contrast=False)
    with pytest.raises(GlunetError, match="does not say where it lies"):
        geo.displacement(tmp_path / "plain.png", write("good.tif", ground()), tmp_path / "moved.tif", matcher)


def test_the_command(rasterio, write, tmp_path):
    source, target = write("before.tif", ground()), write("after.tif", ground(-6, 0))
    arguments = ["geo", str(source), str(target), "--out", str(tmp_path / "moved.tif")]
    done = CliRunner().invoke(app, [*arguments, "--search", "none", "--no-polish"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout.splitlines()[-1])["east"] == pytest.approx(3, abs=0.1)
    wrong = CliRunner().invoke(app, [*arguments, "--bands", "red"])
    assert isinstance(wrong.exception, GlunetError)


def test_without_rasterio(monkeypatch: pytest.MonkeyPatch, tmp_path):
    monkeypatch.setitem(sys.modules, "rasterio", None)
    with pytest.raises(GlunetError, match=r"glunet\[geo\]"):
        geo.displacement(tmp_path / "a.tif", tmp_path / "b.tif", tmp_path / "c.tif", None)  # type: ignore[arg-type]
