"""A scene to compute: two tilted, painted planes seen by pinhole cameras, with the true flow between views."""

import cv2
import numpy as np

# Planes as (normal, distance, half the width and height where it ends): the nearer one covers a part of the other.
PLANES = (((0.15, 0.05, 1.0), 8.0, (99.0, 99.0)), ((-0.25, 0.1, 1.0), 5.5, (1.2, 0.9)))


class Camera:
    """Looks along +z from `centre`, turned about y by `turn`; pixel centres at integers, the centre in the middle."""

    def __init__(self, centre: tuple[float, float, float], turn: float, size: tuple[int, int], focal: float) -> None:
        self.centre, self.size, self.focal = np.array(centre), size, focal
        c, s = np.cos(turn), np.sin(turn)
        self.rotation = np.array(((c, 0, -s), (0, 1, 0), (s, 0, c)))  # world -> camera
        self.middle = np.array(((size[1] - 1) / 2, (size[0] - 1) / 2))

    def surface(self) -> tuple[np.ndarray, np.ndarray]:
        """What each pixel sees: points, H x W x 3, and the number of their plane, H x W."""
        y, x = np.mgrid[: self.size[0], : self.size[1]].astype(float)
        rays = np.dstack((x - self.middle[0], y - self.middle[1], np.full(self.size, self.focal))) @ self.rotation
        best, points, which = np.full(self.size, np.inf), np.zeros((*self.size, 3)), np.zeros(self.size, int)
        for number, (normal, distance, half) in enumerate(PLANES):
            depth = (distance - np.array(normal) @ self.centre) / (rays @ np.array(normal))
            there = self.centre + depth[..., None] * rays
            seen = (np.abs(there[..., :2]) < half).all(axis=2) & (depth < best)
            best, which = np.where(seen, depth, best), np.where(seen, number, which)
            points = np.where(seen[..., None], there, points)
        return points, which

    def project(self, points: np.ndarray) -> np.ndarray:
        """... x 3 -> ... x 2, x and y in pixels."""
        local = (points - self.centre) @ self.rotation.T
        return local[..., :2] / local[..., 2:] * self.focal + self.middle


def flow(target: Camera, source: Camera) -> np.ndarray:
    """H x W x 2 float32, on the target's grid, into the source."""
    y, x = np.mgrid[: target.size[0], : target.size[1]]
    return (source.project(target.surface()[0]) - np.dstack((x, y))).astype(np.float32)


def picture(camera: Camera, paint: tuple[np.ndarray, np.ndarray], scale: float = 60.0) -> np.ndarray:
    """H x W x 3 uint8: the planes painted with two pictures, `scale` pixels of which are one unit of length."""
    points, which = camera.surface()
    shown = np.zeros((*camera.size, 3), np.uint8)
    for number, image in enumerate(paint):
        height, width = image.shape[:2]
        x, y = points[..., 0] * scale + width / 2, points[..., 1] * scale + height / 2
        seen = cv2.remap(image, x.astype(np.float32), y.astype(np.float32), cv2.INTER_LINEAR, None, cv2.BORDER_REFLECT)
        shown = np.where((which == number)[..., None], seen, shown)
    return shown


def cameras(count: int, size: tuple[int, int], focal: float, apart: float = 1.0) -> list[Camera]:
    """In a row, all turned to the scene's middle."""
    places = (np.arange(count) - (count - 1) / 2) * apart
    return [Camera((x, 0.1 * i, 0.0), -np.arctan2(x, 7.0), size, focal) for i, x in enumerate(places)]


def noise(seed: int, size: tuple[int, int] = (600, 800)) -> np.ndarray:
    """Smooth random paint."""
    pixels = cv2.GaussianBlur(np.random.default_rng(seed).uniform(0, 255, (*size, 3)), (0, 0), 3)
    return cv2.normalize(pixels, None, 0, 255, cv2.NORM_MINMAX).astype(np.uint8)


def misfit(found: np.ndarray, true: np.ndarray) -> float:
    """How far points are from others, over these points' spread, after the best similarity."""
    a, b = found - found.mean(0), true - true.mean(0)
    u, s, vt = np.linalg.svd(b.T @ a)
    sign = np.diag((1, 1, np.sign(np.linalg.det(u @ vt))))
    fitted = a @ (u @ sign @ vt).T * (np.trace(np.diag(s) @ sign) / (a**2).sum())
    return float(np.linalg.norm(fitted - b) / np.linalg.norm(b))
