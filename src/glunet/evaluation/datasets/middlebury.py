"""Middlebury flow, the sequences with public truth."""

from functools import partial
from pathlib import Path

from glunet.evaluation.datasets.base import Benchmark, Pair
from glunet.evaluation.datasets.read import below, folders, load_frames, need

FOLDERS = ("middlebury", "Middlebury", "middlebury-flow")
LAYOUT = "ROOT/other-data/NAME/frame{10,11}.png and ROOT/other-gt-flow/NAME/flow10.flo"


def pairs(root: Path) -> list[Pair]:
    root = below(root, *FOLDERS)
    images = need(root / "other-data", f"the frames, in the layout {LAYOUT}")
    out = []
    for folder in folders(need(root / "other-gt-flow", f"the truth, in the layout {LAYOUT}")):
        target, source = (images / folder.name / f"frame{number}.png" for number in (10, 11))
        load_pair = partial(load_frames, target, source, folder / "flow10.flo")
        out.append(Pair(folder.name, load_pair, unit=folder.name))
    return out


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
