"""The files of hloc (Hierarchical Localization): features.h5, matches.h5 and pairs.txt."""

from pathlib import Path

import numpy as np

from glunet.colmap.collect import Collected
from glunet.flow.files import writing_folder
from glunet.flow.flo5 import hdf5

FEATURES, MATCHES, PAIRS = "features.h5", "matches.h5", "pairs.txt"


def write_hloc(folder: Path, collected: Collected) -> list[Path]:
    """Writes the three files to a folder, all of them or none; it is made where it is missing.

    features.h5 holds a group for each image's name with "keypoints" (N x 2, pixel centres at integers: hloc adds the
    half pixel when it writes to COLMAP), "scores" (N) and "image_size" (width, height). matches.h5 holds, for a pair
    of names with "-" in the place of "/", a group NAME0/NAME1 with "matches0" (for each keypoint of the first image its
    partner's number, or -1) and "matching_scores0". Pairs without a match are left out.

    Raises:
        GlunetError: if h5py is missing, or the folder cannot be written to.
    """
    h5py = hdf5()
    names = [image.name for image in collected.images]
    with writing_folder(folder) as part:
        with h5py.File(part / FEATURES, "w") as file:
            for image, points, scores in zip(collected.images, collected.points, collected.scores, strict=True):
                group = file.create_group(image.name)
                group["keypoints"], group["scores"] = points, scores
                group["image_size"] = np.array(image.size[::-1])
        with h5py.File(part / MATCHES, "w") as file:
            for pair in collected.pairs:
                if not len(pair.matches):
                    continue
                i = pair.pair[0]
                partner = np.full(len(collected.points[i]), -1, np.int32)
                score = np.zeros(len(collected.points[i]), np.float32)
                partner[pair.matches[:, 0]], score[pair.matches[:, 0]] = pair.matches[:, 1], pair.scores
                group = file.create_group("/".join(names[k].replace("/", "-") for k in pair.pair))
                group["matches0"], group["matching_scores0"] = partner, score
        lines = [f"{names[i]} {names[j]}\n" for (i, j), matches, *_ in collected.pairs if len(matches)]
        (part / PAIRS).write_text("".join(lines), encoding="utf-8")
    return [folder / name for name in (FEATURES, MATCHES, PAIRS)]
