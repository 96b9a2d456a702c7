"""Which images of a folder are worth matching: by what they look like, and by where they were taken."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image

from glunet.errors import GlunetError
from glunet.flow.geometry import resize_area
from glunet.images.pairs import Numbers
from glunet.images.reading import load_image
from glunet.inference.frames import normalise
from glunet.inference.speed import own_state

if TYPE_CHECKING:
    from glunet.matcher import Matcher

_SIDE = 320  # longer side at which images are described, pixels
_POWER = 2.0  # of the generalised mean that pools features (Radenovic et al., TPAMI 2019, equation 3)
_ROWS = 1024  # images that are compared with all others at once
_EARTH = 6_371_000.0  # mean radius, metres


@own_state()
@torch.inference_mode()
def describe(matcher: "Matcher", image: Path) -> np.ndarray:
    """What an image looks like as a whole: the encoder's deepest features, pooled.

    Returns:
        (512,) float32, of length one.

    Raises:
        GlunetError: an image that cannot be used.
    """
    pixels = load_image(image)[None].to(matcher.device)
    height, width = pixels.shape[-2:]
    scale = min(1.0, _SIDE / max(height, width))
    size = (max(32, round(height * scale)), max(32, round(width * scale)))
    features = matcher.network.encoder(normalise(resize_area(pixels, size)), levels=(4,))[4][0]
    pooled = features.clamp(min=1e-6).pow(_POWER).mean(dim=(1, 2)).pow(1 / _POWER).float().cpu().numpy()
    return pooled / np.linalg.norm(pooled)


def nearest(descriptors: np.ndarray, count: int) -> list[Numbers]:
    """Each image with the `count` that look most like it; a pair is named once.

    What all images of the collection have in common, their mean, is taken out first.

    Args:
        descriptors: (N, C), one row an image (`describe`).

    Raises:
        GlunetError: if `count` is not positive.
    """
    if count < 1:
        raise GlunetError(f"The {count} most similar images were asked for: ask for 1 or more.")
    centred = descriptors - descriptors.mean(axis=0)
    centred = centred / np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    count = min(count, len(centred) - 1)
    pairs: set[Numbers] = set()
    for first in range(0, len(centred), _ROWS):
        likeness = centred[first : first + _ROWS] @ centred.T
        likeness[np.arange(len(likeness)), np.arange(first, first + len(likeness))] = -np.inf
        best = np.argpartition(-likeness, count - 1, axis=1)[:, :count]
        pairs.update((min(first + i, j), max(first + i, j)) for i, row in enumerate(best.tolist()) for j in row)
    return sorted(pairs)


def described(
    matcher: "Matcher", images: Sequence[Path], watch: Callable[[int], None] = lambda done: None
) -> tuple[list[int], np.ndarray, list[str]]:
    """Descriptors of many images.

    Args:
        watch: called with how many are done.

    Returns:
        Numbers of the images that can be used, their descriptors (N, 512), and what is wrong with each other one.
    """
    numbers, rows, problems = [], [], []
    for number, image in enumerate(images):
        try:
            rows.append(describe(matcher, image))
            numbers.append(number)
        except GlunetError as error:
            problems.append(str(error))
        watch(number + 1)
    return numbers, np.array(rows, np.float32).reshape(len(rows), -1), problems


def position(image: Path) -> tuple[float, float] | None:
    """Latitude and longitude in degrees, north and east positive, as EXIF tells them; None where it does not."""
    try:
        with Image.open(image) as picture:
            place = picture.getexif().get_ifd(0x8825)  # the GPS block; 1 to 4 are its latitude and longitude
        angles = []
        for sign, value, negative in ((1, 2, "S"), (3, 4, "W")):
            degrees, minutes, seconds = (float(part) for part in place[value])
            angle = degrees + minutes / 60 + seconds / 3600
            angles.append(-angle if str(place[sign]).strip("\0 ").upper() == negative else angle)
    except Exception:  # a damaged file or block raises nearly anything; matching will tell of the file
        return None
    latitude, longitude = angles
    if not (abs(latitude) <= 90 and abs(longitude) <= 180):  # NaN is neither
        return None
    return latitude, longitude


def near(positions: Sequence[tuple[float, float] | None], metres: float) -> list[Numbers]:
    """All pairs of images taken at most so many metres apart; images without a position are in none.

    Raises:
        GlunetError: if `metres` is not positive.
    """
    if not metres > 0:
        raise GlunetError(f"Images at most {metres:g} m apart were asked for: give a positive distance.")
    numbers = np.array([n for n, at in enumerate(positions) if at is not None], int)
    if not len(numbers):
        return []
    latitude, longitude = np.radians([at for at in positions if at is not None]).T
    # Points on the unit sphere: the chord between two is 2 sin(angle / 2), exact for short ways and across 180 degrees.
    points = np.stack(
        (np.cos(latitude) * np.cos(longitude), np.cos(latitude) * np.sin(longitude), np.sin(latitude)), axis=1
    )
    chord = 2 * np.sin(min(metres / _EARTH, np.pi) / 2)
    pairs: list[Numbers] = []
    for i in range(len(points) - 1):
        close = np.flatnonzero(np.linalg.norm(points[i + 1 :] - points[i], axis=1) <= chord) + i + 1
        pairs += [(int(numbers[i]), int(numbers[j])) for j in close]
    return pairs
