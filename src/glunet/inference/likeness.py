"""How alike two images are where a flow says that they show the same: what search and polish decide by.

Everything here is on plain arrays: grey images H x W, flows H x W x 2 (target into source, pixels), masks H x W.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache

import cv2
import numpy as np
import torch

from glunet.flow import geometry

RADIUS = 3  # of the window of a local correlation, 7 x 7 pixels
FLAT = 4.0  # grey levels: what deviates less from its mean within the window has no texture to tell anything by
SPAN = 96  # grey levels between the 0.5 and the 99.5 percentile of both images under which they are stretched
_NOISE = 4.0  # variance added to both windows', so that noise on plain walls correlates with nothing


@dataclass(frozen=True)
class Views:
    """The two images of a pair in grey, 0..255 float32, and where they are valid (None: everywhere)."""

    source: np.ndarray
    target: np.ndarray
    source_valid: np.ndarray | None = None
    target_valid: np.ndarray | None = None

    @cached_property
    def reverse(self) -> "Views":
        """The same pair with the roles exchanged."""
        return Views(self.target, self.source, self.target_valid, self.source_valid)

    def in_view(self, flow: np.ndarray) -> np.ndarray:
        """Where a valid pixel of the target leads into the source, and there to a valid one: H x W, bool."""
        height, width = self.source.shape
        seen = cv2.inRange(grid(flow.shape) + flow, (0, 0), (width - 1, height - 1)).view(bool)
        if self.source_valid is not None:
            seen = seen & (warp(self.source_valid.astype(np.float32), flow) > 0.5)
        return seen if self.target_valid is None else seen & self.target_valid

    @cached_property
    def textured(self) -> np.ndarray:
        """Where the target has texture: H x W, bool."""
        return self._target_window[1] > FLAT**2

    def correlation(self, flow: np.ndarray) -> np.ndarray:
        """Zero-mean normalised cross-correlation of each target pixel's window with the warped source's: -1..1."""
        mean, variance = self._target_window
        seen = warp(self.source, flow)
        seen_mean = blur(seen)
        seen_variance = np.maximum(blur(seen * seen) - seen_mean * seen_mean, 0)
        together = blur(self.target * seen) - mean * seen_mean
        return together / np.sqrt((variance + _NOISE) * (seen_variance + _NOISE))

    @cached_property
    def _target_window(self) -> tuple[np.ndarray, np.ndarray]:
        mean = blur(self.target)
        return mean, np.maximum(blur(self.target * self.target) - mean * mean, 0)


def views(
    source: np.ndarray,
    target: np.ndarray,
    source_valid: np.ndarray | None = None,
    target_valid: np.ndarray | None = None,
) -> Views:
    """The views of two colour images, H x W x 3 float32 in 0..255.

    What uses little of the range, as 12 bits in a 16-bit file do, is stretched: both images in the same way.
    """
    grey = [np.ascontiguousarray(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)) for image in (source, target)]
    low, high = np.percentile(np.concatenate([image[::4, ::4].ravel() for image in grey]), (0.5, 99.5))
    if 0 < high - low < SPAN:
        grey = [np.clip((image - low) * (255 / (high - low)), 0, 255).astype(np.float32) for image in grey]
    return Views(grey[0], grey[1], source_valid, target_valid)


@contextmanager
def threads() -> Iterator[None]:
    """While it lasts, OpenCV has as many threads as PyTorch: where the one is limited, so is the other."""
    before = cv2.getNumThreads()
    cv2.setNumThreads(torch.get_num_threads())
    try:
        yield
    finally:
        cv2.setNumThreads(before)


def warp(image: np.ndarray, flow: np.ndarray) -> np.ndarray:
    """An image (H x W, or H x W x C of up to 4) seen from the target, bilinearly; beyond its border the border's value.

    OpenCV 4 rounds positions to 1/32 px, which is enough to compare by; and PyTorch's threads and OpenCV's, asked in
    turn, wait for each other.
    """
    return cv2.remap(image, grid(flow.shape) + flow, None, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)


def blur(values: np.ndarray, radius: int = RADIUS) -> np.ndarray:
    """The mean over a square window, mirrored at the border."""
    return cv2.blur(values, (2 * radius + 1, 2 * radius + 1), borderType=cv2.BORDER_REFLECT)


def length(vectors: np.ndarray) -> np.ndarray:
    """Of H x W x 2 vectors: H x W."""
    return cv2.magnitude(*cv2.split(vectors))


def bytes_of(image: np.ndarray) -> np.ndarray:
    """Grey levels as the uint8 that OpenCV's keypoints and refinement take."""
    return np.clip(np.rint(image), 0, 255).astype(np.uint8)


def grid(size: tuple[int, ...]) -> np.ndarray:
    """x and y of each pixel, H x W x 2 float32, not to be written to."""
    return _grid(size[0], size[1])


@lru_cache(maxsize=4)
def _grid(height: int, width: int) -> np.ndarray:
    at = np.ascontiguousarray(geometry.pixel_grid(height, width, "cpu").numpy().transpose(1, 2, 0))
    at.setflags(write=False)
    return at
