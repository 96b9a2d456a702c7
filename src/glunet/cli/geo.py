"""glunet geo: how far the ground has moved between two georeferenced rasters."""

import json
from pathlib import Path
from typing import Annotated

import typer

from glunet.cli import options
from glunet.cli.progress import progress
from glunet.errors import GlunetError


def geo(
    source: Annotated[Path, typer.Argument(help="The earlier raster, a GeoTIFF.", metavar="SOURCE")],
    target: Annotated[Path, typer.Argument(help="The later one, in the same projected system.", metavar="TARGET")],
    out: Annotated[Path, typer.Option(help="GeoTIFF to be written.", metavar="FILE")],
    bands: Annotated[
        str | None, typer.Option(help="One band or three, from 1: 4,3,2; by default the first three.", metavar="N,N,N")
    ] = None,
    block: Annotated[int, typer.Option(help="Pixels a side that are matched at once.")] = 2048,
    margin: Annotated[int, typer.Option(help="Pixels around them: more than anything moves.")] = 256,
    weights: options.WeightsOption = "glunet",
    device: options.DeviceOption = None,
    search: options.SearchOption = None,
    polish: options.PolishOption = None,
    speed: options.SpeedOption = None,
) -> None:
    """Write how far the ground has moved between two rasters: metres east, metres north, confidence.

    The rasters may differ in size, resolution and extent; the result lies on the later one's grid. Medians go to
    stdout as JSON.

    Example: glunet geo 2023.tif 2025.tif --out moved.tif
    """
    from glunet.interop.geo import displacement
    from glunet.loading import load

    try:
        chosen = [int(band) for band in bands.split(",")] if bands else None
    except ValueError as error:
        raise GlunetError(f"--bands {bands}: give one number or three, such as 4,3,2.") from error
    matcher = load(weights, device, **options.asked(search=search, polish=polish, speed=speed))
    with progress() as bar:
        task = bar.add_task("matching", total=None)
        moved = displacement(
            source,
            target,
            out,
            matcher,
            chosen,
            block,
            margin,
            lambda done, count: bar.update(task, completed=done, total=count),
        )
    numbers = {name: None if value != value else round(value, 4) for name, value in moved.as_dict().items()}
    typer.echo(json.dumps(numbers))
