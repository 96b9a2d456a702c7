"""Oxford affine regions (Mikolajczyk and Schmid): eight scenes, image 1 against 2..6, truth by homography."""

from functools import partial
from pathlib import Path

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, Pair
from glunet.evaluation.datasets.hpatches import load_dense
from glunet.evaluation.datasets.read import below, folders

FOLDERS = ("oxford-affine", "oxford_affine", "affine")
LAYOUT = "ROOT/{bark,bikes,boat,graf,leuven,trees,ubc,wall}/img{1..6}.ppm or .pgm and H1to{2..6}p"


def pairs(root: Path) -> list[Pair]:
    out = []
    for folder in folders(below(root, *FOLDERS)):
        if not any(folder.glob("H1to?p")):
            continue
        suffix = next((s for s in (".ppm", ".pgm", ".png") if (folder / f"img1{s}").is_file()), None)
        if suffix is None:
            raise GlunetError(f"{folder}: homographies, but no img1.ppm or img1.pgm; expected {LAYOUT}.")
        for k in range(2, 7):
            load_pair = partial(load_dense, folder / f"img1{suffix}", folder / f"img{k}{suffix}", folder / f"H1to{k}p")
            out.append(Pair(f"{folder.name}/1-{k}", load_pair, folder.name, unit=folder.name))
    return out


OXFORD_AFFINE = Benchmark(
    name="oxford-affine",
    title="Oxford affine",
    task="geometric",
    pairs=pairs,
    metrics=("aepe", "pck1", "pck3", "pck5"),
    unit="scenes",
    full=8,
    folders=FOLDERS,
    layout=LAYOUT,
    origin="https://www.robots.ox.ac.uk/~vgg/research/affine/",
    licence="for research; the authors ask to be cited (Mikolajczyk et al., IJCV 2005)",
    protocol="Source image 1, resized to the size of target image k = 2..6; truth where it points into the source;"
    " mean of"
    " the pairs' means, per scene (each shows one kind of change).",
)
