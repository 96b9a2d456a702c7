"""HPatches: planar scenes, image 1 seen from five other viewpoints, truth by homography (SPEC 10).

Three protocols: `hpatches` (source brought to the target's size), `hpatches-240` (both to 240 x 240) and
`hpatches-homography` (shorter side 480, a homography estimated from the flow).
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from glunet.evaluation.datasets.base import Benchmark, FlowTruth, HomographyTruth, Pair, Published, Sample
from glunet.evaluation.datasets.read import (
    below,
    folders,
    homography_flow,
    read_image,
    read_matrix,
    resize,
    scaled_homography,
)

VIEWPOINTS = ("I", "II", "III", "IV", "V")
FOLDERS = ("hpatches-sequences-release", "hpatches")
# Image sizes beyond what the homography protocol's authors could run: left out by all who report it.
TOO_LARGE = frozenset(
    ("i_contruction", "i_crownnight", "i_dc", "i_pencils", "i_whitebuilding", "v_artisans", "v_astronautis", "v_talent")
)


def load_dense(source_path: Path, target_path: Path, homography: Path, size: tuple[int, int] | None = None) -> Sample:
    """Source = image 1, target = image k, both at `size` (height, width), or at the target's own."""
    source, target = read_image(source_path), read_image(target_path)
    matrix = read_matrix(homography)
    size = size or target.shape[:2]
    matrix = scaled_homography(matrix, (source.shape[:2], size), (target.shape[:2], size))
    flow, valid = homography_flow(matrix, size, size)
    return Sample(resize(source, size), resize(target, size), FlowTruth(flow, valid))


def load_homography(folder: Path, k: int) -> Sample:
    """Both images with their shorter side at 480; the truth is the homography from image 1 to image k."""
    source, target = read_image(folder / "1.ppm"), read_image(folder / f"{k}.ppm")
    sizes = []
    for image in (source, target):
        scale = 480 / min(image.shape[:2])
        sizes.append((round(image.shape[0] * scale), round(image.shape[1] * scale)))
    matrix = scaled_homography(
        read_matrix(folder / f"H_1_{k}"), (source.shape[:2], sizes[0]), (target.shape[:2], sizes[1])
    )
    return Sample(resize(source, sizes[0]), resize(target, sizes[1]), HomographyTruth(matrix))


def _sequences(root: Path, prefixes: tuple[str, ...]) -> list[Path]:
    return [folder for folder in folders(below(root, *FOLDERS)) if folder.name.startswith(prefixes)]


def dense_pairs(root: Path, size: tuple[int, int] | None) -> list[Pair]:
    return [
        Pair(
            f"{folder.name}/1-{k}",
            partial(load_dense, folder / "1.ppm", folder / f"{k}.ppm", folder / f"H_1_{k}", size),
            VIEWPOINTS[k - 2],
            unit=folder.name,
        )
        for folder in _sequences(root, ("v_",))
        for k in range(2, 7)
    ]


def homography_pairs(root: Path) -> list[Pair]:
    groups = {"v": "viewpoint", "i": "illumination"}
    return [
        Pair(f"{folder.name}/1-{k}", partial(load_homography, folder, k), groups[folder.name[0]], unit=folder.name)
        for folder in _sequences(root, ("v_", "i_"))
        if folder.name not in TOO_LARGE
        for k in range(2, 7)
    ]


LAYOUT = "ROOT/v_*/{1..6}.ppm and H_1_{2..6}"
ORIGIN = "https://huggingface.co/datasets/vbalnt/hpatches (hpatches-sequences-release.tar.gz, 1.8 GB)"
LICENCE = "for research; the authors ask to be cited (Balntas et al., CVPR 2017)"
GLUNET = "GLU-Net repository (weights DPED-CityScape-ADE); Truong et al., CVPR 2020"

HPATCHES = Benchmark(
    name="hpatches",
    title="HPatches, original size",
    task="geometric",
    pairs=partial(dense_pairs, size=None),
    metrics=("aepe", "pck1", "pck3", "pck5"),
    unit="sequences",
    full=59,
    folders=FOLDERS,
    layout=LAYOUT,
    origin=ORIGIN,
    licence=LICENCE,
    protocol="Viewpoint sequences; source image 1, resized to the size of target image k = 2..6 (groups I..V);"
    " truth where it"
    " points into the source; mean of the pairs' means.",
    published=(
        Published("GLU-Net", GLUNET, {("all", "aepe"): 24.91}),
        Published("GLU-Net (paper)", "Truong et al., CVPR 2020, arXiv 1912.05524", {("all", "aepe"): 25.05}),
    ),
)

HPATCHES_240 = replace(
    HPATCHES,
    name="hpatches-240",
    title="HPatches, 240 x 240",
    pairs=partial(dense_pairs, size=(240, 240)),
    protocol="As hpatches, both images resized to 240 x 240.",
    summary=("aepe", "pck5"),
    published=(
        Published(
            "GLU-Net",
            GLUNET,
            {
                ("I", "aepe"): 0.59,
                ("II", "aepe"): 4.05,
                ("III", "aepe"): 7.64,
                ("IV", "aepe"): 9.82,
                ("V", "aepe"): 14.89,
                ("all", "aepe"): 7.40,
            },
        ),
    ),
)

HPATCHES_HOMOGRAPHY = Benchmark(
    name="hpatches-homography",
    title="HPatches, homography",
    task="geometric",
    pairs=homography_pairs,
    metrics=("auc3", "auc5", "auc10"),
    unit="sequences",
    full=108,
    folders=FOLDERS,
    layout="ROOT/{v,i}_*/{1..6}.ppm and H_1_{2..6}",
    origin=ORIGIN,
    licence=LICENCE,
    protocol="Viewpoint and illumination sequences but the eight largest; shorter side 480; a homography by"
    " MAGSAC from some 2000 matches on an even grid of the flow; mean error of the four corners of image 1, area under"
    " the recall curve.",
    published=(
        Published(
            "LoFTR",
            "Sun et al., CVPR 2021, arXiv 2104.00680, table 1 (RANSAC of OpenCV, 1000 matches)",
            {("all", "auc3"): 0.659, ("all", "auc5"): 0.756, ("all", "auc10"): 0.846},
        ),
        Published(
            "DKM",
            "Edstedt et al., CVPR 2023, arXiv 2202.00667 (RANSAC of OpenCV)",
            {("all", "auc3"): 0.713, ("all", "auc5"): 0.806, ("all", "auc10"): 0.885},
        ),
    ),
)
