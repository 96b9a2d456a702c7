"""glunet info: what is installed, the weights and what they reach, and where it can compute."""

import platform
from typing import Annotated, Any

import typer


def info(
    file: Annotated[
        str | None, typer.Argument(help="Weights to describe: a name, a file of ours or an official one.")
    ] = None,
) -> None:
    """Version, weights with their numbers and licence, and the devices of this machine; or what FILE holds.

    Example: glunet info
    """
    if file is not None:
        from glunet.cli.conversion import describe

        for key, value in describe(file).items():
            _echo(key, f"{value:,}" if isinstance(value, int) else value, 0)
        return
    import torch

    from glunet import __version__
    from glunet.inference.memory import available_bytes, human
    from glunet.loading import weights

    typer.echo(f"glunet {__version__}, torch {torch.__version__}, Python {platform.python_version()}")
    typer.echo("\nDevices")
    memory = available_bytes(torch.device("cpu"))
    typer.echo(f"  cpu     {torch.get_num_threads()} threads{f', {human(memory)} free' if memory else ''}")
    for index in range(torch.cuda.device_count()):
        free, total = torch.cuda.mem_get_info(index)
        typer.echo(f"  cuda:{index}  {torch.cuda.get_device_name(index)}, {human(free)} of {human(total)} free")
    if torch.backends.mps.is_available():
        typer.echo("  mps     Apple's GPU")
    typer.echo("\nWeights (--weights NAME)")
    for name, metadata in weights().items():
        size = f"{metadata['bytes'] / 1e6:.1f} MB"
        typer.echo(f"  {name}  {size}, sha256 {metadata['sha256'][:16]}")
        for key, value in metadata.items():
            if key in ("confidence", "learned"):  # how well it holds; its table is for programs
                _echo(key, value.get("fitted", {}), 4)
            elif key not in ("bytes", "sha256", "name"):
                _echo(key, value, 4)


def _echo(key: str, value: Any, indent: int) -> None:
    label = " " * indent + str(key).replace("_", " ")
    if isinstance(value, dict):
        typer.echo(label)
        for inner, content in value.items():
            _echo(inner, content, indent + 2)
    else:
        typer.echo(f"{label}: {value}")
