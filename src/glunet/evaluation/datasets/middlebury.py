"""Middlebury flow, the sequences with public truth."""

from functools import partial
from pathlib import Path

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, FlowTruth, Pair, Sample
from glunet.evaluation.datasets.read import below, expect_size, folders, need, read_image, read_truth

FOLDERS = ("middlebury", "Middlebury", "middlebury-flow")
LAYOUT = "ROOT/other-data/NAME/frame{10,11}.png and ROOT/other-gt-flow/NAME/flow10.flo"


def load(images: Path, truth: Path) -> Sample:
    """Target = frame10, source = frame11; unknown flow is 1e9 or more."""
    target, source = read_image(images / "frame10.png"), read_image(images / "frame11.png")
    flow, valid = read_truth(truth)
    expect_size(truth, flow.shape, target.shape, "its frame10.png")
    return Sample(source, target, FlowTruth(flow, valid))


def pairs(root: Path) -> list[Pair]:
    root = below(root, *FOLDERS)
    images = need(root / "other-data", f"the frames, in the layout {LAYOUT}")
    names = [folder.name for folder in folders(need(root / "other-gt-flow", f"the truth, in the layout {LAYOUT}"))]
    if not names:
        raise GlunetError(f"{root / 'other-gt-flow'}: no sequence in it; expected {LAYOUT}.")
    return [
        Pair(name, partial(load, images / name, root / "other-gt-flow" / name / "flow10.flo"), unit=name)
        for name in names
    ]


MIDDLEBURY = Benchmark(
    name="middlebury",
    title="Middlebury flow",
    task="optical flow",
    pairs=pairs,
    metrics=("aepe", "pck1", "pck3", "pck5"),
    unit="sequences",
    full=8,
    folders=FOLDERS,
    layout=LAYOUT,
    origin="https://vision.middlebury.edu/flow/data/ (other-color-twoframes.zip, other-gt-flow.zip)",
    licence="free for research; the authors ask to be cited (Baker et al., IJCV 2011)",
    protocol="Target frame10, source frame11, as they are; truth below 1e9; mean of the sequences' means.",
)
