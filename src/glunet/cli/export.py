"""glunet export: the network as an ONNX file."""

from pathlib import Path
from typing import Annotated, Any

import typer

from glunet.cli import options
from glunet.errors import GlunetError


def export(
    out: Annotated[Path, typer.Argument(help="The file to write.", metavar="OUT.onnx")],
    size: Annotated[
        str | None, typer.Option(help="Of both images, in pixels; by default the file takes all sizes.", metavar="HxW")
    ] = None,
    dynamic: Annotated[
        bool, typer.Option("--dynamic", help="Targets of 32 to 527 px a side, sources of any size; the default.")
    ] = False,
    half: Annotated[bool, typer.Option("--half", help="Weights in 16 bits: half the file.")] = False,
    weights: options.WeightsOption = "glunet",
) -> None:
    """Write the network alone as ONNX: source and target in; flow and way back out. It takes a minute or two.

    The file's inputs are float32, 1 x 3 x H x W, RGB in 0..255. Search, polish, tiles and confidence are not in it.

    Example: glunet export glunet.onnx
    """
    from glunet.cli.bench import parse_sizes
    from glunet.inference.export import export as write
    from glunet.loading import load

    if size is not None and dynamic:
        raise GlunetError("--size and --dynamic say different things: give one of them.")
    sizes = None if size is None else parse_sizes(size)
    if sizes is not None and len(sizes) != 1:
        raise GlunetError(f"--size is {size}, but a file is for one size: give one, or --dynamic for all.")
    matcher = load(weights, "cpu", speed="exact", search="none", polish=False)
    network: Any = matcher.network
    away = write(network, matcher.settings, matcher.provenance.as_dict(), out, sizes and sizes[0], half)
    typer.echo(
        f"{out}: {out.stat().st_size / 1e6:.0f} MB, opset 18; 99 % of its flow within {away['99 %']:.1g} px of torch's"
    )
