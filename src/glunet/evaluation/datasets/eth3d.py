"""ETH3D, the many-view sequences: sparse matches of a reconstruction, between frames 3 to 15 apart."""

from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glunet.errors import GlunetError
from glunet.evaluation.datasets.base import Benchmark, Pair, PointTruth, Published, Sample
from glunet.evaluation.datasets.read import below, read_image

SEQUENCES = (
    *("lakeside", "sand_box", "storage_room", "storage_room_2", "tunnel"),  # multiview_testing
    *("delivery_area", "electro", "forest", "playground", "terrains"),  # multiview_training
)
INTERVALS = (3, 5, 7, 9, 11, 13, 15)
FOLDERS = ("ETH3D", "eth3d")
LAYOUT = "ROOT/{multiview_training,multiview_testing}/SEQUENCE/{images/, rig_calibration_undistorted/images.txt}"

Observations = dict[int, NDArray[np.float64]]


def read_observations(path: Path) -> dict[str, Observations]:
    """COLMAP's images.txt: for each image name the pixel of every 3-D point seen in it, by the point's number."""
    try:
        content = [line for line in path.read_text().splitlines() if not line.startswith("#")]
        out = {}
        for head, tail in zip(content[::2], content[1::2], strict=True):
            name = head.split(maxsplit=9)[9]
            values = np.array(tail.split(), np.float64).reshape(-1, 3)
            values = values[values[:, 2] >= 0]
            # COLMAP has the first pixel's centre at one half.
            out[name] = dict(zip(values[:, 2].astype(int).tolist(), values[:, :2] - 0.5, strict=True))
        return out
    except (OSError, ValueError, IndexError) as error:
        raise GlunetError(f"{path}: expected COLMAP's images.txt with its points ({error}); complete?") from error


def load(images: Path, source: str, target: str, observations: dict[str, Observations]) -> Sample:
    """The points seen in both; the flow is read at the pixel nearest to the target point."""
    there, here = observations[target], observations[source]
    source_image, target_image = read_image(images / source), read_image(images / target)
    height, width = target_image.shape[:2]
    both = [number for number in there if number in here]
    points_t = np.array([there[number] for number in both]).reshape(-1, 2)
    points_s = np.array([here[number] for number in both]).reshape(-1, 2)
    inside = ((points_t > -0.5) & (points_t < (width - 0.5, height - 0.5))).all(axis=1)
    return Sample(source_image, target_image, PointTruth(points_t[inside], points_s[inside], nearest=True))


def pairs(root: Path) -> list[Pair]:
    root = below(root, *FOLDERS)
    out = []
    for sequence in SEQUENCES:
        for folder in (root / part / sequence for part in ("multiview_training", "multiview_testing", ".")):
            path = folder / "rig_calibration_undistorted" / "images.txt"
            if not path.is_file():
                continue
            observations = read_observations(path)
            cameras: dict[str, list[str]] = {}
            for name in sorted(observations):
                cameras.setdefault(str(Path(name).parent), []).append(name)
            for names in cameras.values():
                for interval in INTERVALS:
                    for source, target in zip(names[::5], names[interval::5], strict=False):
                        load_pair = partial(load, folder / "images", source, target, observations)
                        label = f"interval {interval}"
                        out.append(Pair(f"{sequence}/{source}-{target}", load_pair, label, sequence, unit=sequence))
            break
    return out


def _rates(method: str, source: str, *values: float) -> Published:
    return Published(method, source, {(f"interval {i}", "aepe"): v for i, v in zip(INTERVALS, values, strict=True)})


ETH3D = Benchmark(
    name="eth3d",
    title="ETH3D",
    task="geometric",
    pairs=pairs,
    metrics=("aepe", "pck1", "pck3", "pck5"),
    over="groups",
    unit="sequences",
    full=10,
    folders=FOLDERS,
    layout=LAYOUT,
    origin="https://www.eth3d.net/datasets (low-res many-view, undistorted, with rig_calibration_undistorted)",
    licence="CC BY-NC-SA 4.0",
    protocol="Source every 5th frame, target 3, 5, .. 15 frames on, of one camera; points of the reconstruction seen in"
    " both, at the nearest target pixel; mean over pairs, over sequences, per interval. The published figures' own"
    " list of"
    " pairs and points comes as pickles, which are not opened: compare with care.",
    published=(
        _rates("GLU-Net", "GLU-Net repository; Truong et al., CVPR 2020", 1.98, 2.54, 3.49, 4.24, 5.61, 7.55, 10.78),
        _rates("GLU-Net, dynamic", "DenseMatching repository", 2.01, 2.46, 2.98, 3.51, 4.30, 6.11, 9.08),
    ),
)
