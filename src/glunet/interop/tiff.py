"""One plane of a scientific TIFF, a stack of times, channels and depths (tifffile, extra `tiff`)."""

import os
from pathlib import Path
from typing import Any

import numpy as np

from glunet.errors import GlunetError, needed
from glunet.interop.levels import black_and_white

_NAMES = {"t": "T", "c": "C", "z": "Z"}
_IN_PLANE = "YXS"  # rows, columns, samples: red, green and blue of one pixel


def read_plane(
    path: str | os.PathLike[str],
    t: int | None = None,
    c: int | None = None,
    z: int | None = None,
    series: int = 0,
    stretch: bool = True,
) -> np.ndarray:
    """One image of a TIFF (ImageJ's, OME, plain), as `Matcher.match` takes it. Of the file no more than that is read.

    Args:
        t, c, z: which time, channel and depth, counted from 0. An axis of one entry need not be named. Plain TIFF does
            not name the axis of its pages: any one of the three does for it.
        series: of a file that holds several images (positions, resolutions): which.
        stretch: from the 0.5 to the 99.5 percentile of this plane's values (NaN excepted, which becomes black) to 0..1.
            False leaves the values and their type as they are.

    Returns:
        H x W, or H x W x 3 where a pixel has red, green and blue: float32, 0..1, or as in the file.

    Raises:
        GlunetError: no TIFF, one that is broken or compressed in a way that needs imagecodecs; an axis that has several
            entries and is not named, is not there, or is shorter; no tifffile.
    """
    with needed("Scientific TIFF needs tifffile", "tiff"):
        import tifffile
    path = Path(path)
    try:
        with tifffile.TiffFile(path) as file:
            if not 0 <= series < len(file.series):
                raise GlunetError(f"'{path}' has {len(file.series)} series, but {series} came: they count from 0.")
            found = file.series[series]
            place = _place(found.axes, found.shape, {"t": t, "c": c, "z": z}, path)
            pixels = _plane(found, place)
    except GlunetError:
        raise
    except OSError as error:
        raise GlunetError(f"'{path}' cannot be read ({error.strerror or error}): check the path.") from error
    except tifffile.TiffFileError as error:
        raise GlunetError(f"'{path}' is not a TIFF that tifffile can read ({error}).") from error
    except Exception as error:  # broken files make decoders raise nearly anything
        raise GlunetError(
            f"'{path}' cannot be decoded ({error}); pip install 'glunet[tiff]' has the codecs."
        ) from error
    if not stretch:
        return pixels
    values = pixels.astype(np.float32)
    finite = np.isfinite(values)
    if not finite.any():
        raise GlunetError(f"'{path}' holds no number at {_said(place)}.")
    low, high = black_and_white(values[finite])
    return ((np.where(finite, values, low) - low) / (high - low)).clip(0, 1)


def _place(axes: str, shape: tuple[int, ...], asked: dict[str, int | None], path: Path) -> dict[int, int]:
    """Axis -> index of those that are not in the plane."""
    there = {number: (axis, size) for number, (axis, size) in enumerate(zip(axes, shape, strict=True))}
    if not {"Y", "X"} <= set(axes):
        raise GlunetError(f"'{path}' has the axes {axes}, but an image with Y and X is expected.")
    stacked = {number: (axis, size) for number, (axis, size) in there.items() if axis not in _IN_PLANE}
    listed = ", ".join(f"{axis} of {size}" for axis, size in stacked.values()) or "none beside Y and X"
    wanted = {_NAMES[name]: index for name, index in asked.items() if index is not None}
    place: dict[int, int] = {}
    for number, (axis, size) in stacked.items():
        # "I" and "Q" are tifffile's letters for pages whose meaning the file does not say.
        key = axis if axis in wanted or axis not in "IQ" or not wanted else next(iter(wanted))
        index = wanted.pop(key, 0 if size == 1 else None)
        if index is None:
            raise GlunetError(f"'{path}' is a stack ({listed}): say which {axis}, as in t=0, c=1 or z=2.")
        if not 0 <= index < size:
            raise GlunetError(f"'{path}' has {size} entries along {axis}, but {index} came: they count from 0.")
        place[number] = index
    left = [axis for axis, index in wanted.items() if index != 0]
    if left:
        raise GlunetError(f"'{path}' has no axis {', '.join(left)}: {listed}.")
    return place


def _plane(series: Any, place: dict[int, int]) -> np.ndarray:
    """H x W or H x W x samples; of stacks of pages, one page is read."""
    axes, shape = series.axes, series.shape
    leading = [
        number for number in range(len(axes)) if number in place and number < min(axes.find("Y"), axes.find("X"))
    ]
    pages = int(np.prod([shape[number] for number in leading])) if leading else 1
    if len(series.pages) == pages > 1 and leading == list(range(len(leading))):
        key = int(np.ravel_multi_index([place[n] for n in leading], [shape[n] for n in leading]))
        pixels = series.asarray(key=key).reshape(shape[len(leading) :])
        at = [place.get(number, slice(None)) for number in range(len(leading), len(axes))]
    else:
        pixels, at = series.asarray(), [place.get(number, slice(None)) for number in range(len(axes))]
    pixels = pixels[tuple(at)]
    kept = [axis for number, axis in enumerate(axes) if number not in place]
    return pixels.transpose([kept.index(axis) for axis in _IN_PLANE if axis in kept])


def _said(place: dict[int, int]) -> str:
    return f"index {', '.join(map(str, place.values()))}" if place else "all"
