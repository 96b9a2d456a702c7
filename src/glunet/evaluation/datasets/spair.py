"""SPair-71k, the test split: key points on objects of eighteen classes, with large changes of view and scale."""

import json
from functools import partial
from pathlib import Path

import numpy as np

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, Pair, PointTruth, Sample
from glunet.evaluation.datasets.read import below, lines, read_image
from glunet.evaluation.metrics import reference_size

FOLDERS = ("SPair-71k",)
LAYOUT = "ROOT/Layout/large/test.txt, ROOT/PairAnnotation/test/*.json and ROOT/JPEGImages/CLASS/*.jpg"


def load(path: Path, images: Path) -> Sample:
    """SPair carries the key points of its "source" to its "target" and measures there: ours are the other way round."""
    try:
        entry = json.loads(path.read_text())
        folder = images / entry["category"]
        source_path, target_path = folder / entry["trg_imname"], folder / entry["src_imname"]
        source_points = np.asarray(entry["trg_kps"], np.float64).reshape(-1, 2)
        target_points = np.asarray(entry["src_kps"], np.float64).reshape(-1, 2)
        box = [float(value) for value in entry["trg_bndbox"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise GlunetError(
            f"{path}: expected an annotation of SPair-71k ({error!r}); is the download complete?"
        ) from error
    truth = PointTruth(target_points, source_points)
    return Sample(read_image(source_path), read_image(target_path), truth, {"": reference_size("box", box=box)})


def pairs(root: Path) -> list[Pair]:
    root = below(root, *FOLDERS)
    out = []
    for line in lines(root / "Layout" / "large" / "test.txt", f"the list of test pairs, in the layout {LAYOUT}"):
        _, _, category = line.partition(":")
        path = root / "PairAnnotation" / "test" / f"{line}.json"
        if not path.is_file():  # archives unpacked on Windows have another sign for the colon
            path = path.with_name(f"{line.replace(':', '_')}.json")
        out.append(Pair(line, partial(load, path, root / "JPEGImages"), category, unit=line))
    return out


SPAIR = Benchmark(
    name="spair",
    title="SPair-71k",
    task="semantic",
    pairs=pairs,
    metrics=("pck_0.1", "pck_0.05"),
    alphas=(0.1, 0.05),
    over="groups",
    unit="test pairs",
    full=12234,
    folders=FOLDERS,
    layout=LAYOUT,
    origin="https://cvlab.postech.ac.kr/research/SPair-71k/ (SPair-71k.tar.gz, 226 MB)",
    licence="for research; the authors ask to be cited (Min et al., 2019); images from PASCAL VOC and PASCAL3D+",
    protocol="Key points of SPair's source carried to its target (our target to our source); PCK at alpha times the"
    " longer"
    " side of the object's box there, mean over the pairs of a class, then over the classes.",
)
