"""Folders of images: which files are images, in which order, and brought down to a size."""

import re
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

IMAGES = {".png", ".jpg", ".jpeg", ".webp", ".tif", ".tiff", ".bmp", ".ppm", ".pgm"}


def natural(path: Path) -> list[Any]:
    """A key by which frame-9 comes before frame-10."""
    return [int(part) if part.isdigit() else part.lower() for part in re.split(r"([0-9]+)", path.name)]


def smaller(pixels: np.ndarray, size: int | None) -> np.ndarray:
    """The picture with a longer side of `size` pixels; as it is where it is no longer than that."""
    height, width = pixels.shape[:2]
    if size is None or max(height, width) <= size:
        return pixels
    shape = (max(1, round(width * size / max(height, width))), max(1, round(height * size / max(height, width))))
    return np.array(Image.fromarray(pixels).resize(shape, Image.Resampling.LANCZOS))
