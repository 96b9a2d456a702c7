"""COLMAP's database: images, keypoints, matches, and which of these one geometry explains; by pycolmap."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glunet.colmap.collect import Collected
from glunet.errors import GlunetError, needed
from glunet.flow.files import writing
from glunet.images.folders import Picture

CAMERA_MODES = {"auto": "AUTO", "single": "SINGLE", "per-folder": "PER_FOLDER", "per-image": "PER_IMAGE"}
_BESIDE = ("-journal", "-wal", "-shm")  # what SQLite writes beside a database
CENTRE = 0.5  # COLMAP's top left pixel has its centre at (0.5, 0.5), ours at (0, 0)


@dataclass(frozen=True)
class Cameras:
    """Which cameras COLMAP is to assume.

    Attributes:
        mode: of CAMERA_MODES: which images share a camera.
        model: COLMAP's name of a camera model.
        params: its parameters, comma-separated; "" lets COLMAP guess by EXIF, or from the size.
    """

    mode: str = "auto"
    model: str = "SIMPLE_RADIAL"
    params: str = ""


class Verified(NamedTuple):
    """What COLMAP found of one pair.

    Attributes:
        names: of the two images.
        matches: how many were written.
        inliers: (N, 2) uint32, keypoint numbers of those that a geometry explains.
        kind: of the geometry, in COLMAP's words: calibrated, uncalibrated, planar ...
    """

    names: tuple[str, str]
    matches: int
    inliers: np.ndarray
    kind: str


def library() -> Any:
    """The module pycolmap.

    Raises:
        GlunetError: if it is not installed.
    """
    # Pillow first: pycolmap brings a zlib of its own, and a Pillow that is loaded after it crashes when it writes PNG
    # (seen with pycolmap 4.2.1 and Pillow 12).
    from PIL import Image

    Image.preinit()
    with needed("COLMAP needs pycolmap", "colmap"):
        import pycolmap
    return pycolmap


@contextmanager
def quiet(pycolmap: Any) -> Iterator[None]:
    """Within, pycolmap writes nothing to stderr: what it raises says the same."""
    before = pycolmap.logging.minloglevel
    pycolmap.logging.minloglevel = pycolmap.logging.FATAL.value
    try:
        yield
    finally:
        pycolmap.logging.minloglevel = before


def write_database(
    path: Path, folder: Path, collected: Collected, cameras: Cameras, verify: bool = True
) -> list[Verified]:
    """Writes a database that replaces what is at `path`, and has COLMAP verify it.

    Args:
        folder: of the images.
        verify: let COLMAP look for the geometry of each pair; without, its mapper finds no pairs.

    Returns:
        What was found of each pair with matches, read back from the file.

    Raises:
        GlunetError: if pycolmap is missing or refuses, or the file cannot be written.
    """
    pycolmap = library()
    with _writing(path) as part, quiet(pycolmap), _understood(path):
        numbers = _images(pycolmap, part, folder, collected.images, cameras)
        with pycolmap.Database.open(part) as database:
            for image, points in zip(collected.images, collected.points, strict=True):
                database.write_keypoints(numbers[image.name], np.ascontiguousarray(points + np.float32(CENTRE)))
            for pair in collected.pairs:
                if len(pair.matches):
                    ids = [numbers[collected.images[i].name] for i in pair.pair]
                    database.write_matches(*ids, np.ascontiguousarray(pair.matches))
        if verify:
            options = pycolmap.TwoViewGeometryOptions()
            options.ransac.random_seed = 0
            options.ransac.max_error *= collected.scale  # what was matched small is not exact to pixels as stored
            pycolmap.geometric_verification(part, two_view_geometry_options=options)
        return read_verified(part)


def check(path: Path, folder: Path, images: list[Picture], cameras: Cameras) -> list[Picture]:
    """The images that COLMAP cannot read: asked before hours of matching, as everything else that it may refuse.

    Raises:
        GlunetError: if it does not take these cameras for them, or nothing can be written where `path` is to be.
    """
    pycolmap = library()
    if not path.parent.is_dir():
        raise GlunetError(f"'{path}': there is no folder '{path.parent}' to write to: make it first.")
    part = path.with_name(f".part-check-{os.getpid()}-{path.name}")
    try:
        with quiet(pycolmap), _understood(path):
            numbers = _images(pycolmap, part, folder, images, cameras)
            return [image for image in images if image.name not in numbers]
    finally:
        _remove(part)


@contextmanager
def _writing(path: Path) -> Iterator[Path]:
    """As `writing`; what SQLite leaves beside its file goes as well."""
    with writing(path) as part:
        try:
            yield part
        finally:
            for suffix in _BESIDE:
                part.with_name(part.name + suffix).unlink(missing_ok=True)


def _remove(part: Path) -> None:
    for suffix in ("", *_BESIDE):
        part.with_name(part.name + suffix).unlink(missing_ok=True)


@contextmanager
def _understood(path: Path) -> Iterator[None]:
    """What pycolmap raises becomes one sentence."""
    try:
        yield
    except (RuntimeError, ValueError, KeyError) as error:
        if isinstance(error, GlunetError):
            raise
        reason = " ".join(str(error).split())
        raise GlunetError(f"pycolmap did not take what was to be written to '{path}': {reason}") from error


def read_verified(path: Path) -> list[Verified]:
    """What a database says of its pairs, in the order of its images."""
    pycolmap = library()
    with pycolmap.Database.open(path) as database:
        names = {image.image_id: image.name for image in database.read_all_images()}
        found = {}
        for pair, matches in zip(*database.read_all_matches(), strict=True):
            ids = tuple(pycolmap.pair_id_to_image_pair(pair))
            found[ids] = Verified((names[ids[0]], names[ids[1]]), len(matches), np.empty((0, 2), np.uint32), "none")
        for pair, geometry in zip(*database.read_two_view_geometries(), strict=True):
            ids = tuple(pycolmap.pair_id_to_image_pair(pair))
            kind = pycolmap.TwoViewGeometryConfiguration(geometry.config).name.lower()
            found[ids] = found[ids]._replace(inliers=np.asarray(geometry.inlier_matches), kind=kind)
    return [found[ids] for ids in sorted(found)]


def _images(pycolmap: Any, path: Path, folder: Path, images: list[Picture], cameras: Cameras) -> dict[str, int]:
    """Images, cameras, and what newer versions want beside; names -> numbers."""
    options = pycolmap.ImageReaderOptions()
    options.camera_model, options.camera_params = cameras.model, cameras.params
    pycolmap.Database.open(path).close()
    pycolmap.import_images(
        path,
        folder,
        getattr(pycolmap.CameraMode, CAMERA_MODES[cameras.mode]),
        [image.name for image in images],
        options,
    )
    with pycolmap.Database.open(path) as database:
        numbers = {image.name: image.image_id for image in database.read_all_images()}
        for image in images:
            if image.name not in numbers:
                continue
            camera = database.read_camera(database.read_image(numbers[image.name]).camera_id)
            if (camera.height, camera.width) != image.size:
                raise GlunetError(
                    f"COLMAP sees '{image.path}' as {camera.width} x {camera.height}, but it is {image.size[1]} x "
                    f"{image.size[0]}: save it again, upright."
                )
    return numbers
