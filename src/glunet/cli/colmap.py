"""glunet colmap: matches of a folder of images, as a database that COLMAP reconstructs from."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from glunet.cli import options
from glunet.cli.progress import progress
from glunet.errors import GlunetError

if TYPE_CHECKING:
    from glunet.colmap.collect import Collected, Settings
    from glunet.colmap.database import Cameras, Verified
    from glunet.colmap.journal import Journal
    from glunet.images.folders import Picture
    from glunet.matcher import Matcher

SHOWN = 50  # rows of the table

ImagesOption = Annotated[Path, typer.Argument(help="Folder of images of one scene.", metavar="IMAGES")]
OutOption = Annotated[Path, typer.Option(help="COLMAP's database, to be written.", metavar="DATABASE.db")]
ExhaustiveOption = Annotated[bool, typer.Option("--exhaustive", help="Match all pairs, even of more than 40 images.")]
HlocOption = Annotated[
    Path | None, typer.Option(help="Write hloc's features.h5, matches.h5 and pairs.txt here too.", metavar="DIR")
]
SizeOption = Annotated[
    int, typer.Option(min=64, help="Match at this longer side; keypoints are in pixels of the files.")
]
CellOption = Annotated[
    int, typer.Option(min=2, max=256, help="At most one keypoint in each cell of so many matched pixels.")
]
LeastOption = Annotated[float, typer.Option(min=0, max=1, help="Lowest confidence of a match.")]
RoundTripOption = Annotated[float, typer.Option(help="There and back, a match may miss by so many pixels.")]
CameraModeOption = Annotated[
    Literal["auto", "single", "per-folder", "per-image"], typer.Option(help="Which images share a camera.")
]
CameraModelOption = Annotated[str, typer.Option(help="COLMAP's name of the camera model.")]
CameraParamsOption = Annotated[str, typer.Option(help="Its parameters, comma-separated, where they are known.")]
VerifyOption = Annotated[
    bool, typer.Option("--verify/--no-verify", help="Let COLMAP check each pair's geometry, and say how it fits.")
]
ReconstructOption = Annotated[
    bool,
    typer.Option("--reconstruct", help="Run COLMAP's mapper too: model, points.ply and numbers in DATABASE-model/."),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Go on with the pairs that an earlier run of this command had matched.")
]
OverwriteOption = Annotated[bool, typer.Option("--overwrite", help="Replace a database that is there.")]


def colmap(
    images: ImagesOption,
    out: OutOption,
    pairs: options.PairsFileOption = None,
    window: options.WindowOption = None,
    exhaustive: ExhaustiveOption = False,
    hloc: HlocOption = None,
    size: SizeOption = 1024,
    cell: CellOption = 8,
    least: LeastOption = 0.5,
    round_trip: RoundTripOption = 2.0,
    camera_mode: CameraModeOption = "auto",
    camera_model: CameraModelOption = "SIMPLE_RADIAL",
    camera_params: CameraParamsOption = "",
    verify: VerifyOption = True,
    reconstruct: ReconstructOption = False,
    keep_going: options.KeepGoingOption = False,
    resume: ResumeOption = False,
    overwrite: OverwriteOption = False,
    weights: options.WeightsOption = "glunet",
    device: options.DeviceOption = None,
    search: options.SearchOption = None,
    polish: options.PolishOption = None,
) -> None:
    """Match the images of a folder, and write what COLMAP reconstructs from.

    Keypoints are shared: what is found at a place where another pair has a keypoint already is that keypoint, so that
    points are tracked through many images. Pairs that do not show the same thing are named and left out.

    Example: glunet colmap photos --out database.db
    """
    from glunet.colmap import database
    from glunet.colmap import hloc as hloc_files
    from glunet.colmap.collect import Settings
    from glunet.flow.flo5 import hdf5
    from glunet.loading import load

    cameras = _cameras(camera_mode, camera_model, camera_params)
    _check(out, round_trip, verify, reconstruct, overwrite)
    if hloc is not None:
        hdf5()

    def warn(problem: str) -> None:
        typer.echo(f"glunet: passed over: {problem}", err=True)

    found = _readable(out, images, cameras, warn if keep_going else None)
    chosen = _pairs([picture.name for picture in found], pairs, window, exhaustive)
    matcher = load(weights, device, search=search, polish=polish, plane=False)  # relief is what it is about
    settings = Settings(size=size, cell=cell, reach=cell / 4, least=least, round_trip=round_trip)
    journal = _journal(out, found, chosen, settings, matcher, resume)
    collected = _collected(matcher, found, chosen, settings, journal, keep_going)
    if not any(len(pair.matches) for pair in collected.pairs):
        raise GlunetError(
            f"No pair of the images in '{images}' has a match that is sure enough: there is nothing to write."
        )
    verified = database.write_database(out, images, collected, cameras, verify)
    journal.remove()
    _tell(verified, collected, verify)
    typer.echo(out)
    if reconstruct:
        _reconstruct(out, images, bool(camera_params), collected.scale)
    if hloc is not None:
        for path in hloc_files.write_hloc(hloc, collected):
            typer.echo(path)


def _check(out: Path, round_trip: float, verify: bool, reconstruct: bool, overwrite: bool) -> None:
    """What the words alone say, and what is there already, before hours of matching."""
    from glunet.colmap.reconstruct import models_beside

    if round_trip <= 0:
        raise GlunetError(f"--round-trip is {round_trip:g}, but a positive number of pixels is expected.")
    if reconstruct and not verify:
        raise GlunetError("--reconstruct needs what COLMAP verifies: leave --no-verify out.")
    there = [path for path in (out, *(models_beside(out) if reconstruct else ())) if path.exists()]
    if there and not overwrite:
        raise GlunetError(f"'{there[0]}' is there already: choose another name, or --overwrite.")


def _cameras(mode: str, model: str, params: str) -> "Cameras":
    from glunet.colmap import database

    if model not in database.library().CameraModelId.__members__:
        raise GlunetError(f"COLMAP has no camera model '{model}': SIMPLE_RADIAL, PINHOLE and OPENCV are some.")
    return database.Cameras(mode, model, params)


def _journal(
    out: Path,
    pictures: "list[Picture]",
    pairs: list[tuple[int, int]],
    settings: "Settings",
    matcher: "Matcher",
    resume: bool,
) -> "Journal":
    """Of what is matched, beside the database; it is another one if anything is that the matches hang on."""
    from glunet.colmap.journal import Journal

    identity = {
        "images": [[picture.name, *picture.size, picture.path.stat().st_size] for picture in pictures],
        "pairs": [list(pair) for pair in pairs],
        "settings": dataclasses.asdict(settings),
        "matcher": matcher.provenance.as_dict(),
    }
    return Journal(out.with_name(out.name + ".pairs"), identity, resume)


def _readable(out: Path, images: Path, cameras: "Cameras", warn: Callable[[str], None] | None) -> "list[Picture]":
    """The images of the folder; one that cannot be read is an error, or where there is a `warn`, skipped."""
    from glunet.colmap import database
    from glunet.images.folders import pictures

    found = pictures(images, warn)
    for picture in database.check(out, images, found, cameras):
        problem = f"COLMAP cannot read '{picture.path}': convert it to JPEG or PNG."
        if warn is None:
            raise GlunetError(problem)
        warn(problem)
        found.remove(picture)
    return found


def _pairs(names: list[str], file: Path | None, window: int | None, exhaustive: bool) -> list[tuple[int, int]]:
    from glunet.images import pairs

    if (file is not None) + (window is not None) + exhaustive > 1:
        raise GlunetError("--pairs, --window and --exhaustive say different things: give one of them.")
    if file is not None:
        numbers = {name: number for number, name in enumerate(names)}
        named = ((numbers[a], numbers[b]) for a, b in pairs.read(file, names))
        return [(min(a, b), max(a, b)) for a, b in named]
    if window is not None:
        return pairs.window(len(names), window)
    if len(names) > pairs.FEW and not exhaustive:
        count = len(names) * (len(names) - 1) // 2
        raise GlunetError(
            f"{len(names)} images make {count} pairs: say --window N (each with the next N), --pairs FILE, or "
            "--exhaustive for all of them."
        )
    return pairs.every(len(names))


def _collected(
    matcher: "Matcher",
    images: "list[Picture]",
    pairs: list[tuple[int, int]],
    settings: "Settings",
    journal: "Journal",
    keep_going: bool,
) -> "Collected":
    """`glunet.colmap.collect` with a progress bar and the time left on stderr."""
    from glunet.colmap.collect import collect

    with progress() as bar:
        task = bar.add_task("matching", total=len(pairs))

        def watch(matched: Any, done: int) -> None:
            bar.update(task, completed=done)
            if matched.verdict:
                a, b = (images[number].name for number in matched.pair)
                message = f"glunet: left out {a} and {b}: {matched.verdict}"
                bar.console.print(message)

        return collect(matcher, images, pairs, settings, watch, journal, keep_going)


def _reconstruct(database: Path, images: Path, known: bool, scale: float) -> None:
    from glunet.colmap.reconstruct import reconstruct

    for folder, numbers in reconstruct(database, images, known, scale):
        typer.echo(
            f"{folder}: {numbers['images']} of {numbers['images'] + len(numbers['left_out'])} images, "
            f"{numbers['points']} points, each in {numbers['mean_track_length']:.2f} images, reprojection error "
            f"{numbers['mean_reprojection_error']:.2f} px"
        )


def _tell(verified: "list[Verified]", collected: "Collected", verify: bool) -> None:
    from rich.console import Console

    from glunet.colmap.tracks import track_lengths
    from glunet.evaluation.tables import Table

    notes = [f"{sum(map(len, collected.points))} keypoints in {len(collected.images)} images"]
    if len(verified) > SHOWN:
        notes.append(f"{len(verified) - SHOWN} more pairs are not shown")
    if verify:
        lengths = track_lengths(verified)
        if len(lengths):
            longer = 100 * float((lengths > 2).mean())
            notes.append(f"{len(lengths)} tracks, {lengths.mean():.2f} images each; {longer:.0f} % are longer than two")
    rows = tuple(
        (" - ".join(pair.names), str(pair.matches), str(len(pair.inliers)), pair.kind) for pair in verified[:SHOWN]
    )
    head = ("pair", "matches", "inliers", "geometry")
    Console(soft_wrap=False).print(Table("COLMAP's view of the pairs", head, rows, tuple(notes)).rich())
