"""Anything a user calls an image becomes one kind of tensor: 3 x H x W, float32, RGB, 0..255.

Taken are paths, Pillow images, numpy arrays (H x W, H x W x 1, 3 or 4) and tensors (1, 3 or 4 x H x W), the last two as
uint8, uint16 or floats in 0..1. Colours are in the order RGB: what OpenCV reads is BGR and has to be turned first.

- Grey is repeated to three channels; palettes, CMYK and the like are converted; of many frames the first is used.
- The EXIF orientation is applied, also to Pillow images: the pixels are those a viewer shows, and so are coordinates.
- What is transparent is laid over white, as a page shows it (the colours stored under it are arbitrary).
- 16 bits are divided by 257, without rounding to 8 bits. Pillow itself reduces 16-bit *colour* files to 8 bits; 16-bit
  grey keeps its precision.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import TypeAlias, TypeVar
from warnings import catch_warnings, simplefilter

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from glunet.errors import GlunetError

ImageLike: TypeAlias = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor

T = TypeVar("T")

SMALLEST_SIDE = 32
_FLOAT_SLACK = 1e-4  # what resampling and rounding may leave outside 0..1


def load_image(image: ImageLike, role: str = "given") -> Tensor:
    """The image as a 3 x H x W float32 tensor, RGB, 0..255; a tensor stays on its device, all else is on the CPU.

    Args:
        image: see the module's text.
        role: "source" or "target": how messages call the image.

    Raises:
        GlunetError: missing or unreadable file, wrong shape, type or range of values, a side under 32 px.
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
    # One layout in memory, so that the same pixels give the same flow to the last bit, whatever they came in.
    return _colours(_grey_levels(pixels, name)).contiguous()


def image_size(image: ImageLike, role: str = "given") -> tuple[int, int]:
    """(height, width) as `load_image` will return it, without decoding the file."""
    if isinstance(image, Tensor):
        return (image.shape[-2], image.shape[-1]) if image.ndim >= 2 else (0, 0)
    if isinstance(image, np.ndarray):
        return (image.shape[0], image.shape[1]) if image.ndim >= 2 else (0, 0)
    return _open(image, _name(image, role), _upright_size)


def grey_levels(images: Tensor, name: str) -> Tensor:
    """A batch of colour images, uint8, uint16 or float 0..1, as float32 in 0..255.

    Args:
        images: B x 3 x H x W.
        name: how messages call it, for example "source batch".
    """
    if images.ndim != 4 or images.shape[1] != 3 or images.shape[0] == 0:
        raise GlunetError(f"The {name} is a tensor of shape {_shape(images)}, but B x 3 x H x W is expected.")
    if min(images.shape[-2:]) < SMALLEST_SIDE:
        raise GlunetError(
            f"The {name} is of {images.shape[-1]} x {images.shape[-2]} pixels, but both sides must be at least "
            f"{SMALLEST_SIDE}: use larger images."
        )
    return _grey_levels(images, name)


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
        with Image.open(path) as picture:
            return use(picture, name)

    return _guarded(from_file, name)


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
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        raise GlunetError(
            f"The {name} is damaged or cannot be decoded ({reason}): save or download it again."
        ) from error


def _upright_size(picture: Image.Image, name: str) -> tuple[int, int]:
    width, height = picture.size
    return (width, height) if _orientation(picture) >= 5 else (height, width)


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


def _grey_levels(pixels: Tensor, name: str) -> Tensor:
    """Float32 in 0..255, same shape, from uint8, uint16 or floats in 0..1."""
    if pixels.dtype == torch.uint8:
        return pixels.float()
    if pixels.dtype == torch.uint16:
        return pixels.float() / 257
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
