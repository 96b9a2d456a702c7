"""Single points: well spread samples of a match, and points in CSV files."""

import csv
import os
import re
from pathlib import Path
from typing import NamedTuple

import numpy as np

from glunet.errors import GlunetError
from glunet.flow.files import writing

HEADER = ("x_target", "y_target", "x_source", "y_source", "confidence")


class Correspondences(NamedTuple):
    """Points that belong together.

    Attributes:
        target: (N, 2) float32, x and y in target pixels.
        source: (N, 2) float32, where they are in the source.
        confidence: (N,) float32, 0..1.
    """

    target: np.ndarray
    source: np.ndarray
    confidence: np.ndarray


def check_points(points: np.ndarray, size: tuple[int, int], image: str) -> np.ndarray:
    """Points as (N, 2) float32.

    Raises:
        GlunetError: another shape or type, NaN, or outside the image of (height, width), which `image` names.
    """
    points = np.asarray(points)
    if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "iuf":
        raise GlunetError(
            f"Points are an array of numbers, N x 2 (x and y), but {points.dtype} of shape {points.shape} came."
        )
    points = points.astype(np.float32)
    height, width = size
    inside = (points >= -0.5) & (points <= np.array((width, height), np.float32) - 0.5)
    if not inside.all():
        x, y = points[int(np.argmin(inside.all(axis=1)))]
        raise GlunetError(
            f"Point ({x:g}, {y:g}) is outside the {image} of {width} x {height} pixels: points are (x, y), x from 0 "
            f"to {width - 1} and y from 0 to {height - 1}."
        )
    return points


def spread(confidence: np.ndarray, allowed: np.ndarray, count: int, seed: int = 0) -> np.ndarray:
    """Up to `count` pixels, one in each cell of a grid, the most confident one near its middle.

    The grid is as coarse as it can be for `count` of its cells to hold an allowed pixel; cells too many are left out
    at random, so that no part of the image is.

    Args:
        confidence: H x W.
        allowed: H x W, bool.
        seed: of the cells that are left out.

    Returns:
        (N, 2) int64, x and y; N = min(count, number of allowed pixels).
    """
    rows, columns = np.nonzero(allowed)
    if count >= len(rows):
        return np.stack((columns, rows), axis=-1)
    across = confidence.shape[1] + 1

    def cells(side: float) -> np.ndarray:
        return (rows // side).astype(np.int64) * across + (columns // side).astype(np.int64)

    fine, coarse = 1.0, float(max(confidence.shape))  # with cells of one pixel there are enough
    for _ in range(12):
        side = (fine * coarse) ** 0.5
        if np.count_nonzero(np.bincount(cells(side))) >= count:
            fine = side
        else:
            coarse = side
    cell = cells(fine)
    offset = np.hypot(rows % fine - (fine - 1) / 2, columns % fine - (fine - 1) / 2) / fine
    # Half a cell off the middle costs as much as an eighth in confidence: neighbours should not meet at a border.
    order = np.lexsort((0.25 * offset - confidence[rows, columns], cell))
    first = order[np.unique(cell[order], return_index=True)[1]]
    if len(first) > count:
        first = np.sort(np.random.default_rng(seed).choice(first, count, replace=False))
    return np.stack((columns[first], rows[first]), axis=-1)


def read_points(path: str | os.PathLike[str]) -> np.ndarray:
    """Points from a CSV file: x and y in the first two columns, with or without a heading line; (N, 2) float32.

    Raises:
        GlunetError: no such file, or a line without two numbers.
    """
    path = Path(path)
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            lines = [(number, line) for number, line in enumerate(csv.reader(file), start=1) if any(line)]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = getattr(error, "strerror", None) or error
        raise GlunetError(f"The points file '{path}' cannot be read ({reason}): check the path.") from error
    points = []
    for position, (number, line) in enumerate(lines):
        try:
            x, y = (float(word) for word in line[:2])
        except ValueError as error:
            if position == 0 and not any(map(_is_number, line[:2])):
                continue  # a heading
            raise GlunetError(
                f"Line {number} of '{path}' is '{','.join(line)}', but x and y in target pixels are expected."
            ) from error
        points.append((x, y))
    if not points:
        raise GlunetError(f"'{path}' holds no points: write one a line, x and y in target pixels, as 12.5,40.")
    return np.array(points, np.float32)


def _is_number(word: str) -> bool:
    """Whether a word begins as a number does: "10", "-3.5", and also the typo "2O", which is no heading."""
    return bool(re.match(r"\s*[-+]?\.?\d", word))


def write_matches(path: str | os.PathLike[str], matches: Correspondences) -> None:
    """Writes correspondences as CSV with a heading; the source's place is empty where there is no match."""
    with writing(path) as part, part.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(HEADER)
        for target, source, confidence in zip(*matches, strict=True):
            where = [f"{value:.3f}" if np.isfinite(value) else "" for value in source]
            writer.writerow([*(f"{value:g}" for value in target), *where, f"{confidence:.4f}"])
