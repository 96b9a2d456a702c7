"""Images with texture of all scales, what a source shows through a homography, and flows that are known."""

import cv2
import numpy as np

SIZE = (120, 160)


def scene(seed: int = 0, size: tuple[int, int] = SIZE) -> np.ndarray:
    """H x W x 3 float32 in 0..255: texture of all scales."""
    random = np.random.default_rng(seed)
    image = sum(
        cv2.resize(random.uniform(-1, 1, (size[0] // s, size[1] // s, 3)).astype(np.float32), size[::-1]) * s**0.5
        for s in (2, 4, 8, 16)
    )
    return cv2.normalize(cv2.GaussianBlur(image, (0, 0), 1), None, 0, 255, cv2.NORM_MINMAX)


def seen_through(image: np.ndarray, matrix: np.ndarray, size: tuple[int, int]) -> np.ndarray:
    """The target of `size` that a source shows through a target -> source homography."""
    return cv2.warpPerspective(image, matrix, size[::-1], flags=cv2.INTER_CUBIC | cv2.WARP_INVERSE_MAP).clip(0, 255)


def similarity(degrees: float, zoom: float, target: tuple[int, int], source: tuple[int, int]) -> np.ndarray:
    """Target -> source about the middles."""
    angle = np.deg2rad(degrees)
    linear = zoom * np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
    middle, other = (((np.array(size[::-1])) - 1) / 2 for size in (target, source))
    matrix = np.eye(3)
    matrix[:2, :2], matrix[:2, 2] = linear, other - linear @ middle
    return matrix


def constant(x: float, y: float, size: tuple[int, int] = SIZE) -> np.ndarray:
    return np.full((*size, 2), (x, y), np.float32)
