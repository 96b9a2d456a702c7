"""glunet bench: time and memory on this machine, beside what one would pick instead."""

import shlex
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from glunet.cli import options
from glunet.errors import GlunetError

SIZES = "256x256,520x520,375x1242"
ALL_SIZES = f"{SIZES},1080x1920"
SMALLEST, LARGEST = 32, 8192  # pixels a side

SizesOption = Annotated[
    str | None,
    typer.Option(help=f"HEIGHTxWIDTH, with commas between; by default {SIZES}.", show_default=False),
]
RowsOption = Annotated[
    str | None,
    typer.Option(
        help="What to compare, with commas between: exact, fast, match, twin, dis, raft-small, raft-large (these "
        "by default), published-exact, published-fast, published-twin; or 'all'.",
        show_default=False,
    ),
]
RepeatOption = Annotated[
    int | None, typer.Option(min=1, help="Rounds at each size, at most; by default 3.", show_default=False)
]
SecondsOption = Annotated[
    float | None,
    typer.Option(
        min=0.1,
        help="For the rounds of a size, about; what takes longer alone is left out; by default 15.",
        show_default=False,
    ),
]
BatchOption = Annotated[
    int | None,
    typer.Option(min=0, help="Pairs at once for the throughput; 0, the default, for none.", show_default=False),
]
MemoryOption = Annotated[bool, typer.Option("--memory/--no-memory", help="Start-up and memory, in fresh processes.")]
FullOption = Annotated[
    bool,
    typer.Option(
        "--full", help="1080x1920 as well, 5 rounds, 30 seconds, 4 pairs at once (on a GPU 16): some eight minutes."
    ),
]
JsonFileOption = Annotated[
    str | None, typer.Option("--json", help="All figures to this file, or '-' to print them alone.", metavar="FILE")
]


def bench(
    sizes: SizesOption = None,
    rows: RowsOption = None,
    weights: options.WeightsOption = "glunet",
    device: options.DeviceOption = None,
    repeat: RepeatOption = None,
    seconds: SecondsOption = None,
    batch: BatchOption = None,
    memory: MemoryOption = True,
    full: FullOption = False,
    json_file: JsonFileOption = None,
) -> None:
    """Measure time and memory here, beside a plain twin of the network, OpenCV's DIS and RAFT.

    Everything runs in turns in one process, so that ratios hold on a busy machine. It takes two minutes or so.

    Example: glunet bench
    """
    asked = parse_sizes(sizes or (ALL_SIZES if full else SIZES))
    if json_file not in (None, "-") and not Path(json_file).absolute().parent.is_dir():  # before minutes are spent
        raise GlunetError(f"'{json_file}' cannot be written: its folder is missing; make it, or choose another place.")
    from rich.console import Console

    from glunet.bench.measure import Settings, measure
    from glunet.bench.tables import left_out, machine_lines, tables
    from glunet.flow.files import write_json
    from glunet.loading import pick_device

    chosen = pick_device(device)
    settings = Settings(
        sizes=asked,
        device=chosen,
        weights=weights,
        rows=parse_rows(rows),
        repeat=repeat or (5 if full else 3),
        seconds=seconds or (30.0 if full else 15.0),
        batch=((16 if chosen.type == "cuda" else 4) if full else 0) if batch is None else batch,
        fresh=memory,
    )
    console, watcher = Console(), Console(stderr=True)
    with watcher.status("glunet bench") as status:
        result = measure(settings, lambda text: status.update(text))
    result["command"] = shlex.join(["glunet", *sys.argv[1:]])
    if json_file == "-":
        import json

        typer.echo(json.dumps(result, indent=1))
    else:
        for line in machine_lines(result):
            console.print(line, highlight=False, markup=False)
        for table in tables(result):
            console.print(table.rich())
        for line in left_out(result):
            console.print(f"left out: {line}", highlight=False, markup=False, soft_wrap=True)
    if json_file not in (None, "-"):
        write_json(Path(json_file), result)
        watcher.print(f"wrote {json_file}", soft_wrap=True)


def parse_sizes(text: str) -> tuple[tuple[int, int], ...]:
    """520x520,375x1242 -> ((520, 520), (375, 1242)): height first.

    Raises:
        GlunetError: anything else, or a side that no matcher takes.
    """
    sizes = []
    for word in text.replace(",", " ").split():
        height, _, width = word.lower().partition("x")
        if not (height.isdecimal() and width.isdecimal()):
            raise GlunetError(f"The size '{word}' is not understood: write HEIGHTxWIDTH in pixels, such as 375x1242.")
        if not all(SMALLEST <= int(side) <= LARGEST for side in (height, width)):
            raise GlunetError(f"The size '{word}' is out of range: a side has {SMALLEST} to {LARGEST} pixels here.")
        sizes.append((int(height), int(width)))
    if not sizes:
        raise GlunetError("No size was given: write HEIGHTxWIDTH in pixels, such as --sizes 520x520,375x1242.")
    return tuple(dict.fromkeys(sizes))


def parse_rows(text: str | None) -> tuple[str, ...]:
    """The names of `glunet.bench.rows.ROWS` that are asked for, in the order of the tables.

    Raises:
        GlunetError: if there is no such row.
    """
    from glunet.bench.rows import DEFAULT, ROWS

    if text is None:
        return DEFAULT
    names: Any = text.replace(",", " ").split()
    if names == ["all"]:
        return tuple(ROWS)
    unknown = [name for name in names if name not in ROWS]
    if unknown or not names:
        raise GlunetError(f"There is no row '{' '.join(unknown)}' to measure: choose of {', '.join(ROWS)}, or 'all'.")
    return tuple(name for name in ROWS if name in names)
