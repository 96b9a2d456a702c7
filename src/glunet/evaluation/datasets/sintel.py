"""MPI Sintel, training sequences, clean and final pass."""

from functools import partial
from pathlib import Path

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, FlowTruth, Pair, Published, Sample
from glunet.evaluation.datasets.read import below, expect_size, folders, read_image, read_truth

FOLDERS = ("MPI-Sintel-complete", "MPI-Sintel", "Sintel", "sintel")
LAYOUT = "ROOT/training/{clean,final}/SCENE/frame_NNNN.png, training/flow/SCENE/frame_NNNN.flo and training/invalid/"


def load(target_path: Path, source_path: Path, truth: Path, invalid: Path) -> Sample:
    """Target = frame t, source = frame t + 1; pixels marked in invalid/ do not count."""
    target, source = read_image(target_path), read_image(source_path)
    flow, valid = read_truth(truth)
    expect_size(truth, flow.shape, target.shape, "its frame")
    marked = read_image(invalid)[..., 0]
    expect_size(invalid, marked.shape, target.shape, "its frame")
    return Sample(source, target, FlowTruth(flow, valid & (marked < 128)))


def pairs(root: Path) -> list[Pair]:
    root = below(below(root, *FOLDERS), "training")
    out = []
    for group in ("clean", "final"):
        for scene in folders(root / group):
            # Every frame but the last has a flow; a missing one is then reported when it is to be read.
            flow, numbers = root / "flow" / scene.name, set()
            for path in (*sorted(scene.glob("frame_*.png"))[:-1], *flow.glob("frame_*.flo")):
                numbers.add(int(path.stem.removeprefix("frame_")))
            for number in sorted(numbers):
                stem = f"frame_{number:04d}"
                load_pair = partial(
                    load,
                    scene / f"{stem}.png",
                    scene / f"frame_{number + 1:04d}.png",
                    flow / f"{stem}.flo",
                    root / "invalid" / scene.name / f"{stem}.png",
                )
                name = f"{group}/{scene.name}/{stem}"
                out.append(Pair(name, load_pair, group, unit=scene.name))
    if not out:
        raise GlunetError(f"{root}: no frames with flow; expected {LAYOUT}.")
    return out


SINTEL = Benchmark(
    name="sintel",
    title="Sintel",
    task="optical flow",
    pairs=pairs,
    metrics=("aepe", "pck1", "pck3", "pck5"),
    over="pixels",
    headline="final",
    unit="sequences",
    full=23,
    folders=FOLDERS,
    layout=LAYOUT,
    origin="http://sintel.is.tue.mpg.de/downloads (MPI-Sintel-complete.zip, 5.3 GB)",
    licence="for research; the authors ask to be cited (Butler et al., ECCV 2012); film frames CC BY 3.0, Blender"
    " Foundation",
    protocol="Training sequences; target frame t, source t + 1, as they are; pooled over all valid pixels of a pass.",
    published=(
        Published(
            "RAFT (trained on Chairs and Things)",
            "Teed and Deng, ECCV 2020, arXiv 2003.12039, table 1",
            {("clean", "aepe"): 1.43, ("final", "aepe"): 2.71},
        ),
    ),
)
