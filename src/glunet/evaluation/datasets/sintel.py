"""MPI Sintel, training sequences, clean and final pass."""

from functools import partial
from pathlib import Path

from glunet.evaluation.datasets.base import Benchmark, Pair, Published
from glunet.evaluation.datasets.read import below, folders, load_frames

FOLDERS = ("MPI-Sintel-complete", "MPI-Sintel", "Sintel", "sintel")
LAYOUT = "ROOT/training/{clean,final}/SCENE/frame_NNNN.png, training/flow/SCENE/frame_NNNN.flo and training/invalid/"


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
                    load_frames,
                    scene / f"{stem}.png",
                    scene / f"frame_{number + 1:04d}.png",
                    flow / f"{stem}.flo",
                    root / "invalid" / scene.name / f"{stem}.png",
                )
                name = f"{group}/{scene.name}/{stem}"
                out.append(Pair(name, load_pair, group, unit=scene.name))
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
