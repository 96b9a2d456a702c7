"""What a user may hand in, and what each becomes."""

import io
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from glunet.errors import GlunetError
from glunet.images.reading import grey_levels, image_size, load_image

RGB = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8)
GREY = RGB[..., 0]
DEEP = np.random.default_rng(1).integers(0, 65536, (40, 50), dtype=np.uint16)


def planes(array: np.ndarray) -> torch.Tensor:
    """What the H x W x 3 array should become."""
    return torch.from_numpy(np.moveaxis(array.astype(np.float32), 2, 0).copy())


def saved(path: Path, picture: Image.Image, **options: object) -> Path:
    picture.save(path, **options)
    return path


def test_same_pixels_however_they_come(tmp_path):
    path = saved(tmp_path / "a.png", Image.fromarray(RGB))
    tensor = torch.from_numpy(np.moveaxis(RGB, 2, 0).copy())
    with Image.open(path) as opened:
        images = [str(path), path, Image.fromarray(RGB), opened, RGB, RGB[:, ::-1][:, ::-1], tensor]
        for image in images:
            loaded = load_image(image)
            assert loaded.dtype == torch.float32
            assert loaded.is_contiguous() or isinstance(image, torch.Tensor)
            assert torch.equal(loaded, planes(RGB))
            assert image_size(image) == (40, 50)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, ">f4"])
def test_floats_are_0_to_1(dtype):
    loaded = load_image((RGB / 255).astype(dtype))
    torch.testing.assert_close(loaded, planes(RGB), atol=0.13 if dtype is np.float16 else 1e-3, rtol=0)
    assert torch.equal(load_image(np.ones((40, 40), np.float32) * np.float32(1 + 1e-6)).amax(), torch.tensor(255.0))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_float_tensors(dtype):
    tensor = torch.rand(3, 40, 50, dtype=torch.float64).to(dtype).requires_grad_()
    loaded = load_image(tensor)
    assert loaded.dtype == torch.float32
    assert not loaded.requires_grad
    assert torch.equal(loaded, tensor.detach().float() * 255)


def test_inputs_are_not_written_to():
    tensor = torch.rand(3, 40, 50)
    array = RGB.copy()
    array.setflags(write=False)
    before = tensor.clone()
    load_image(tensor).zero_()
    load_image(array).zero_()
    assert torch.equal(tensor, before)
    assert np.array_equal(array, RGB)


@pytest.mark.parametrize("shape", [(40, 50), (40, 50, 1)])
def test_grey_is_repeated(shape):
    expected = planes(np.repeat(GREY[..., None], 3, 2))
    assert torch.equal(load_image(GREY.reshape(shape)), expected)
    assert torch.equal(load_image(torch.from_numpy(GREY[None].copy())), expected)
    assert torch.equal(load_image(Image.fromarray(GREY)), expected)


@pytest.mark.parametrize(("suffix", "mode"), [("png", "I;16"), ("tiff", "I;16"), ("tiff", "I"), ("tiff", "F")])
def test_16_bits_keep_their_precision(tmp_path, suffix, mode):
    array = {"I;16": DEEP, "I": DEEP.astype(np.int32), "F": (DEEP / 65535).astype(np.float32)}[mode]
    path = saved(tmp_path / f"deep.{suffix}", Image.fromarray(array))
    with Image.open(path) as picture:
        assert picture.mode == mode
    expected = torch.from_numpy(DEEP / 257).float().expand(3, -1, -1)
    torch.testing.assert_close(load_image(path), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(load_image(DEEP), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(load_image(DEEP.astype(">u2")), expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(load_image(torch.from_numpy(DEEP[None].copy())), expected, atol=1e-4, rtol=0)


def test_big_endian_16_bit_mode():
    picture = Image.frombytes("I;16B", (50, 40), DEEP.astype(">u2").tobytes())
    assert torch.equal(load_image(picture), load_image(DEEP))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_what_a_viewer_shows(tmp_path, orientation):
    upright = Image.fromarray(RGB)
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = upright.transpose(undo[orientation]) if orientation in undo else upright
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = saved(tmp_path / "turned.png", stored, exif=exif)
    assert torch.equal(load_image(path), planes(RGB))
    assert image_size(path) == (40, 50)
    with Image.open(path) as opened:
        assert torch.equal(load_image(opened), planes(RGB))


def test_palette_one_bit_and_cmyk():
    palette = Image.fromarray(RGB).quantize(16)
    assert torch.equal(load_image(palette), planes(np.asarray(palette.convert("RGB"))))
    one_bit = Image.fromarray(GREY).convert("1")
    assert load_image(one_bit).unique().tolist() == [0, 255]
    cmyk = Image.fromarray(RGB).convert("CMYK")
    assert torch.equal(load_image(cmyk), planes(np.asarray(cmyk.convert("RGB"))))


def test_transparent_is_laid_over_white(tmp_path):
    alpha = np.full((40, 50, 1), 255, np.uint8)
    opaque = np.concatenate((RGB, alpha), 2)
    assert torch.equal(load_image(opaque), planes(RGB))
    alpha[:20] = 0
    alpha[20:30] = 51  # a fifth
    half = np.concatenate((RGB, alpha), 2)
    path = saved(tmp_path / "half.png", Image.fromarray(half))
    share = alpha / 255.0
    expected = planes(RGB * share + 255 * (1 - share))
    for image in (half, path, torch.from_numpy(np.moveaxis(half, 2, 0).copy())):
        torch.testing.assert_close(load_image(image), expected, atol=1e-3, rtol=0)
    palette = Image.fromarray(RGB).quantize(4)
    path = saved(tmp_path / "palette.png", palette, transparency=0)
    assert (load_image(path)[:, torch.from_numpy(np.asarray(palette) == 0)] == 255).all()


def test_first_frame_of_many(tmp_path):
    other = Image.fromarray(255 - RGB)
    path = saved(tmp_path / "many.tiff", Image.fromarray(RGB), save_all=True, append_images=[other])
    assert torch.equal(load_image(path), planes(RGB))


def test_jpeg_and_webp_agree_with_pillow(tmp_path):
    for suffix in ("jpg", "webp") if features.check("webp") else ("jpg",):
        path = saved(tmp_path / f"a.{suffix}", Image.fromarray(RGB))
        with Image.open(path) as picture:
            expected = np.asarray(picture.convert("RGB"))
        assert torch.equal(load_image(path), planes(expected))


def test_broken_exif_does_not_matter(tmp_path):
    stored = io.BytesIO()
    Image.fromarray(RGB).save(stored, "JPEG", exif=b"Exif\0\0not a TIFF header")
    path = tmp_path / "a.jpg"
    path.write_bytes(stored.getvalue())
    assert load_image(path).shape == (3, 40, 50)


BAD = {
    "list": ([[1, 2], [3, 4]], "type list"),
    "none": (None, "type NoneType"),
    "ints": (RGB.astype(np.int64), "type int64"),
    "bools": (GREY > 9, "type bool"),
    "uint32": (RGB.astype(np.uint32), "type uint32"),
    "objects": (RGB.astype(object), "type object"),
    "int tensor": (torch.zeros(3, 40, 40, dtype=torch.int32), "type int32"),
    "nan": (np.full((40, 40), np.nan, np.float32), "NaN"),
    "inf": (np.full((40, 40), np.inf, np.float32), "infinite"),
    "nan tensor": (torch.full((3, 40, 40), float("nan")), "NaN"),
    "0..255": (RGB.astype(np.float32), "0..1 is expected"),
    "-1..1": (RGB / 127.5 - 1, "0..1 is expected"),
    "channels first": (np.zeros((3, 40, 50), np.uint8), "channels first"),
    "two channels": (np.zeros((40, 50, 2), np.uint8), "H x W x 1, 3 or 4"),
    "five dimensions": (np.zeros((1, 1, 40, 50, 3), np.uint8), "1 x 1 x 40 x 50 x 3"),
    "number": (np.array(3, np.float32), "a single number"),
    "channels last": (torch.zeros(40, 50, 3), "3 x H x W is expected"),
    "batch": (torch.zeros(1, 3, 40, 50), "matcher.flow"),
    "small": (RGB[:31], "50 x 31"),
    "empty": (np.zeros((0, 0, 3), np.uint8), "0 x 0"),
    "small pillow": (Image.new("RGB", (31, 200)), "31 x 200"),
    "empty pillow": (Image.new("RGB", (0, 0)), "0 x 0"),
    "float pillow": (Image.new("F", (40, 40), 7.0), "0..1 is expected"),
    "32-bit pillow": (Image.new("I", (40, 40), 70000), "16 bits"),
}


@pytest.mark.parametrize("case", BAD)
def test_refused_values(case):
    image, expected = BAD[case]
    with pytest.raises(GlunetError, match=r"^The source image") as caught:
        load_image(image, "source")
    assert expected in str(caught.value)
    assert str(caught.value).endswith(".")


def test_refused_files(tmp_path):
    text = tmp_path / "text.jpg"
    text.write_text("no picture")
    whole = saved(tmp_path / "whole.jpg", Image.fromarray(RGB)).read_bytes()
    cut = tmp_path / "cut.jpg"
    cut.write_bytes(whole[: len(whole) // 2])
    whole = saved(tmp_path / "whole.png", Image.fromarray(RGB)).read_bytes()
    broken = tmp_path / "broken.png"
    broken.write_bytes(whole[: len(whole) // 2])
    empty = tmp_path / "empty.png"
    empty.touch()
    for path, expected in [
        (tmp_path / "none.png", "does not exist"),
        (tmp_path, "is a folder"),
        (text, "not an image"),
        (cut, "damaged"),
        (broken, "damaged"),
        (empty, "empty file"),
        ("a" * 5000, "cannot be read"),
        (Path("/dev/null"), "not a regular file"),
    ]:
        with pytest.raises(GlunetError, match=expected) as caught:
            load_image(path, "target")
        assert str(caught.value).startswith(f"The target image '{path}' ")


def test_more_pixels_than_pillow_opens(tmp_path, monkeypatch):
    path = saved(tmp_path / "large.png", Image.fromarray(RGB))
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1500)
    assert load_image(path).shape == (3, 40, 50)  # Pillow warns from here on; the limit is the memory
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 900)
    with pytest.raises(GlunetError, match="that Pillow opens"):
        image_size(path)


def test_batches():
    batch = torch.randint(0, 256, (2, 3, 40, 50), dtype=torch.uint8)
    assert torch.equal(grey_levels(batch, "source batch"), batch.float())
    assert torch.equal(grey_levels(batch.float() / 255, "source batch").round(), batch.float())
    for bad in (batch[0], batch[:, :1], batch[:, :, :20], batch[:0], batch.float(), batch.long()):
        with pytest.raises(GlunetError, match=r"^The source batch"):
            grey_levels(bad, "source batch")
