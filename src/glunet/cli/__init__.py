"""The command `glunet`. One module a command; what is heavy they import when they run, so that --help is quick."""

import logging
import signal
import sys
import threading
from collections.abc import Callable
from typing import Any, NoReturn

import typer

from glunet import __version__
from glunet.cli import batch, bench, colmap, convert, export, geo, info, match, pairs, train, video, view
from glunet.cli import eval as eval_command
from glunet.errors import GlunetError

# Typer has a click of its own from 0.27 or so on, so that the class is found by what inherits from it.
UsageError: Any = typer.BadParameter.__base__

app = typer.Typer(
    help="For every pixel of one image, where it is in another.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
# In the order of --help.
COMMANDS: dict[str, Callable[..., None]] = {
    "match": match.match,
    "train": train.train,
    "eval": eval_command.evaluate,
    "bench": bench.bench,
    "convert": convert.convert,
    "export": export.export,
    "info": info.info,
    "view": view.view,
    "video": video.video,
    "colmap": colmap.colmap,
    "pairs": pairs.pairs,
    "batch": batch.batch,
    "geo": geo.geo,
}
for name, command in COMMANDS.items():
    app.command(name)(command)


def _version(asked: bool) -> None:
    if asked:
        typer.echo(f"glunet {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    verbose: bool = typer.Option(False, "--verbose", "-v", help="Say what is done, on stderr."),
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Which version this is."),
) -> None:
    """For every pixel of one image, where it is in another.

    Example: glunet match source.jpg target.jpg --out result
    """
    if verbose:
        logging.basicConfig(level=logging.INFO, format="%(name)s: %(message)s")


def main() -> NoReturn:
    """Runs the command line. A user's mistake is one sentence on stderr and exit code 2, without a traceback.

    SIGTERM (of Slurm, docker stop, timeout) ends a command as Ctrl-C does: what is half written is removed.
    """
    alone = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, _terminated) if alone else None
    try:
        code = app(prog_name="glunet", standalone_mode=False)
    except GlunetError as error:
        _fail(str(error))
    except typer.Abort:
        raise SystemExit(130) from None
    except UsageError as error:
        message = error.format_message().replace("Value error, ", "").rstrip(".")
        if message.startswith("Usage:"):  # of `glunet` without a command
            print(message, file=sys.stderr)
            raise SystemExit(2) from None
        command = error.ctx.command_path if error.ctx else "glunet"
        _fail(f"{message}. '{command} --help' shows more.")
    except OSError as error:
        # What the commands did not foresee: a folder without rights, a full disk.
        where = f" '{error.filename}'" if error.filename else ""
        _fail(f"The system refused{where} ({error.strerror or error}): check the path, its rights and the space left.")
    finally:
        if alone:
            signal.signal(signal.SIGTERM, before)
    raise SystemExit(code or 0)


def _terminated(number: int, frame: object) -> None:
    raise SystemExit(128 + number)


def _fail(sentence: str) -> NoReturn:
    print(f"glunet: {' '.join(sentence.split())}", file=sys.stderr)
    raise SystemExit(2)
