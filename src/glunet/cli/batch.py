"""glunet batch: a list of pairs, matched here or on many machines."""

import os
from pathlib import Path
from typing import Annotated

import typer

from glunet.cli import options
from glunet.cli.progress import progress
from glunet.errors import GlunetError


def batch(
    pairs: Annotated[Path, typer.Argument(help="Text file, two names a line: source and target.", metavar="PAIRS")],
    images: Annotated[str, typer.Option(help="Folder of the images, or an address for fsspec.", metavar="DIR")],
    out: Annotated[Path, typer.Option(help="Folder of the results; a run that ended goes on.", metavar="DIR")],
    ray: Annotated[
        str | None, typer.Option(help="A Ray cluster's address, or 'local' for one on this machine.", metavar="ADDRESS")
    ] = None,
    workers: Annotated[int, typer.Option(min=1, help="With --ray: how many processes match.")] = 1,
    size: Annotated[
        int, typer.Option(min=64, help="Match at this longer side; points are in pixels of the files.")
    ] = 1024,
    points: Annotated[int, typer.Option(min=1, help="Most points of a pair.")] = 1000,
    least: Annotated[float, typer.Option(min=0, max=1, help="Lowest confidence of a point.")] = 0.5,
    flows: Annotated[bool, typer.Option("--flows", help="Keep flows too, at the size of matching.")] = False,
    block: Annotated[int, typer.Option(min=1, help="Pairs in a file of results.")] = 64,
    weights: options.WeightsOption = "glunet",
    device: options.DeviceOption = None,
    search: options.SearchOption = None,
    polish: options.PolishOption = None,
    plane: options.PlaneOption = None,
    speed: options.SpeedOption = None,
) -> None:
    """Match a list of pairs; write points, confidence, verdict and homography of each as Parquet.

    A run that was ended, or whose disk was full, goes on where it was: the same command again. A bad image fails its
    pairs only; the reason is in their rows.

    Example: glunet batch pairs.txt --images photos --out matches
    """
    from glunet.batch.run import Done, Job, run
    from glunet.images.pairs import read

    if ray is None and workers > 1:
        raise GlunetError(f"--workers {workers} needs --ray: give --ray local for processes on this machine.")
    named = read(pairs)
    job = Job(
        images if "://" in images else os.path.abspath(images),
        Path(os.path.abspath(out)),
        weights,
        device,
        options.asked(search=search, polish=polish, plane=plane, speed=speed),
        size,
        points,
        least,
        flows,
        workers,
    )
    failed = matched = 0
    with progress() as bar:
        task = bar.add_task("matching", total=len(named))

        def watch(done: Done) -> None:
            nonlocal failed, matched
            failed, matched = failed + done.failed, matched + done.pairs - done.failed
            bar.update(task, advance=done.pairs)
            if done.failed:
                message = f"glunet: {done.failed} of {done.pairs} pairs failed: {done.reason}"
                bar.console.print(message)

        before = run(job, named, block, ray, watch)
    typer.echo(f"{out}: {matched} pairs matched, {failed} failed, {before} were there before")
