"""COLMAP's mapper on a database of ours: cameras and points, as a model, a PLY file and numbers."""

import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from glunet.colmap.database import library, quiet
from glunet.errors import GlunetError
from glunet.flow.files import write_json, writing_folder


def reconstruct(database: Path, images: Path, known: bool, scale: float) -> list[tuple[Path, dict[str, Any]]]:
    """Reconstructs what the pairs of a database show; each model gets a folder beside it, the largest first.

    A folder (`NAME-model`, `NAME-model-2` ...) holds COLMAP's binary model, `points.ply` and `numbers.json`.

    Args:
        images: the folder of the images.
        known: the cameras' parameters are given: they stay as they are.
        scale: stored pixels for each that was matched: the mapper's thresholds are of that.

    Returns:
        Of each model its folder and its numbers: images registered and those left out, points, their mean track length
        (images a point is seen in) and mean reprojection error (pixels as stored).

    Raises:
        GlunetError: if pycolmap is missing, nothing could be reconstructed, or nothing can be written.
    """
    pycolmap = library()
    options = pycolmap.IncrementalPipelineOptions()
    options.random_seed = 0
    if known:
        options.ba_refine_focal_length = options.ba_refine_principal_point = options.ba_refine_extra_params = False
    mapper = options.mapper
    mapper.init_max_error *= scale
    mapper.abs_pose_max_error *= scale
    mapper.filter_max_reproj_error *= scale
    with tempfile.TemporaryDirectory() as folder, quiet(pycolmap):
        models = list(pycolmap.incremental_mapping(database, images, folder, options).values())
    if not models:
        raise GlunetError(
            f"COLMAP could reconstruct nothing from '{database}': the pictures need overlap, and a camera that moves."
        )
    with pycolmap.Database.open(database) as opened:
        names = {image.name for image in opened.read_all_images()}
    made = []
    for number, model in enumerate(sorted(models, key=lambda model: -model.num_reg_images()), start=1):
        out = database.with_name(f"{database.stem}-model{'' if number == 1 else f'-{number}'}")
        numbers = _numbers(model, names)
        with writing_folder(out) as part, quiet(pycolmap):
            model.write_binary(part)
            model.export_PLY(part / "points.ply")
            write_json(part / "numbers.json", numbers)
        made.append((out, numbers))
    for old in set(models_beside(database)) - {out for out, _ in made}:  # of an earlier run, which had more
        shutil.rmtree(old, ignore_errors=True)
    return made


def models_beside(database: Path) -> list[Path]:
    """The folders of models that an earlier run has left beside a database."""
    ours = re.compile(re.escape(database.stem) + r"-model(-\d+)?")
    return sorted(file.parent for file in database.parent.glob("*/numbers.json") if ours.fullmatch(file.parent.name))


def _numbers(model: Any, names: set[str]) -> dict[str, Any]:
    registered = {model.images[number].name for number in model.reg_image_ids()}
    # Two keypoints of one image count once.
    lengths = [len({element.image_id for element in point.track.elements}) for point in model.points3D.values()]
    return {
        "images": len(registered),
        "left_out": sorted(names - registered),
        "points": model.num_points3D(),
        "mean_track_length": round(float(np.mean(lengths)), 3) if lengths else 0.0,
        "mean_reprojection_error": round(float(model.compute_mean_reprojection_error()), 3),
    }
