"""The pairs of docs/gallery.md, from pictures that may be shown, with the truth where it is known."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from examples.demo import astronaut, homography, motorcycle

from glunet.flow.geometry import sample

Array = np.ndarray


@dataclass(frozen=True)
class Pair:
    """Two pictures, H x W x 3 uint8, and what is known of them.

    Attributes:
        truth: H x W x 2, flow target to source, NaN where it is not known; None where nothing is.
        points: N x 2 target and N x 2 source pixels that were marked by hand.
    """

    source: Array
    target: Array
    truth: Array | None = None
    points: tuple[Array, Array] | None = None


@dataclass(frozen=True)
class Entry:
    """A pair on the page.

    Attributes:
        name: of files.
        words: what the pair is and what is hard about it.
        credit: who made the pictures, and under what terms they are shown.
        options: of matcher.match; the page shows them as options of the command.
        veil: whether its picture stripes what has no match.
    """

    name: str
    title: str
    words: str
    credit: str
    make: Callable[[], Pair]
    options: tuple[tuple[str, object], ...] = ()
    veil: bool = True


def view(photo: Array, matrix: Array, size: tuple[int, int], gamma: float = 1.0, gain: float = 1.0) -> Array:
    """A picture of (height, width) whose pixel (x, y) is the photograph's at matrix @ (x, y, 1)."""
    points = _apply(matrix, size)
    planes = torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float()
    seen = sample(planes, torch.from_numpy(points.transpose(2, 0, 1)[None]).float())[0].permute(1, 2, 0).numpy()
    return np.clip(255 * (seen / 255) ** gamma * gain, 0, 255).round().astype(np.uint8)


def true_flow(target: Array, source: Array, target_size: tuple[int, int], source_size: tuple[int, int]) -> Array:
    """The flow between two views of one photograph, given by their matrices; NaN where it leaves the source."""
    there = _apply(np.linalg.inv(source) @ target, target_size)
    inside = ((there >= 0) & (there <= np.array(source_size[::-1]) - 1)).all(-1, keepdims=True)
    return np.where(inside, there - _apply(np.eye(3), target_size), np.nan)


def corners(size: tuple[int, int], shares: tuple[tuple[float, float], ...], whole: tuple[int, int]) -> Array:
    """The matrix of a view of `size` whose corners (from the upper left, clockwise) are at shares of the photograph."""
    here = np.array(((0, 0), (1, 0), (1, 1), (0, 1)), float) * (size[1] - 1, size[0] - 1)
    return homography(here, np.array(shares) * (whole[1] - 1, whole[0] - 1))


def _apply(matrix: Array, size: tuple[int, int]) -> Array:
    x, y = np.meshgrid(np.arange(size[1], dtype=float), np.arange(size[0], dtype=float))
    there = np.stack((x, y, np.ones_like(x)), -1) @ matrix.T
    return there[..., :2] / there[..., 2:]


def photograph(name: str) -> Array:
    """Of scikit-image."""
    import skimage.data

    return getattr(skimage.data, name)()


def stereo() -> Pair:
    source, target, truth = motorcycle()
    return Pair(source, target, truth)


def table() -> Pair:
    photo = photograph("coffee")
    size = photo.shape[:2]
    matrix = corners(size, ((0.10, 0.04), (0.93, 0.12), (0.88, 0.97), (0.05, 0.86)), size)
    return Pair(photo, view(photo, matrix, size, 0.8, 0.95), true_flow(matrix, np.eye(3), size, size))


def steep() -> Pair:
    source, target, truth = astronaut()
    return Pair(source, target, truth)


def lying() -> Pair:
    photo = photograph("rocket")
    whole = photo.shape[:2]
    size = (whole[1], whole[0])
    # The photograph's corners, from the upper right on: what is up in it is to the right here.
    matrix = corners(size, ((0.04, 0.97), (0.02, 0.05), (0.97, 0.02), (0.95, 0.96)), whole)
    return Pair(photo, view(photo, matrix, size), true_flow(matrix, np.eye(3), size, whole))


def near() -> Pair:
    """A quarter of the photograph's width, brought to the whole one."""
    photo = photograph("coffee")
    size = photo.shape[:2]
    matrix = corners(size, ((0.40, 0.35), (0.65, 0.35), (0.65, 0.60), (0.40, 0.60)), size)
    return Pair(photo, view(photo, matrix, size), true_flow(matrix, np.eye(3), size, size))


def mirrored() -> Pair:
    photo = photograph("chelsea")
    size = photo.shape[:2]
    matrix = corners(size, ((1, 0), (0, 0), (0, 1), (1, 1)), size)
    return Pair(photo, view(photo, matrix, size), true_flow(matrix, np.eye(3), size, size))


FRAMES, FRAME = 25, (224, 304)


def moving(number: int) -> Array:
    """The matrix of a frame: the camera goes right and down, turns by 12 degrees, and comes nearer."""
    part = number / (FRAMES - 1)
    angle, zoom = np.deg2rad(12 * part), 1 - 0.22 * part
    turn = zoom * np.array(((np.cos(angle), -np.sin(angle)), (np.sin(angle), np.cos(angle))))
    middle = np.array((168 + 64 * part, 120 + 34 * part))
    shift = middle - turn @ ((np.array(FRAME[::-1]) - 1) / 2)
    return np.vstack((np.column_stack((turn, shift)), (0, 0, 1)))


def frame(number: int) -> Array:
    """H x W x 3 uint8."""
    return view(photograph("chelsea"), moving(number), FRAME)


def video() -> Pair:
    """The last frame seen from the first."""
    return frame_pair(FRAMES - 1)


def frame_pair(number: int) -> Pair:
    """Frame `number` is the source, the first the target."""
    return Pair(frame(number), frame(0), true_flow(moving(0), moving(number), FRAME, FRAME))


# Eyes, tip of the nose, corners of the mouth, chin, ear lobes: in the whole pictures, by hand, to about 2 px.
_COLLINS = ((203, 101), (247, 103), (224, 127), (204, 140), (244, 142), (222, 178), (176, 130), (273, 135))
_HOPPER = ((222, 189), (305, 187), (267, 245), (235, 279), (305, 278), (265, 332), (185, 268), (350, 267))


def portraits() -> Pair:
    import matplotlib.cbook
    from PIL import Image

    with matplotlib.cbook.get_sample_data("grace_hopper.jpg") as file, Image.open(file) as picture:
        hopper = np.array(picture.convert("RGB"))
    (left, top), (there_left, there_top) = (104, 6), (84, 12)
    target = photograph("astronaut")[top : top + 240, left : left + 240]
    source = hopper[there_top : there_top + 390, there_left : there_left + 360]
    return Pair(source, target, None, (np.array(_COLLINS) - (left, top), np.array(_HOPPER) - (there_left, there_top)))


def strangers() -> Pair:
    return Pair(photograph("coffee"), photograph("astronaut"))


_COFFEE = "Coffee by Rachel Michetti, CC0, as scikit-image carries it"
_COLLINS_BY = "Eileen Collins by NASA, public domain, as scikit-image carries it"
_HOPPER_BY = "Grace Hopper by James S. Davis, U.S. Navy, public domain, as Matplotlib carries it"
_CHELSEA = "Chelsea by Stefan van der Walt, CC0, as scikit-image carries it"
_FALCON = "Falcon 9 by SpaceX, public domain, as scikit-image carries it"

ENTRIES = (
    Entry(
        "stereo",
        "A stereo pair",
        "Left and right view of a motorcycle: up to 60 px of parallax, thin parts before a far wall, and things that\n"
        "only one of the two eyes sees. The truth is measured, by structured light.",
        "Motorcycle of Middlebury Stereo 2014 (Scharstein et al., GCPR 2014), as scikit-image carries it",
        stereo,
    ),
    Entry(
        "viewpoint",
        "Another viewpoint",
        "A photograph and a view of it from a little elsewhere, brighter. The truth is a homography, here and below.",
        _COFFEE,
        table,
    ),
    Entry(
        "steep",
        "A steep viewpoint",
        "Turned by some 20 degrees, from the side and nearer, with burnt-out lights.",
        _COLLINS_BY,
        steep,
    ),
    Entry(
        "steep-alone",
        "The steep viewpoint by the network alone",
        "The pair above without search and polish: one pass of the network.",
        _COLLINS_BY,
        steep,
        (("search", "none"), ("polish", False)),
    ),
    Entry(
        "video",
        "A video",
        "A camera that pans, turns and comes nearer; each of 24 frames is matched with the first and laid over it.\n"
        "Numbers are the mean over all; the command is for the last.",
        _CHELSEA,
        video,
    ),
    Entry(
        "portraits",
        "Two objects of one kind",
        "Two faces. Nothing looks the same; what corresponds is what has the same name. The truth are eight points\n"
        "marked by hand: rings where they are, dots where the network sees them. Nothing is striped: confidence asks\n"
        "for 1 % of accuracy, which no two faces have.",
        f"{_COLLINS_BY}; {_HOPPER_BY}",
        portraits,
        veil=False,
    ),
    Entry(
        "lying",
        "A quarter turn",
        "The target lies on its side.",
        _FALCON,
        lying,
    ),
    Entry(
        "near",
        "Four times nearer",
        "The target shows a sixteenth of the source.",
        _COFFEE,
        near,
    ),
    Entry(
        "mirrored",
        "A mirrored picture",
        "Left and right are exchanged: no camera does that, and no turn undoes it.",
        _CHELSEA,
        mirrored,
    ),
    Entry(
        "strangers",
        "Two pictures that do not match",
        "A cup and a person. The network answers all the same; confidence and verdict are there to say so.",
        f"{_COFFEE}; {_COLLINS_BY}",
        strangers,
    ),
)
