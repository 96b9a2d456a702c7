"""A small match with everything a page can show: a flow that leaves the source, and every confidence."""

import numpy as np

from glunet.inference.confidence import Calibration
from glunet.match import Match, Provenance

SIZE, SOURCE_SIZE = (120, 160), (100, 140)  # height, width


def calibration() -> Calibration:
    return Calibration((0.1, 1.0), (0.0, 0.5, 2.0), ((1.0, 0.6, 0.02), (0.9, 0.5, 0.01)), 0.2, {})


def photograph(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    """Smooth colours, H x W x 3 uint8."""
    y, x = np.mgrid[: size[0], : size[1]]
    phases = np.random.default_rng(seed).uniform(0, 6, 3)
    waves = [np.sin(x / (9 + 4 * i) + phase) + np.cos(y / (13 - 3 * i) - phase) for i, phase in enumerate(phases)]
    return np.clip(128 + 60 * np.stack(waves, -1), 0, 255).astype(np.uint8)


def match(**changes: object) -> Match:
    matrix, shift = np.array(((0.85, 0.06), (0.05, 0.8))), np.array((14.3, -6.1))
    here, there = (np.mgrid[:height, :width][::-1].transpose(1, 2, 0) for height, width in (SIZE, SOURCE_SIZE))
    flow = here @ matrix.T + shift - here
    backward = (there - shift) @ np.linalg.inv(matrix).T - there
    backward[..., 0] += there[..., 0] / 100  # misses by more and more to the right, so that confidence falls
    settings = {
        "flow": flow.astype(np.float32),
        "source_size": SOURCE_SIZE,
        "provenance": Provenance("made up", "ab" * 32),
        "backward": backward.astype(np.float32),
        "calibration": calibration(),
        "pictures": (photograph(SOURCE_SIZE, 1), photograph(SIZE, 2)),
    }
    return Match(**(settings | changes))  # type: ignore[arg-type]
