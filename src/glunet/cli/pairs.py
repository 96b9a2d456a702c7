"""glunet pairs: which images of a folder to match with each other."""

from pathlib import Path
from typing import Annotated

import typer

from glunet.cli import options
from glunet.cli.progress import progress
from glunet.errors import GlunetError


def pairs(
    images: Annotated[Path, typer.Argument(help="Folder of images.", metavar="IMAGES")],
    out: Annotated[Path, typer.Option(help="Text file to be written, two names a line.", metavar="FILE")],
    window: options.WindowOption = None,
    similar: Annotated[
        int | None, typer.Option(help="Each image with the N that look most like it.", metavar="N")
    ] = None,
    within: Annotated[
        float | None, typer.Option(help="Images taken at most so many metres apart, by EXIF's GPS.", metavar="METRES")
    ] = None,
    weights: options.WeightsOption = "glunet",
    device: options.DeviceOption = None,
) -> None:
    """List pairs of images for `glunet batch` and `glunet colmap --pairs`: all, or fewer by one of the options.

    Example: glunet pairs photos --similar 20 --out pairs.txt
    """
    from glunet.batch import candidates
    from glunet.images import pairs as lists
    from glunet.images.folders import pictures

    if sum(option is not None for option in (window, similar, within)) > 1:
        raise GlunetError("--window, --similar and --within say different things: give one of them.")

    def warn(problem: str) -> None:
        typer.echo(f"glunet: passed over: {problem}", err=True)

    found = pictures(images, warn)
    chosen: list[tuple[int, int]]
    if similar is not None:
        from glunet.loading import load

        matcher = load(weights, device)
        with progress() as bar:
            task = bar.add_task("describing", total=len(found))
            numbers, descriptors, problems = candidates.described(
                matcher, [picture.path for picture in found], lambda done: bar.update(task, completed=done)
            )
        for problem in problems:
            warn(problem)
        if len(numbers) < 2:
            count = len(numbers) or "no"
            raise GlunetError(f"'{images}' holds {count} images that can be read: two or more are needed.")
        chosen = [(numbers[i], numbers[j]) for i, j in candidates.nearest(descriptors, similar)]
    elif within is not None:
        positions = [candidates.position(picture.path) for picture in found]
        without = sum(position is None for position in positions)
        if without:
            warn(f"{without} of {len(found)} images, whose EXIF does not say where they were taken.")
        chosen = candidates.near(positions, within)
    else:
        chosen = lists.every(len(found)) if window is None else lists.window(len(found), window)
    if not chosen:
        raise GlunetError(f"No two images in '{images}' are {within:g} m apart or less: give more metres.")
    lists.write(out, ((found[i].name, found[j].name) for i, j in chosen))
    typer.echo(f"{out}: {len(chosen)} pairs of {len(found)} images")
