"""Tiny copies of the evaluation sets' official layouts, with truth that anybody can check by eye.

In each pair of images a few coloured squares are painted: the same colour marks the same thing in both. Where the
squares are was worked out by hand for each set's motion; the files of truth are written here with other means than the
package reads them with. A loader is right when the truth it returns carries the squares of its target to those of its
source.
"""

import json
import struct
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import scipy.io
from PIL import Image

RED, GREEN, BLUE = (250, 0, 0), (0, 250, 0), (0, 0, 250)
COLOURS = (RED, GREEN, BLUE)
Point = tuple[float, float]


@dataclass(frozen=True)
class Expected:
    """One pair as a loader must return it: squares as (x, y) in target and source, in the sample's pixels."""

    name: str
    group: str
    target: list[Point]
    source: list[Point]
    tolerance: float = 0.02


@dataclass(frozen=True)
class Copy:
    """A copy on disk: its root, how many pairs it holds, and what some of them must be."""

    root: Path
    pairs: int
    expected: list[Expected]
    part: str | None
    unused: tuple[str, ...] = ()  # parts of the names of files that the set has and the protocol does not use


def image(path: Path, size: tuple[int, int], squares: list[Point]) -> None:
    """A grey picture of (width, height) with one square around each point, red, green, blue."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    pixels = np.full((height, width, 3), 90, np.uint8)
    for (x, y), colour in zip(squares, COLOURS, strict=False):
        pixels[round(y) - 3 : round(y) + 4, round(x) - 3 : round(x) + 4] = colour
    if path.suffix == ".jpg":
        Image.fromarray(pixels).save(path, quality=95, subsampling=0)
    else:
        Image.fromarray(pixels).save(path)


def flo(path: Path, size: tuple[int, int], u: float, v: float, unknown: list[tuple[int, int]] = []) -> None:  # noqa: B006
    """A .flo of one motion everywhere, 1e10 at the pixels (x, y) of `unknown`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    width, height = size
    with open(path, "wb") as file:
        file.write(struct.pack("<fii", 202021.25, width, height))
        pixels = [(1e10, 1e10) if (x, y) in unknown else (u, v) for y in range(height) for x in range(width)]
        file.write(struct.pack(f"<{2 * len(pixels)}f", *(value for pixel in pixels for value in pixel)))


def kitti_png(path: Path, size: tuple[int, int], u: float, v: float, known: slice) -> None:
    """KITTI's 16-bit PNG through OpenCV, which keeps its channels in the order blue (valid), green (y), red (x)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0], 3), np.uint16)
    pixels[:, known] = (1, round(64 * v + 2**15), round(64 * u + 2**15))
    cv2.imwrite(str(path), pixels)


def mask(path: Path, size: tuple[int, int], x: slice, y: slice, palette: bool = False) -> None:
    """White in a rectangle, black elsewhere, grey or with a palette."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.zeros((size[1], size[0]), np.uint8)
    pixels[y, x] = 1 if palette else 255
    picture = Image.fromarray(pixels)
    if palette:
        picture.putpalette([0, 0, 0, 255, 255, 255])
    picture.save(path)


def text(path: Path, content: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content)


# The homography of the planar sets: x' = 2x + 10, y' = 2y - 6 up to image 5, x' = x / (1 + x/200) in image 6.
# Squares of image 1 (100 x 80) and, by hand, of the others (160 x 120).
PLANAR_SOURCE = [(20.0, 30.0), (50.0, 20.0), (60.0, 50.0)]
PLANAR_TARGET = [(50.0, 54.0), (110.0, 34.0), (130.0, 94.0)]
SCALING = "2 0 10\n0 2 -6\n0 0 1\n"
# With denominators 1.1, 1.25 and 1.3.
PERSPECTIVE_TARGET = [(20 / 1.1, 30 / 1.1), (50 / 1.25, 20 / 1.25), (60 / 1.3, 50 / 1.3)]
PERSPECTIVE = "2 0 0\n0 2 0\n0.01 0 2\n"


def planar(folder: Path, source: str, target: str, truth: str) -> None:
    image(folder / source, (100, 80), PLANAR_SOURCE)
    for k in range(2, 7):
        image(folder / target.format(k), (160, 120), PERSPECTIVE_TARGET if k == 6 else PLANAR_TARGET)
        text(folder / truth.format(k), PERSPECTIVE if k == 6 else SCALING)


def scaled(points: list[Point], x: float, y: float) -> list[Point]:
    return [(px * x, py * y) for px, py in points]


def hpatches(root: Path) -> Copy:
    planar(root / "v_one", "1.ppm", "{}.ppm", "H_1_{}")
    planar(root / "i_two", "1.ppm", "{}.ppm", "H_1_{}")
    # The source is brought to 160 x 120: 1.6 times as wide, 1.5 times as high.
    source = scaled(PLANAR_SOURCE, 1.6, 1.5)
    return Copy(
        root,
        5,
        [
            Expected("v_one/1-2", "I", PLANAR_TARGET, source),
            Expected("v_one/1-6", "V", PERSPECTIVE_TARGET, source, tolerance=1.2),
        ],
        "1 of 59 sequences",
        ("i_two",),
    )


def hpatches_240(root: Path) -> Copy:
    copy = hpatches(root)
    target, source = scaled(PLANAR_TARGET, 1.5, 2.0), scaled(PLANAR_SOURCE, 2.4, 3.0)
    return Copy(root, copy.pairs, [Expected("v_one/1-5", "IV", target, source)], copy.part, copy.unused)


def oxford_affine(root: Path) -> Copy:
    planar(root / "graf", "img1.ppm", "img{}.ppm", "H1to{}p")
    source = scaled(PLANAR_SOURCE, 1.6, 1.5)
    return Copy(root, 5, [Expected("graf/1-3", "graf", PLANAR_TARGET, source)], "1 of 8 scenes")


# One motion for the flow sets: what is at (x, y) in the target is at (x - 6.5, y + 3.25) in the source.
U, V = -6.5, 3.25
FLOW_SIZE = (64, 48)
FLOW_TARGET = [(20.0, 12.0), (40.0, 30.0), (50.0, 20.0)]
FLOW_SOURCE = [(13.5, 15.25), (33.5, 33.25), (43.5, 23.25)]


def two_frames(target: Path, source: Path) -> None:
    image(target, FLOW_SIZE, FLOW_TARGET)
    image(source, FLOW_SIZE, FLOW_SOURCE)


def moved(name: str, group: str = "") -> Expected:
    return Expected(name, group, FLOW_TARGET, FLOW_SOURCE)


def _kitti(root: Path, images: str, full: int) -> Copy:
    top = root / "training"
    two_frames(top / images / "000003_10.png", top / images / "000003_11.png")
    kitti_png(top / "flow_occ" / "000003_10.png", FLOW_SIZE, U, V, slice(10, 64))
    kitti_png(top / "flow_noc" / "000003_10.png", FLOW_SIZE, U, V, slice(10, 60))
    expected = [moved("000003_10/occ", "occ"), moved("000003_10/noc", "noc")]
    return Copy(root, 2, expected, f"1 of {full} pairs")


def kitti2012(root: Path) -> Copy:
    return _kitti(root, "colored_0", 194)


def kitti2015(root: Path) -> Copy:
    return _kitti(root, "image_2", 200)


def sintel(root: Path) -> Copy:
    top = root / "training"
    for group in ("clean", "final"):
        two_frames(top / group / "alley_1" / "frame_0007.png", top / group / "alley_1" / "frame_0008.png")
    flo(top / "flow" / "alley_1" / "frame_0007.flo", FLOW_SIZE, U, V)
    mask(top / "invalid" / "alley_1" / "frame_0007.png", FLOW_SIZE, slice(0, 10), slice(0, 10))
    names = [f"{group}/alley_1/frame_0007" for group in ("clean", "final")]
    return Copy(root, 2, [moved(names[0], "clean"), moved(names[1], "final")], "1 of 23 sequences")


def middlebury(root: Path) -> Copy:
    two_frames(root / "other-data/Venus/frame10.png", root / "other-data/Venus/frame11.png")
    flo(root / "other-gt-flow/Venus/flow10.flo", FLOW_SIZE, U, V, unknown=[(0, 0), (5, 7)])
    return Copy(root, 1, [moved("Venus")], "1 of 8 sequences")


def flyingchairs(root: Path) -> Copy:
    """Three pairs, of which the official split makes the second a validation pair."""
    for number in ("00001", "00002", "00003"):
        two_frames(root / f"data/{number}_img1.ppm", root / f"data/{number}_img2.ppm")
        flo(root / f"data/{number}_flow.flo", FLOW_SIZE, U, V)
    text(root / "FlyingChairs_train_val.txt", "1\n2\n1\n1\n")
    return Copy(root, 1, [moved("00002")], "1 of 640 pairs", ("00001", "00003", "train_val"))


def tss(root: Path) -> Copy:
    """Image 1 is 64 x 48, image 2 60 x 56: (x, y) in image 1 is (x - 4, y + 5) in image 2."""
    folder = root / "JODS" / "car_01_02"
    one, two = [(20.0, 12.0), (40.0, 30.0)], [(16.0, 17.0), (36.0, 35.0)]
    image(folder / "image1.png", (64, 48), one)
    image(folder / "image2.png", (60, 56), two)
    flo(folder / "flow1.flo", (64, 48), -4, 5, unknown=[(12, 12)])
    flo(folder / "flow2.flo", (60, 56), 4, -5)
    mask(folder / "mask1.png", (64, 48), slice(10, 50), slice(5, 40), palette=True)
    mask(folder / "mask2.png", (60, 56), slice(6, 46), slice(10, 45))
    expected = [Expected("JODS/car_01_02/1", "JODS", one, two), Expected("JODS/car_01_02/2", "JODS", two, one)]
    return Copy(root, 2, expected, "1 of 400 pairs")


KEYS = {"a": [(12.0, 20.0), (40.0, 28.0), (30.0, 10.0)], "b": [(20.0, 8.0), (44.0, 30.0), (34.0, 22.0)]}


def pf_willow(root: Path) -> Copy:
    """Key points in MATLAB count from 1."""
    for name, points in KEYS.items():
        image(root / "car(S)" / f"{name}.png", (56, 40), points)
        one_based = np.array([[x + 1 for x, _ in points], [y + 1 for _, y in points]])
        scipy.io.savemat(root / "car(S)" / f"{name}.mat", {"pts_coord": one_based})
    # A pair a-b has a as its source.
    expected = [
        Expected("car(S)/a-b", "car(S)", KEYS["b"], KEYS["a"]),
        Expected("car(S)/b-a", "car(S)", KEYS["a"], KEYS["b"]),
    ]
    return Copy(root, 2, expected, "2 of 900 ordered pairs")


def pf_pascal(root: Path) -> Copy:
    """One key point of b is not annotated."""
    data = root / "PF-dataset-PASCAL"
    for name, points in KEYS.items():
        image(data / "JPEGImages" / f"{name}.jpg", (56, 40), points)
        table = [[x + 1, y + 1] for x, y in points] + [[np.nan, np.nan] if name == "b" else [7.0, 7.0]]
        path = data / "Annotations" / "bicycle" / f"{name}.mat"
        path.parent.mkdir(parents=True, exist_ok=True)
        scipy.io.savemat(path, {"kps": np.array(table)})
    text(root / "test_pairs.csv", "source_image,target_image,class\nJPEGImages/a.jpg,JPEGImages/b.jpg,2\n")
    return Copy(root, 1, [Expected("bicycle/a-b", "bicycle", KEYS["b"], KEYS["a"])], "1 of 308 test pairs")


def spair(root: Path) -> Copy:
    """SPair goes from its source a to its target b; errors are measured in b, which is our source."""
    line = "000001-a-b:car"
    for name, points in KEYS.items():
        image(root / "JPEGImages" / "car" / f"{name}.jpg", (56, 40), points)
    entry = {
        "category": "car",
        "src_imname": "a.jpg",
        "trg_imname": "b.jpg",
        "src_kps": KEYS["a"],
        "trg_kps": KEYS["b"],
    }
    entry |= {"src_bndbox": [5, 5, 50, 35], "trg_bndbox": [15, 5, 50, 35]}
    text(root / "PairAnnotation" / "test" / f"{line}.json", json.dumps(entry))
    text(root / "Layout" / "large" / "test.txt", line + "\n")
    return Copy(root, 1, [Expected(line, "car", KEYS["a"], KEYS["b"])], "1 of 12234 test pairs")


def eth3d(root: Path) -> Copy:
    """Six frames of one camera; the squares move 2 px to the right a frame. One observation has no point."""
    folder = root / "multiview_training" / "terrains"
    lines = ["# a comment"]
    for frame in range(6):
        points = [(10.0 + 2 * frame, 20.0), (30.0 + 2 * frame, 10.0)]
        image(folder / "images" / "cam4" / f"{frame:03d}.png", (64, 48), points)
        lines.append(f"{frame} 1 0 0 0 0 0 0 1 cam4/{frame:03d}.png")
        # COLMAP has pixel centres at one half.
        observed = [f"{x + 0.5} {y + 0.5} {number}" for number, (x, y) in enumerate(points)]
        lines.append(" ".join([*observed, "3.0 3.0 -1"]))
    text(folder / "rig_calibration_undistorted" / "images.txt", "\n".join(lines) + "\n")
    expected = [
        Expected("terrains/cam4/000.png-cam4/003.png", "interval 3", [(16, 20), (36, 10)], [(10, 20), (30, 10)]),
        Expected("terrains/cam4/000.png-cam4/005.png", "interval 5", [(20, 20), (40, 10)], [(10, 20), (30, 10)]),
    ]
    return Copy(root, 2, expected, "1 of 10 sequences", ("001.png", "002.png", "004.png"))


def _point_list(root: Path, name: str, full: int, scene: bool) -> Copy:
    """The source, 96 x 60, becomes 768 x 480 (8 times); the target, 60 x 75, becomes 480 x 592 (600 floored to /16)."""
    top = root / "images" / "s1" if scene else root / "images"
    source, target = [(20.0, 30.0), (60.0, 12.0)], [(14.0, 50.0), (40.0, 25.0)]
    image(top / "a.png", (96, 60), source)
    image(top / "b.png", (60, 75), target)
    cells = [";".join(str(p[i]) for p in points) for points in (source, target) for i in (0, 1)]
    head, row = "source_image,target_image,XA,YA,XB,YB", ",".join(["a.png", "b.png", *cells])
    text(root / name, f"{head}{',scene' * scene}\n{row}{',s1' * scene}\n")
    expected = Expected("00001 a-b", "", scaled(target, 8, 592 / 75), scaled(source, 8, 8))
    return Copy(root, 1, [expected], f"1 of {full} pairs")


def megadepth(root: Path) -> Copy:
    return _point_list(root, "test1600Pairs.csv", 1600, scene=True)


def robotcar(root: Path) -> Copy:
    return _point_list(root, "test6511.csv", 6511, scene=False)


def pairs(root: Path) -> Copy:
    """All three kinds of truth; a source of another size with the homography and the points."""
    two_frames(root / "t.png", root / "s.png")
    flo(root / "f.flo", FLOW_SIZE, U, V)
    mask(root / "m.png", FLOW_SIZE, slice(5, 60), slice(5, 40))
    image(root / "one.png", (100, 80), PLANAR_SOURCE)
    image(root / "two.png", (160, 120), PLANAR_TARGET)
    text(root / "h.txt", SCALING)
    rows = [f"{tx} {ty} {sx} {sy}" for (tx, ty), (sx, sy) in zip(PLANAR_TARGET, PLANAR_SOURCE, strict=True)]
    text(root / "p.txt", "\n".join(rows) + "\n")
    text(
        root / "pairs.csv",
        "name, source, target, flow, homography, points, mask, group\n"
        "moved, s.png, t.png, f.flo, , , m.png, flat\n"
        "planar, one.png, two.png, , h.txt, , , flat\n"
        "points, one.png, two.png, , , p.txt, , far\n",
    )
    planar_pair = Expected("planar", "flat", PLANAR_TARGET, PLANAR_SOURCE)
    return Copy(
        root, 3, [moved("moved", "flat"), planar_pair, Expected("points", "far", PLANAR_TARGET, PLANAR_SOURCE)], None
    )


COPIES = {
    "hpatches": hpatches,
    "hpatches-240": hpatches_240,
    "oxford-affine": oxford_affine,
    "kitti2012": kitti2012,
    "kitti2015": kitti2015,
    "sintel": sintel,
    "middlebury": middlebury,
    "flyingchairs": flyingchairs,
    "tss": tss,
    "pf-willow": pf_willow,
    "pf-pascal": pf_pascal,
    "spair": spair,
    "eth3d": eth3d,
    "megadepth": megadepth,
    "robotcar": robotcar,
    "pairs": pairs,
}
