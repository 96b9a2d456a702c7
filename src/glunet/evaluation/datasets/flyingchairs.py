"""FlyingChairs: rendered chairs over photographs; the official validation split, or whatever pairs are there."""

from functools import partial
from pathlib import Path

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, Pair
from glunet.evaluation.datasets.read import below, lines, load_frames

FOLDERS = ("FlyingChairs_release", "FlyingChairs", "FlyingChairs_examples")
LAYOUT = (
    "ROOT/data/NNNNN_{img1.ppm,img2.ppm,flow.flo} (and ROOT/FlyingChairs_train_val.txt), or"
    " NNNNNNN-{img0.ppm,img1.ppm,gt.flo}"
)


def pairs(root: Path) -> list[Pair]:
    root = below(root, *FOLDERS)
    data = below(root, "data")
    # By any of a pair's three files, so that a missing one is reported when it is to be read.
    release = _stems(data, "_img1.ppm", "_img2.ppm", "_flow.flo")
    examples = _stems(data, "-img0.ppm", "-img1.ppm", "-gt.flo")
    split = next((path for path in (root, data) if (path / "FlyingChairs_train_val.txt").is_file()), None)
    if release and split is not None:
        labels = lines(split / "FlyingChairs_train_val.txt", "1 (training) or 2 (validation), a line a pair")
        # The file numbers all pairs of the release, so that it also serves a part of it.
        if max(map(int, release)) > len(labels):
            raise GlunetError(f"{split}: the split has {len(labels)} lines, but there is a pair {release[-1]}.")
        release = [stem for stem in release if labels[int(stem) - 1] == "2"]
    out = []
    for stems, target, source, truth in (
        (release, "_img1.ppm", "_img2.ppm", "_flow.flo"),
        (examples, "-img0.ppm", "-img1.ppm", "-gt.flo"),
    ):
        for stem in stems:
            paths = (data / f"{stem}{ending}" for ending in (target, source, truth))
            out.append(Pair(stem, partial(load_frames, *paths), unit=stem))
    return out


def _stems(folder: Path, *endings: str) -> list[str]:
    """Numbers of pairs that have a file with any of the endings."""
    names = {path.name.removesuffix(end) for end in endings for path in folder.glob(f"*{end}")}
    return sorted(name for name in names if name.isdigit())


FLYINGCHAIRS = Benchmark(
    name="flyingchairs",
    title="FlyingChairs",
    task="optical flow",
    pairs=pairs,
    metrics=("aepe", "pck1", "pck3", "pck5"),
    over="pixels",
    unit="pairs",
    full=640,
    folders=FOLDERS,
    layout=LAYOUT,
    origin="https://lmb.informatik.uni-freiburg.de/resources/datasets/FlyingChairs.en.html",
    licence="for research only; the authors ask to be cited (Dosovitskiy et al., ICCV 2015)",
    protocol="Target the first image, source the second; pooled over all pixels of the validation split.",
)
