"""MegaDepth and RobotCar: image pairs with sparse points in a CSV, as RANSAC-Flow published them."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, Pair, PointTruth, Published, Sample
from glunet.evaluation.datasets.read import below, pad, read_image, separated, table

COLUMNS = "source_image,target_image,XA,YA,XB,YB (A the source, numbers separated by ;) and optionally scene"


def shorten(image: NDArray[np.uint8]) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """Shorter side to 480, sides floored to multiples of 16, Lanczos; and the scales of x and y."""
    height, width = image.shape[:2]
    ratio = 480 / min(height, width)
    size = (max(16, int(width * ratio) // 16 * 16), max(16, int(height * ratio) // 16 * 16))
    resized = np.array(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))
    return resized, np.array([size[0] / width, size[1] / height])


def load(source_path: Path, target_path: Path, points: tuple[NDArray[np.float64], NDArray[np.float64]]) -> Sample:
    """Both shortened, then padded by zeros at the bottom and right to one size; points follow their images."""
    source, source_scale = shorten(read_image(source_path))
    target, target_scale = shorten(read_image(target_path))
    points_s, points_t = points[0] * source_scale, points[1] * target_scale
    height, width = target.shape[:2]
    inside = ((points_t > -0.5) & (points_t < (width - 0.5, height - 0.5))).all(axis=1)
    size = (max(source.shape[0], height), max(source.shape[1], width))
    return Sample(pad(source, size), pad(target, size), PointTruth(points_t[inside], points_s[inside], nearest=True))


def pairs(root: Path, names: tuple[str, ...], lists: tuple[str, ...]) -> list[Pair]:
    root = below(root, *names)
    path = next((found for name in lists for found in sorted(root.rglob(name))), None)
    if path is None:
        raise GlunetError(f"{root}: no list {' or '.join(lists)} below it; expected a CSV with {COLUMNS}.")
    out = []
    required = ("source_image", "target_image", "XA", "YA", "XB", "YB")
    for number, row in table(path, required, f"a CSV with {COLUMNS}"):
        try:
            a, b = (np.stack((separated(row["X" + k]), separated(row["Y" + k])), axis=1) for k in "AB")
        except ValueError as error:
            raise GlunetError(f"{path}, line {number}: expected {COLUMNS} ({error}).") from error
        source, target = row["source_image"], row["target_image"]
        load_pair = partial(_load_named, path, row.get("scene", ""), source, target, (a, b))
        name = f"{number - 1:05d} {Path(source).stem}-{Path(target).stem}"
        out.append(Pair(name, load_pair, unit=name))
    return out


def _load_named(
    path: Path, scene: str, source: str, target: str, points: tuple[NDArray[np.float64], NDArray[np.float64]]
) -> Sample:
    return load(_find(path, scene, source), _find(path, scene, target), points)


def _find(path: Path, scene: str, name: str) -> Path:
    """An image named in a list, beside the list or in the folders the archives have."""
    tops = (
        path.parent,
        path.parent / path.stem,
        path.parent / "test1600Pairs",
        path.parent / "Images",
        path.parent / "images",
    )
    tried = [top / middle / name for top in tops for middle in (scene, f"{scene}/images", "")]
    found = next((candidate for candidate in tried if candidate.is_file()), None)
    if found is None:
        raise GlunetError(f"{tried[0]}: missing (looked for it also in {', '.join(str(t) for t in tops[1:])}).")
    return found


def _benchmark(
    name: str,
    title: str,
    count: int,
    folders: tuple[str, ...],
    lists: tuple[str, ...],
    origin: str,
    licence: str,
    *published: Published,
) -> Benchmark:
    return Benchmark(
        name=name,
        title=title,
        task="geometric",
        pairs=partial(pairs, names=folders, lists=lists),
        metrics=("pck1", "pck3", "pck5", "aepe"),
        over="pixels",
        full=count,
        folders=folders,
        layout=f"ROOT/**/{lists[0]} with {COLUMNS}",
        origin=origin,
        licence=licence,
        protocol="Shorter side 480, sides floored to multiples of 16, padded at the bottom and right; flow read at the"
        " nearest target pixel; pooled over all points.",
        published=published,
    )


MEGADEPTH = _benchmark(
    "megadepth",
    "MegaDepth",
    1600,
    ("MegaDepth", "megadepth"),
    ("test1600Pairs.csv", "MegaDepth_test*.csv"),
    "https://github.com/XiSHEN0220/RANSAC-Flow (evaluation data: MegaDepth test pairs)",
    "CC BY 4.0 (MegaDepth, Li and Snavely, CVPR 2018); photographs of their Flickr authors",
    Published(
        "GLU-Net, dynamic",
        "DenseMatching repository",
        {("all", "pck1"): 0.2159, ("all", "pck3"): 0.5227, ("all", "pck5"): 0.6191},
    ),
)
ROBOTCAR = _benchmark(
    "robotcar",
    "RobotCar",
    6511,
    ("RobotCar", "robotcar"),
    ("test6511.csv", "RobotCar*.csv"),
    "https://github.com/XiSHEN0220/RANSAC-Flow (evaluation data: RobotCar)",
    "CC BY-NC-SA 4.0 (Oxford RobotCar, Maddern et al., IJRR 2017; correspondences by Larsson et al., CVPR 2019)",
)
