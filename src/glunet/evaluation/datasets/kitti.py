"""KITTI flow 2012 and 2015, training images (their truth is public), every pixel (occ) and those seen in both (noc)."""

from functools import partial
from pathlib import Path

from glunet.evaluation.datasets.base import Benchmark, Pair, Published
from glunet.evaluation.datasets.read import below, load_frames, need


def pairs(root: Path, image_folder: str, names: tuple[str, ...]) -> list[Pair]:
    root = below(below(root, *names), "training")
    images = need(root / image_folder, "the folder of frames *_10.png and *_11.png")
    out = []
    truths = sorted((root / "flow_occ").glob("*_10.png"))
    # A frame without a truth, or a truth without a frame, is reported when it is to be read.
    for name in sorted({path.name for path in (*truths, *images.glob("*_10.png"))} if truths else ()):
        for group in ("occ", "noc"):
            frames = images / name, images / name.replace("_10.png", "_11.png")
            load_pair = partial(load_frames, *frames, root / f"flow_{group}" / name)
            out.append(Pair(f"{Path(name).stem}/{group}", load_pair, group, unit=Path(name).stem))
    return out


def _benchmark(
    year: int, images: str, count: int, folders: tuple[str, ...], published: tuple[Published, ...]
) -> Benchmark:
    return Benchmark(
        name=f"kitti{year}",
        title=f"KITTI {year}",
        task="optical flow",
        pairs=partial(pairs, image_folder=images, names=folders),
        metrics=("aepe", "fl", "pck1", "pck3", "pck5"),
        headline="occ",
        unit="pairs",
        full=count,
        folders=folders,
        layout=f"ROOT/training/{{{images},flow_occ,flow_noc}}/*.png",
        origin="https://www.cvlibs.net/datasets/kitti/eval_flow.php (after registration)",
        licence="CC BY-NC-SA 3.0",
        protocol="Training images; target frame _10, source frame _11, as they are; AEPE is the mean of the images'"
        " means,"
        " Fl the share of all valid pixels with an error above 3 px and 5 %; occ: every known pixel, noc: seen in"
        " both.",
        published=published,
        summary=("aepe", "fl"),
    )


GLUNET = "GLU-Net repository (weights DPED-CityScape-ADE); Truong et al., CVPR 2020"
DYNAMIC = "DenseMatching repository, GLU-Net trained on the dynamic set"

KITTI2012 = _benchmark(
    2012,
    "colored_0",
    194,
    ("KITTI2012", "KITTI-2012", "KITTI_2012", "kitti2012", "data_stereo_flow"),
    (
        Published("GLU-Net", GLUNET, {("occ", "aepe"): 3.33}),
        Published("GLU-Net (paper)", "Truong et al., CVPR 2020, arXiv 1912.05524", {("occ", "aepe"): 3.34}),
        Published("GLU-Net, dynamic", DYNAMIC, {("occ", "aepe"): 3.12, ("occ", "fl"): 0.1973}),
    ),
)
KITTI2015 = _benchmark(
    2015,
    "image_2",
    200,
    ("KITTI2015", "KITTI-2015", "KITTI_2015", "kitti2015", "data_scene_flow", "KITTI"),
    (
        Published("GLU-Net", GLUNET, {("occ", "aepe"): 9.79, ("occ", "fl"): 0.3777}),
        Published(
            "GLU-Net (paper)",
            "Truong et al., CVPR 2020, arXiv 1912.05524",
            {("occ", "aepe"): 9.79, ("occ", "fl"): 0.3752},
        ),
        Published("GLU-Net, dynamic", DYNAMIC, {("occ", "aepe"): 7.59, ("occ", "fl"): 0.3392}),
        Published(
            "RAFT (trained on Chairs and Things)",
            "Teed and Deng, ECCV 2020, arXiv 2003.12039, table 1",
            {("occ", "aepe"): 5.04, ("occ", "fl"): 0.174},
        ),
    ),
)
