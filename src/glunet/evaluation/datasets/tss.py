"""TSS: two objects of one kind, dense truth on the foreground, both directions of each pair (SPEC 10)."""

from functools import partial
from pathlib import Path

from glunet.evaluation.datasets.base import Benchmark, FlowTruth, Pair, Published, Sample
from glunet.evaluation.datasets.read import below, expect_size, folders, pad, read_image, read_mask, read_truth
from glunet.evaluation.metrics import reference_size

SUBSETS = ("FG3DCar", "JODS", "PASCAL")
FOLDERS = ("TSS_CVPR2016", "TSS")
LAYOUT = "ROOT/{FG3DCar,JODS,PASCAL}/PAIR/{image1.png,image2.png,mask1.png,mask2.png,flow1.flo,flow2.flo}"


def load(folder: Path, target_number: int) -> Sample:
    """Target = image n, with flow n and mask n; both images padded by zeros to one size, bottom and right."""
    source_number = 3 - target_number
    target, source = (read_image(folder / f"image{n}.png") for n in (target_number, source_number))
    flow_path, mask_path = folder / f"flow{target_number}.flo", folder / f"mask{target_number}.png"
    flow, valid = read_truth(flow_path)
    expect_size(flow_path, flow.shape, target.shape, f"image{target_number}.png")
    # Unknown flow is 1e10; what is known and of the object is what counts.
    valid = valid & read_mask(mask_path, target.shape, f"image{target_number}.png")
    size = (max(target.shape[0], source.shape[0]), max(target.shape[1], source.shape[1]))
    truth = FlowTruth(pad(flow, size), pad(valid, size))
    return Sample(pad(source, size), pad(target, size), truth, {"": reference_size("image", image=source.shape[:2])})


def pairs(root: Path) -> list[Pair]:
    root = below(root, *FOLDERS)
    return [
        Pair(f"{subset}/{folder.name}/{n}", partial(load, folder, n), subset, unit=f"{subset}/{folder.name}")
        for subset in SUBSETS
        for folder in folders(root / subset)
        for n in (1, 2)
    ]


TSS = Benchmark(
    name="tss",
    title="TSS",
    task="semantic",
    pairs=pairs,
    metrics=("pck_0.05", "pck_0.1"),
    alphas=(0.05, 0.1),
    over="groups",
    flipping=True,
    unit="pairs",
    full=400,
    folders=FOLDERS,
    layout=LAYOUT,
    origin="https://taniai.space/projects/cvpr16_dccs/ (TSS_CVPR2016.zip)",
    licence="for research; the authors ask to be cited (Taniai et al., CVPR 2016)",
    protocol="Both directions; images padded by zeros at the bottom and right to one size; foreground of the target;"
    " PCK at alpha times the longer side of the source, per image, mean per subset, mean of the subsets; networks"
    " with a global level try the mirrored target as well.",
    published=tuple(
        Published(
            network,
            f"GLU-Net repository{weights}, flipping condition on; Truong et al., CVPR 2020",
            dict(zip(((group, "pck_0.05") for group in (*SUBSETS, "all")), figures, strict=True)),
        )
        for network, weights, figures in (
            ("GLU-Net", " (weights DPED-CityScape-ADE)", (0.932, 0.737, 0.711, 0.793)),
            ("Semantic-GLU-Net", "", (0.944, 0.757, 0.783, 0.828)),
        )
    ),
)
