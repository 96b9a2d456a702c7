"""FlyingChairs: rendered chairs over photographs; the official validation split, or whatever pairs are there."""

from functools import partial
from pathlib import Path

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, FlowTruth, Pair, Sample
from glunet.evaluation.datasets.read import below, expect_size, lines, read_image, read_truth

FOLDERS = ("FlyingChairs_release", "FlyingChairs", "FlyingChairs_examples")
LAYOUT = (
    "ROOT/data/NNNNN_{img1.ppm,img2.ppm,flow.flo} (and ROOT/FlyingChairs_train_val.txt), or"
    " NNNNNNN-{img0.ppm,img1.ppm,gt.flo}"
)


def load(target_path: Path, source_path: Path, truth: Path) -> Sample:
    target, source = read_image(target_path), read_image(source_path)
    flow, valid = read_truth(truth)
    expect_size(truth, flow.shape, target.shape, target_path.name)
    return Sample(source, target, FlowTruth(flow, valid))


def pairs(root: Path) -> list[Pair]:
    root = below(root, *FOLDERS)
    data = below(root, "data")
    release, examples = sorted(data.glob("*_flow.flo")), sorted(data.glob("*-gt.flo"))
    split = next((path for path in (root, data) if (path / "FlyingChairs_train_val.txt").is_file()), None)
    if release and split is not None:
        labels = lines(split / "FlyingChairs_train_val.txt", "1 (training) or 2 (validation), a line a pair")
        # The file numbers all pairs of the release, so that it also serves a part of it.
        numbers = [int(path.name.split("_")[0]) for path in release]
        if max(numbers) > len(labels):
            raise GlunetError(f"{split}: the split has {len(labels)} lines, but there is a pair {max(numbers):05d}.")
        release = [path for path, number in zip(release, numbers, strict=True) if labels[number - 1] == "2"]
    out = []
    for truth in release:
        stem = truth.name.removesuffix("_flow.flo")
        load_pair = partial(load, data / f"{stem}_img1.ppm", data / f"{stem}_img2.ppm", truth)
        out.append(Pair(stem, load_pair, unit=stem))
    for truth in examples:
        stem = truth.name.removesuffix("-gt.flo")
        load_pair = partial(load, data / f"{stem}-img0.ppm", data / f"{stem}-img1.ppm", truth)
        out.append(Pair(stem, load_pair, unit=stem))
    return out


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
