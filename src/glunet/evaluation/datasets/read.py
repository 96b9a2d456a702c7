"""Reading what evaluation sets are made of, with the path and the expectation in every error."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike, NDArray

from glunet.errors import GlunetError, needed
from glunet.evaluation.datasets.base import FlowTruth, Sample
from glunet.flow.files import read_flow
from glunet.geometry.estimation import apply_homography
from glunet.images.reading import load_mask, load_pixels, size_as_stored


def read_image(path: Path) -> NDArray[np.uint8]:
    """An image file as H x W x 3 uint8 RGB, as a matcher reads it (`glunet.images.reading`)."""
    _expect_file(path, "an image")
    return load_pixels(path, "evaluation")


def read_mask(path: Path, size: tuple[int, ...], of: str) -> NDArray[np.bool_]:
    """A mask image file as H x W bool, as a matcher reads it; `size` and `of`: see `expect_size`."""
    _expect_file(path, "a mask image")
    expect_size(path, size_as_stored(path), size, of)
    return load_mask(path, "evaluation mask", (size[0], size[1]))


def read_matrix(path: Path) -> NDArray[np.float64]:
    """A 3 x 3 homography from a text file of nine numbers, scaled so that the last is 1."""
    _expect_file(path, "a homography (nine numbers)")
    try:
        matrix = np.array(path.read_text().split(), np.float64).reshape(3, 3)
    except (ValueError, UnicodeDecodeError) as error:
        raise GlunetError(f"{path}: expected a homography of nine numbers ({error}).") from error
    if not np.isfinite(matrix).all() or abs(np.linalg.det(matrix)) < 1e-12 or matrix[2, 2] == 0:
        raise GlunetError(f"{path}: expected an invertible homography, got {matrix.tolist()}.")
    return matrix / matrix[2, 2]


def read_mat(path: Path, key: str) -> NDArray[np.float64]:
    """One array of a MATLAB file."""
    _expect_file(path, "a MATLAB file")
    with needed("MATLAB annotations need scipy", "eval"):
        from scipy.io import loadmat
    try:
        content: dict[str, Any] = loadmat(str(path))
    except Exception as error:  # scipy raises half a dozen kinds for a damaged file
        raise GlunetError(f"{path}: not a whole MATLAB file ({error}); is the download complete?") from error
    if key not in content:
        raise GlunetError(f"{path}: expected an array {key!r}, found {[k for k in content if not k.startswith('_')]}.")
    return np.asarray(content[key], np.float64)


def load_frames(target: Path, source: Path, truth: Path, invalid: Path | None = None) -> Sample:
    """Two frames as they are, with the flow from the target into the source.

    Args:
        invalid: an image that is bright where the truth does not count.
    """
    target_image, source_image = read_image(target), read_image(source)
    flow, valid = read_truth(truth)
    expect_size(truth, flow.shape, target_image.shape, target.name)
    if invalid is not None:
        marked = read_image(invalid)[..., 0]
        expect_size(invalid, marked.shape, target_image.shape, target.name)
        valid = valid & (marked < 128)
    return Sample(source_image, target_image, FlowTruth(flow, valid))


def read_truth(path: Path) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """A flow file as flow (H x W x 2, zero where unknown) and where it is known (H x W)."""
    _expect_file(path, "a flow file")
    flow, valid, _ = read_flow(path)
    return np.where(valid[..., None], flow, 0).astype(np.float32), valid


def resize(image: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    """Bilinear, OpenCV's, no antialias: how the official scripts bring HPatches to a common (height, width)."""
    if image.shape[:2] == size:
        return image
    return np.asarray(cv2.resize(image, (size[1], size[0]), interpolation=cv2.INTER_LINEAR), np.uint8)


def pad(array: NDArray[Any], size: tuple[int, int], mode: str = "constant") -> NDArray[Any]:
    """The array (H x W or H x W x C) padded at the bottom and right to (height, width), by zeros or mode "edge"."""
    widths = ((0, size[0] - array.shape[0]), (0, size[1] - array.shape[1])) + ((0, 0),) * (array.ndim - 2)
    return np.pad(array, widths, mode=mode)  # type: ignore[call-overload]


def grid(size: tuple[int, int]) -> NDArray[np.float64]:
    """Pixel coordinates (x, y) of an image of (height, width): H x W x 2."""
    y, x = np.mgrid[: size[0], : size[1]]
    return np.stack((x, y), axis=-1).astype(np.float64)


def homography_flow(
    matrix: ArrayLike, source_size: tuple[int, int], target_size: tuple[int, int]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Flow on the target's grid, and where it points into the source, of a homography source to target."""
    pixels = grid(target_size)
    # With the matrix scaled to end in 1, its inverse has w > 0 exactly for what lies in front of both cameras.
    mapping = apply_homography(np.linalg.inv(np.asarray(matrix, np.float64)), pixels)
    height, width = source_size
    with np.errstate(invalid="ignore"):
        x, y = mapping[..., 0], mapping[..., 1]
        valid = (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)
    flow = np.where(valid[..., None], mapping - pixels, 0)
    return flow.astype(np.float32), valid


def scaled_homography(
    matrix: NDArray[np.float64],
    source: tuple[tuple[int, int], tuple[int, int]],
    target: tuple[tuple[int, int], tuple[int, int]],
) -> NDArray[np.float64]:
    """A homography for resized images, S_t H S_s^-1; `source` and `target` are each (size before, size after)."""

    def scale(before: tuple[int, int], after: tuple[int, int]) -> NDArray[np.float64]:
        return np.diag([after[1] / before[1], after[0] / before[0], 1.0])

    return scale(*target) @ matrix @ np.linalg.inv(scale(*source))


def expect_size(path: Path, got: tuple[int, ...], expected: tuple[int, ...], of: str) -> None:
    """Raise when a truth or a mask has not the size of its image."""
    if tuple(got[:2]) != tuple(expected[:2]):
        raise GlunetError(
            f"{path}: is {got[1]}x{got[0]}, but {of} is {expected[1]}x{expected[0]}; truth and image must be of one"
            f" size."
        )


def below(root: Path, *names: str) -> Path:
    """The folder called one of `names`: the root itself, or a child of it, or the root when there is none such."""
    if root.name in names:
        return root
    return next((root / name for name in names if (root / name).is_dir()), root)


def need(path: Path, what: str) -> Path:
    """`path`, when it exists; else an error that says `what` it is."""
    if not path.exists():
        raise GlunetError(f"{path}: missing; expected {what}.")
    return path


def lines(path: Path, what: str) -> list[str]:
    """Lines of a text file that are not empty."""
    _expect_file(path, what)
    return [line.strip() for line in path.read_text().splitlines() if line.strip()]


def table(path: Path, columns: tuple[str, ...], what: str) -> list[tuple[int, dict[str, str]]]:
    """Rows of a CSV with their line numbers, cells stripped; every one of `columns` must be there in every row.

    Raises:
        GlunetError: no such file, no such column, or a row that ends early, as the last one of half a download does.
    """
    _expect_file(path, what)
    out = []
    with open(path, newline="", encoding="utf-8-sig") as file:
        for row in (reader := csv.DictReader(file, skipinitialspace=True)):
            cells = {key: value.strip() for key, value in row.items() if isinstance(key, str) and value is not None}
            missing = [column for column in columns if column not in cells]
            if missing:
                raise GlunetError(f"{path}, line {reader.line_num}: no {', '.join(missing)}; expected {what}.")
            out.append((reader.line_num, cells))
    return out


def separated(text: str) -> NDArray[np.float64]:
    """Numbers separated by semicolons, as point lists have them in one cell."""
    return np.array([float(number) for number in text.split(";") if number.strip()], np.float64)


def folders(path: Path) -> Iterable[Path]:
    """Folders in a folder, sorted by name, none that is hidden."""
    if not path.is_dir():
        return []
    return sorted(child for child in path.iterdir() if child.is_dir() and not child.name.startswith("."))


def _expect_file(path: Path, what: str) -> None:
    if not path.is_file():
        raise GlunetError(f"{path}: missing; expected {what}.")
    if path.stat().st_size == 0:
        raise GlunetError(f"{path}: empty; expected {what}. Is the download complete?")
