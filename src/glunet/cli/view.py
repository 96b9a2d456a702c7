"""glunet view: the page that answers, from a server on this machine."""

import os
import sys
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glunet.cli import options
from glunet.errors import GlunetError

if TYPE_CHECKING:
    from glunet.matcher import Matcher


def view(
    source: Annotated[
        Path | None,
        typer.Argument(help="The image to find the target's pixels in.", metavar="SOURCE", show_default=False),
    ] = None,
    target: Annotated[
        Path | None, typer.Argument(help="The image to point at.", metavar="TARGET", show_default=False)
    ] = None,
    port: Annotated[int, typer.Option(help="Of 127.0.0.1; 0 takes any that is free.")] = 8765,
    weights: options.WeightsOption = "glunet",
    device: options.DeviceOption = None,
    search: options.SearchOption = None,
    polish: options.PolishOption = None,
    longest: Annotated[
        int, typer.Option(help="Images whose longer side has more pixels are matched reduced to it.", min=64)
    ] = 1280,
) -> None:
    """Drop two images on a page in the browser, and point at one to see where that is in the other.

    The page comes from this machine and goes to this machine only; Ctrl-C ends it. With SOURCE and TARGET it opens with
    their match. Needs pip install 'glunet[view]'.

    Example: glunet view left.jpg right.jpg
    """
    if source is not None and target is None:
        raise GlunetError("One image came: glunet view takes two, a source and a target, or none.")
    from glunet.view.server import HOST, listen, make_server, match_pair, still_matching

    @cache
    def matcher() -> "Matcher":
        from glunet.loading import load

        return load(weights, device, search=search, polish=polish)

    with listen(port) as door:
        number = door.getsockname()[1]
        shown: dict[str, Any] | None = None
        if source is not None and target is not None:
            shown = match_pair(matcher(), ((source.name, source), (target.name, target)), longest)
        server = make_server(matcher, number, shown, longest=longest)
        typer.echo(f"http://{HOST}:{number}/ answers on this machine; Ctrl-C ends it.")
        with suppress(KeyboardInterrupt, SystemExit):
            server.run(sockets=[door])
        typer.echo("ended")
    if still_matching():  # Python's own end would break off torch's threads, which abort then
        sys.stdout.flush()
        os._exit(0)
