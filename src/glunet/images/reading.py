"""Anything a user calls an image becomes one kind of tensor: 3 x H x W, float32, RGB, 0..255.

Taken are paths, Pillow images, numpy arrays (H x W, H x W x 1, 3 or 4) and tensors (1, 3 or 4 x H x W), the last two as
uint8, uint16 or floats in 0..1. Colours are in the order RGB: what OpenCV reads is BGR and has to be turned first.

- Grey is repeated to three channels; palettes, CMYK and the like are converted; of many frames the first is used.
- The EXIF orientation is applied, also to Pillow images: the pixels are those a viewer shows, and so are coordinates.
- What is transparent is laid over white, as a page shows it (the colours stored under it are arbitrary).
- 16 bits are divided by 257, without rounding to 8 bits. Cameras store 10, 12 or 14 bits in them: what no value exceeds
  is taken for white (255, 1023, 4095, 16383 or 65535), which is logged once, and both images of a pair are read alike.
  Pillow itself reduces 16-bit *colour* files to 8 bits; 16-bit grey keeps its precision.

Masks have one reader as well (`load_mask`): true, or more than half of the mask's largest value, is valid.
"""

import logging
import os
import re
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any, TypeAlias, TypeVar
from warnings import catch_warnings, simplefilter

import cv2
import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from glunet.errors import GlunetError
from glunet.flow.geometry import as_array

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

T = TypeVar("T")

logger = logging.getLogger(__name__)

SMALLEST_SIDE = 32
DEPTHS = (8, 10, 12, 14, 16)  # bits that cameras store in 16
_TURNED_BACK = {2: 2, 3: 3, 4: 4, 5: 5, 6: 8, 7: 7, 8: 6}  # EXIF orientations and their inverses
_FLOAT_SLACK = 1e-4  # what resampling and rounding may leave outside 0..1


def load_image(image: ImageLike, role: str = "given") -> Tensor:
    """The image as a 3 x H x W float32 tensor, RGB, 0..255; a tensor stays on its device, all else is on the CPU.

    Args:
        image: see the module's text.
        role: "source" or "target": how messages call the image.

    Raises:
        GlunetError: missing or unreadable file, wrong shape, type or range of values, a side under 32 px.
    """
    return load_with_depth(image, role)[0]


def load_pixels(image: ImageLike, role: str = "given") -> np.ndarray:
    """As `load_image`, H x W x 3 uint8: to look at, and for what takes no more than 8 bits."""
    return as_picture(load_image(image, role))


def as_picture(image: Tensor) -> np.ndarray:
    """3 x H x W in 0..255, on any device -> H x W x 3 uint8."""
    return as_array(image.round().clamp(0, 255).byte())


def load_with_depth(image: ImageLike, role: str = "given") -> tuple[Tensor, int]:
    """As `load_image`, and how many bits white was taken to have: one of `DEPTHS`; 8 where the image says it itself.

    The other image of a pair is read alike when its levels are divided by `darker` of both.
    """
    name = _name(image, role)
    if isinstance(image, Tensor):
        pixels = image.detach()
        if pixels.ndim != 3 or pixels.shape[0] not in (1, 3, 4):
            raise GlunetError(
                f"The {name} is a tensor of shape {_shape(pixels)}, but 3 x H x W is expected (or 1 or 4 x H x W)"
                f"{'; matcher.flow takes batches' if pixels.ndim == 4 else ''}."
            )
    else:
        array = image if isinstance(image, np.ndarray) else _open(image, name, _pixels_of)
        pixels = _channels_first(array, name)
    height, width = pixels.shape[-2:]
    if min(height, width) < SMALLEST_SIDE:
        raise GlunetError(
            f"The {name} is {width} x {height} pixels, but both sides must be at least {SMALLEST_SIDE}: "
            "use a larger image."
        )
    bits = depth(pixels)
    if bits not in (8, 16) or (bits == 8 and pixels.dtype == torch.uint16):
        _tell_depth(bits)
    # One layout in memory, so that the same pixels give the same flow to the last bit, whatever they came in.
    levels = _colours(_grey_levels(pixels, name, bits)).contiguous()
    return levels, bits if pixels.dtype == torch.uint16 else 0


def depth(pixels: Tensor) -> int:
    """How many bits hold the largest of 16-bit values: one of `DEPTHS`; 8 for values of another type."""
    if pixels.dtype != torch.uint16 or not pixels.numel():
        return 8
    largest = int(pixels.to(torch.int32).amax())
    return next(bits for bits in DEPTHS if largest < 1 << bits)


def check_batches(source: Tensor, target: Tensor, device: torch.device) -> None:
    """Raises a GlunetError unless both are tensors of B x 3 x H x W, equally many, on such a device."""
    for name, images in (("source batch", source), ("target batch", target)):
        if not isinstance(images, Tensor) or images.ndim != 4:
            what = f"{images.ndim}-dimensional tensor" if isinstance(images, Tensor) else type(images).__name__
            raise GlunetError(f"The {name} should be a tensor of B x 3 x H x W, but a {what} came: pass a batch.")
        if images.device.type != device.type:
            raise GlunetError(f"The {name} is on {images.device}, but the matcher computes on {device}: move it.")
    if len(source) != len(target):
        raise GlunetError(f"{len(source)} sources and {len(target)} targets came, but pairs are expected.")


def darker(bits: int, than: int) -> float:
    """By how much levels whose white has `bits` are brighter than those of white at `than` bits, which has more."""
    return ((1 << than) - 1) / ((1 << bits) - 1)


@cache
def _tell_depth(bits: int) -> None:
    """Once for each depth."""
    logger.warning(
        "16-bit pixels came of which none exceeds %d: %d is taken for white. Rescale them to 0..65535 if it is not.",
        (1 << bits) - 1,
        (1 << bits) - 1,
    )


def load_mask(mask: "ImageLike", role: str, size: tuple[int, int]) -> np.ndarray:
    """Where an image is valid: H x W, bool. The one rule for masks: more than half of the mask's largest value.

    So 0 and 1, 0 and 255, and what a lossy file makes of them, are read alike. NaN is not valid. Of a file or Pillow
    image with transparency the opacity is the mask, unless all of it is equally opaque; then its grey levels are.

    Args:
        mask: an array or tensor H x W (x 1, or 1 x) of bool or numbers, or a path or Pillow image.
        role: "source mask", "target mask": how messages call it.
        size: (height, width) that it must have.

    Raises:
        GlunetError: a mask of another size or type, one that cannot be read, or one that leaves no pixel.
    """
    if isinstance(mask, Tensor):
        mask = mask.detach().cpu().numpy()
    if not isinstance(mask, np.ndarray):
        mask = _open(mask, _name(mask, role), _mask_of)
    values = mask.squeeze(0 if mask.shape[0] == 1 else -1) if mask.ndim == 3 and 1 in mask.shape[::2] else mask
    if values.shape != tuple(size) or values.dtype.kind not in "buif":
        raise GlunetError(
            f"The {role} is an array of {mask.dtype} of shape {_shape(mask)}, but one number or bool for each "
            f"of the {size[1]} x {size[0]} pixels is expected (H x W)."
        )
    values = np.where(np.isfinite(values), values, 0) if values.dtype.kind == "f" else values
    valid = values if values.dtype.kind == "b" else values > max(values.max(), 0) / 2
    if not valid.any():
        raise GlunetError(f"The {role} leaves no pixel: it is to be true (or bright) where the image is valid.")
    return np.array(valid, order="C")


def _mask_of(picture: Image.Image, name: str) -> np.ndarray:
    pixels = _pixels_of(picture, name)
    if pixels.ndim == 2:
        return pixels
    if pixels.shape[2] == 4 and np.ptp(pixels[..., 3]):
        return pixels[..., 3]
    return pixels[..., :3].mean(axis=-1)


def image_size(image: ImageLike, role: str = "given") -> tuple[int, int]:
    """(height, width) as `load_image` will return it, without decoding the file."""
    if isinstance(image, Tensor):
        return (image.shape[-2], image.shape[-1]) if image.ndim >= 2 else (0, 0)
    if isinstance(image, np.ndarray):
        return (image.shape[0], image.shape[1]) if image.ndim >= 2 else (0, 0)
    return _open(image, _name(image, role), _upright_size)


def grey_levels(images: Tensor, name: str, bits: int | None = None) -> Tensor:
    """A batch of colour images, uint8, uint16 or float 0..1, as float32 in 0..255.

    Args:
        images: B x 3 x H x W.
        name: how messages call it, for example "source batch".
        bits: of white in uint16; by default as many as the batch needs (`depth`).
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[0] == 0:
        raise GlunetError(f"The {name} is a tensor of shape {_shape(images)}, but B x 3 x H x W is expected.")
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        raise GlunetError(
            f"The {name} is of {images.shape[-1]} x {images.shape[-2]} pixels, but both sides must be at least "
            f"{SMALLEST_SIDE}: use larger images."
        )
    return _grey_levels(images, name, bits or depth(images))


def _name(image: ImageLike, role: str) -> str:
    if isinstance(image, str | os.PathLike):
        return f"{role} image '{os.fspath(image)}'"
    filename = getattr(image, "filename", "")
    return f"{role} image '{filename}'" if filename else f"{role} image"


def _shape(array: np.ndarray | Tensor) -> str:
    return " x ".join(str(side) for side in array.shape) or "a single number"


def _open(image: object, name: str, use: Callable[[Image.Image, str], T]) -> T:
    """`use(picture, name)` of an opened file or a Pillow image; whatever a broken file raises becomes a GlunetError."""
    if isinstance(image, Image.Image):
        return _guarded(lambda: use(image, name), name)
    if not isinstance(image, str | os.PathLike):
        raise GlunetError(
            f"The {name} is of type {type(image).__name__}, but a path, a Pillow image, an array or a tensor is "
            "expected."
        )
    path = Path(os.fspath(image))
    try:
        if not path.exists():
            raise GlunetError(f"The {name} does not exist: check the path.")
        if path.is_dir():
            raise GlunetError(f"The {name} is a folder, but an image file is expected: name one file in it.")
        if not path.is_file():
            raise GlunetError(f"The {name} is not a regular file: save it as an image file first.")
        if path.stat().st_size == 0:
            raise GlunetError(f"The {name} is an empty file: save or download it again.")
    except OSError as error:
        raise GlunetError(f"The {name} cannot be read ({error.strerror or error}): check the path.") from error

    def from_file() -> T:
        try:
            with Image.open(path) as picture:
                return use(picture, name)
        except Image.UnidentifiedImageError:
            return use(_float_colours(path), name)

    return _guarded(from_file, name)


def _float_colours(path: Path) -> Image.Image:
    """A TIFF of float colours, which Pillow has no mode for, as 8 bits.

    Raises:
        UnidentifiedImageError: if it is none.
    """
    pixels = cv2.imread(str(path), cv2.IMREAD_UNCHANGED) if path.suffix.lower() in (".tif", ".tiff") else None
    if pixels is None or pixels.ndim != 3 or pixels.dtype.kind != "f":
        raise Image.UnidentifiedImageError
    levels = _grey_levels(torch.from_numpy(pixels[..., 2::-1].copy()), f"image '{path}'", 8)
    return Image.fromarray(levels.round().byte().numpy())


def _guarded(read: Callable[[], T], name: str) -> T:
    try:
        with catch_warnings():
            # How large is too large the matcher says, by the memory that there is; it asks for the size first.
            simplefilter("ignore", Image.DecompressionBombWarning)
            return read()
    except GlunetError:
        raise
    except Image.UnidentifiedImageError as error:
        raise GlunetError(f"The {name} is not an image that Pillow can read: use PNG, JPEG, TIFF or WebP.") from error
    except Image.DecompressionBombError as error:
        limit = 2 * (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise GlunetError(
            f"The {name} has more than the {limit} million pixels that Pillow opens: make it smaller."
        ) from error
    except Exception as error:  # broken files make Pillow's decoders raise nearly anything
        # Pillow names the file again.
        reason = re.sub(r"\s*(in|of|file)?\s*'[^']*'", "", " ".join(str(error).split())).rstrip(".")
        reason = reason or type(error).__name__
        raise GlunetError(
            f"The {name} is damaged or cannot be decoded ({reason}): save or download it again."
        ) from error


def _upright_size(picture: Image.Image, name: str) -> tuple[int, int]:
    height, width = _stored_size(picture)
    return (width, height) if _orientation(picture) >= 5 else (height, width)


def _stored_size(picture: Image.Image) -> tuple[int, int]:
    """(height, width) as in the file. Of a turned TIFF Pillow says, as soon as it is opened, what it has upright."""
    tags = getattr(picture, "tag_v2", None)
    width, height = (int(tags[257 - 1]), int(tags[257])) if tags and 256 in tags and 257 in tags else picture.size
    return height, width


def load_as_stored(path: "str | os.PathLike[str]", role: str = "given") -> np.ndarray:
    """An image file as H x W x 3 uint8, RGB, not turned by its EXIF orientation.

    Raises:
        GlunetError: as `load_image`.
    """
    orientation = _open(path, _name(path, role), lambda picture, name: _orientation(picture))
    pixels = load_pixels(path, role)
    if orientation == 1:
        return pixels
    exif = Image.Exif()
    exif[0x0112] = _TURNED_BACK[orientation]
    picture = Image.fromarray(pixels)
    picture.info["exif"] = exif.tobytes()
    return np.array(ImageOps.exif_transpose(picture))


def size_as_stored(path: "str | os.PathLike[str]", role: str = "given") -> tuple[int, int]:
    """(height, width) of what `load_as_stored` returns, without decoding the file."""
    return _open(path, _name(path, role), lambda picture, name: _stored_size(picture))


def _orientation(picture: Image.Image) -> int:
    """EXIF orientation, 1 (upright) to 8; from 5 on width and height are exchanged."""
    try:
        orientation = picture.getexif().get(0x0112, 1)
    except Exception:  # pictures with broken EXIF are shown as they are stored
        return 1
    return orientation if orientation in range(1, 9) else 1


def _pixels_of(picture: Image.Image, name: str) -> np.ndarray:
    """H x W or H x W x C of uint8, uint16 or float32, upright."""
    if _orientation(picture) > 1:
        opened: Any = picture
        filename, opened.filename = getattr(opened, "filename", ""), ""
        opened.load()  # without a name: of a TIFF that it maps into memory Pillow confuses the sides
        opened.filename = filename
        picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I;16"):
        return np.array(picture)
    if picture.mode == "I":  # 32-bit integers: how Pillow opened 16-bit PNG in the past, and how it opens some TIFF
        pixels = np.array(picture)
        if pixels.size and (pixels.min() < 0 or pixels.max() > 65535):
            raise GlunetError(
                f"The {name} holds 32-bit integers from {pixels.min()} to {pixels.max()}, but at most 16 bits "
                "(0 to 65535) are expected: convert it to 8 or 16 bits."
            )
        return pixels.astype(np.uint16)
    if picture.mode == "F" or (picture.mode == "L" and "transparency" not in picture.info):
        return np.array(picture)
    if picture.mode in ("La", "RGBa"):
        picture = picture.convert("LA" if picture.mode == "La" else "RGBA")
    return np.array(picture.convert("RGBA" if picture.has_transparency_data else "RGB"))


def _channels_first(array: np.ndarray, name: str) -> Tensor:
    if array.ndim == 2:
        array = array[..., None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4):
        tensor_like = array.ndim == 3 and array.shape[0] in (1, 3)
        hint = "; tensors, not arrays, have their channels first" if tensor_like else ""
        raise GlunetError(
            f"The {name} is an array of shape {_shape(array)}, but H x W, or H x W x 1, 3 or 4, is expected{hint}."
        )
    if array.dtype.kind not in "uf" or array.dtype.itemsize > (2 if array.dtype.kind == "u" else 8):
        raise _wrong_type(name, array.dtype)
    array = np.ascontiguousarray(np.moveaxis(array, 2, 0), dtype=array.dtype.newbyteorder("="))
    if not array.flags.writeable:
        array = array.copy()  # torch warns of read-only memory
    return torch.from_numpy(array)


def _wrong_type(name: str, dtype: object) -> GlunetError:
    return GlunetError(
        f"The {name} has values of type {str(dtype).removeprefix('torch.')}, but uint8, uint16 or floats in 0..1 are "
        "expected: convert it first."
    )


def _grey_levels(pixels: Tensor, name: str, bits: int) -> Tensor:
    """Float32 in 0..255, same shape, from uint8, uint16 (white at so many bits) or floats in 0..1."""
    if pixels.dtype == torch.uint8:
        return pixels.float()
    if pixels.dtype == torch.uint16:
        return pixels.float() / (((1 << bits) - 1) / 255)
    if not pixels.is_floating_point():
        raise _wrong_type(name, pixels.dtype)
    low, high = (float(value) for value in torch.aminmax(pixels))
    if not np.isfinite(low) or not np.isfinite(high):
        raise GlunetError(
            f"The {name} holds NaN or infinite values, but floats in 0..1 are expected: replace them first."
        )
    if low < -_FLOAT_SLACK or high > 1 + _FLOAT_SLACK:
        raise GlunetError(
            f"The {name} holds floats from {low:.4g} to {high:.4g}, but 0..1 is expected: rescale it, or hand it in as "
            "uint8."
        )
    return pixels.float().clamp(0, 1) * 255


def _colours(pixels: Tensor) -> Tensor:
    if pixels.shape[0] == 4:
        alpha = pixels[3:] / 255
        return pixels[:3] * alpha + 255 * (1 - alpha)
    return pixels.repeat(3, 1, 1) if pixels.shape[0] == 1 else pixels
