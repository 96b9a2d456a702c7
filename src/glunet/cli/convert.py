"""glunet convert: an official checkpoint becomes a file of ours."""

from pathlib import Path
from typing import Annotated

import typer


def convert(
    official: Annotated[Path, typer.Argument(help="A checkpoint of the authors', .pth.", metavar="OFFICIAL")],
    out: Annotated[Path, typer.Argument(help="The file to write.", metavar="OUT.safetensors")],
    half: Annotated[bool, typer.Option("--half", help="float16: half the size, slightly other flow.")] = False,
) -> None:
    """Write an official checkpoint of the GLU-Net family as safetensors, every tensor accounted for.

    Its network is recognised by its tensors: GLU-Net, Semantic-GLU-Net, LOCAL-Net, GLOBAL-Net or GLOCAL-Net.

    Example: glunet convert GLUNet_DPED_CityScape_ADE.pth authors.safetensors
    """
    from glunet.cli import conversion

    found = conversion.convert(official, out, half)
    counts = ", ".join(f"{count} {what}" for what, count in found["tensors"].items() if count)
    typer.echo(f"{found['network']}, {found['parameters']:,} parameters; tensors: {counts}")
    typer.echo(f"wrote {out}")
