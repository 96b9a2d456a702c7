"""glunet train: photographs in, weights out."""

import dataclasses
import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glunet.errors import GlunetError

if TYPE_CHECKING:
    from rich.console import Console

    from glunet.network.family import Network
    from glunet.training.photographs import Photographs
    from glunet.training.pool import Batch
    from glunet.training.ranks import Alone
    from glunet.training.real import RealSet
    from glunet.training.recipes import Settings

FEWEST = 8  # photographs below which there is nothing to hold back

PhotosOption = Annotated[list[Path], typer.Argument(help="Folders or tar files with photographs; no labels.")]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder of the run: checkpoints, weights, log, report. Goes on if it holds one.")
]
InitOption = Annotated[
    str | None, typer.Option(help="Weights to start from (a name or a file), e.g. glunet; without, VGG-16 alone.")
]
NetworkOption = Annotated[
    str | None,
    typer.Option(
        help="glunet, semantic-glunet, local-net, global-net or glocal-net; by default what --init is, else glunet."
    ),
]
RecipeOption = Annotated[
    str | None,
    typer.Option(
        help="full (from VGG-16), finetune (few photographs of one's own kind), global (the global level alone, "
        "further), semantic (the same, from different things of one kind, too), fine (the others around it) or "
        "uncertainty (how far off the flow may be); by default finetune with --init, else full."
    ),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(
        min=0.01, help="How long; the schedule fits it. By default 120 (full), 30 (finetune), 40 to 80 (others)."
    ),
]
StepsOption = Annotated[int | None, typer.Option(min=1, help="Instead of minutes: how many steps, repeatable.")]
ValidationOption = Annotated[
    list[Path] | None, typer.Option(help="Photographs to validate on; by default one in twenty is held back.")
]
ValidateOnOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="SET=ROOT",
        help="A real set to validate on as well (glunet eval --list), e.g. hpatches-240=ROOT; all=ROOT for every "
        "set below ROOT; NAME:N=ROOT takes N pairs, 24 else. More than once for several.",
    ),
]
LrOption = Annotated[float | None, typer.Option(min=0, help="Peak learning rate.")]
EncoderLrOption = Annotated[
    float,
    typer.Option(min=0, help="Learning rate of the encoder; 0 leaves VGG-16 as it is, several times as fast."),
]
PhotometricOption = Annotated[
    float | None, typer.Option(min=0, max=2, help="Strength of the colour and light changes; 0 for none.")
]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default the best there is.")]
CompileOption = Annotated[bool, typer.Option("--compile", help="Decoders through torch.compile; on CUDA only.")]
Bf16Option = Annotated[
    bool | None, typer.Option("--bf16/--no-bf16", help="Compute in bfloat16; by default where that is faster.")
]
PreviewOption = Annotated[
    Path | None, typer.Option(help="Only draw a sheet of training pairs to this PNG file, and stop.")
]


def train(
    photos: PhotosOption,
    out: OutOption = None,
    init: InitOption = None,
    network: NetworkOption = None,
    recipe: RecipeOption = None,
    minutes: MinutesOption = None,
    steps: StepsOption = None,
    validation: ValidationOption = None,
    validate_on: ValidateOnOption = None,
    lr: LrOption = None,
    encoder_lr: EncoderLrOption = 0.0,
    photometric: PhotometricOption = None,
    seed: Annotated[int, typer.Option(help="Of everything random.")] = 0,
    device: DeviceOption = None,
    compile: CompileOption = False,
    bf16: Bf16Option = None,
    preview: PreviewOption = None,
) -> None:
    """Train on plain photographs: pairs with known flow are made from them on the fly.

    Example: glunet train my_photos --out run --init glunet --minutes 30
    """  # fmt: skip
    from rich.console import Console

    from glunet.loading import pick_device
    from glunet.training.ranks import join
    from glunet.training.recipes import for_network, for_time

    _check_out(out, preview, photos)
    settings = _settings(
        recipe or ("finetune" if init else "full"),
        minutes,
        steps,
        {"lr": lr, "photometric": photometric},
        seed=seed,
        encoder_lr=encoder_lr,
        compile=compile,
    )
    ranks = join(pick_device(device))
    # One of the processes that torchrun may have started speaks for all.
    console = Console(quiet=ranks.rank > 0, soft_wrap=True, highlight=False)
    photographs, held_back = _photographs(console, photos, validation)
    if preview is not None:
        from glunet.training.preview import write_preview

        numbers = write_preview(preview, photographs, settings)
        console.print(f"{preview}: {numbers}")
        return
    if out is None:
        raise GlunetError(
            "--out is missing; name the folder of the run (or --preview sheet.png to look at pairs first)."
        )
    settings = for_time(for_network(settings, _network(network, init)))
    from glunet.inference.speed import bfloat16_pays
    from glunet.training.real import open_real
    from glunet.training.state import read_state

    real = [one for text in validate_on or () for one in open_real(text)]
    for one in real:
        console.print(f"also validated on {one}")
    state = read_state(out / "state.pt") if ranks.rank == 0 else None
    if bf16 is None and ranks.rank == 0:  # a run goes on as it began
        bf16 = state["bf16"] if state and "bf16" in state else bfloat16_pays(ranks.device)
    settings = dataclasses.replace(settings, bf16=ranks.from_first(bf16))
    if state is not None:
        console.print(f"{out} holds a run: going on at step {state['step']}")
    elif init is not None:
        console.print(f"a warm restart from {init}: its weights, a new optimiser")
    _run(console, photographs, held_back, out, settings, ranks, init, real, state)


def _settings(
    recipe: str, minutes: float | None, steps: int | None, asked: dict[str, Any], **changes: Any
) -> "Settings":
    """The recipe's settings with these changes, and with those of the `asked` ones that are not None."""
    from glunet.training.recipes import RECIPES

    if recipe not in RECIPES:
        raise GlunetError(f"Recipe '{recipe}' is unknown; expected one of {', '.join(RECIPES)}.")
    if minutes is not None and steps is not None:
        raise GlunetError("Both --minutes and --steps are given; a run is bounded by one of them: leave one out.")
    lr = asked["lr"]
    if lr is not None and not lr > 0:
        raise GlunetError(f"--lr is {lr:g}, but a positive learning rate is expected, such as {RECIPES[recipe].lr:g}.")
    changes |= {} if minutes is None and steps is None else {"minutes": minutes, "steps": steps}
    changes |= {key: value for key, value in asked.items() if value is not None}
    return dataclasses.replace(RECIPES[recipe], **changes)


def _check_out(out: Path | None, preview: Path | None, photos: list[Path]) -> None:
    """What is wrong with where the results go, before anything is read: a later run must not learn from them either."""
    if out is not None and out.exists() and not out.is_dir():
        raise GlunetError(f"--out '{out}' is a file, but the folder of a run is expected: name another.")
    for option, path in (("--out", out), ("--preview", preview)):
        for folder in photos:
            if path is not None and folder.is_dir() and path.resolve().is_relative_to(folder.resolve()):
                raise GlunetError(
                    f"{option} '{path}' lies among the photographs in '{folder}', where its pictures would pass for "
                    "some: name a place outside."
                )


def _network(name: str | None, init: str | None) -> str:
    """The name of the network to train; what the weights to start from are, unless it is given."""
    from glunet.loading import read_network
    from glunet.network.family import FAMILY
    from glunet.training.recipes import LEVELS

    if name is not None and name not in FAMILY:
        raise GlunetError(f"Network '{name}' is unknown; expected one of {', '.join(LEVELS)}.")
    # A mistake is reported before a run has a folder.
    there = "glunet" if init is None else read_network(init)[0].config.network
    if init is not None and name not in (None, there) and (there, name) != ("glunet", "semantic-glunet"):
        raise GlunetError(f"Weights '{init}' are {there}'s; leave --network out, or give weights of {name}'s.")
    name = name or there
    if name not in LEVELS:
        raise GlunetError(f"{name} can be matched with but not trained; expected one of {', '.join(LEVELS)}.")
    return name


def _photographs(
    console: "Console", photos: list[Path], validation: list[Path] | None
) -> "tuple[Photographs, Photographs]":
    """What to learn from and what to hold back; what is wrong with the folder is reported first."""
    from glunet.inference.memory import human
    from glunet.training.photographs import Photographs, find

    photographs = Photographs(find(photos), _room())
    _check(console, photographs)
    needed, largest = photographs.needed, photographs.largest
    if validation:
        held_back = Photographs(find(validation), _room())
        _check(console, held_back)
    else:
        if len(photographs) < FEWEST:
            raise GlunetError(
                f"{len(photographs)} usable photographs; expected at least {FEWEST} (200 or more are better)."
            )
        held_back = Photographs(photographs.places[::20], photographs.memory)
        photographs = Photographs([p for i, p in enumerate(photographs.places) if i % 20], photographs.memory)
        photographs.needed = needed
    if not len(photographs) or not len(held_back):
        raise GlunetError("No usable photographs are left; see above what is wrong with them.")
    console.print(
        f"{len(photographs)} photographs to learn from, {len(held_back)} held back to validate on; the largest has "
        f"{largest[0]} x {largest[1]} pixels. Kept at {photographs.short_side} on their short side: {human(needed)}",
    )
    if needed > photographs.memory:
        console.print(
            f"Of these {human(photographs.memory)} stay in memory, the rest is decoded each time anew: smaller copies "
            f"of the photographs, {photographs.short_side} pixels on their short side, make that quicker.",
            style="yellow",
        )
    return photographs, held_back


def _room() -> int:
    """Bytes for decoded photographs: 4 GB, or a quarter of what is free."""
    import torch

    from glunet.inference.memory import available_bytes

    free = available_bytes(torch.device("cpu"))
    return 4 << 30 if free is None else min(4 << 30, free // 4)


def _say_costs(
    console: "Console", photographs: "Photographs", settings: "Settings", ranks: "Alone", state: dict[str, Any] | None
) -> None:
    """How long it takes until the first step, and memory that may not be enough."""
    import torch

    from glunet.inference.memory import available_bytes, human
    from glunet.training.estimate import memory, seconds_a_view, views_first

    views = views_first(settings, state, ranks.world, len(photographs))
    seconds = views * seconds_a_view(photographs, settings, ranks.device)
    console.print(
        f"the first step in about {max(1, round(seconds))} s: {round(views)} views are encoded before it "
        f"(in {'bfloat16' if settings.bf16 else 'float32'})",
    )
    free, needed = available_bytes(torch.device("cpu")), memory(settings, photographs)
    if ranks.device.type == "cpu" and free is not None and needed > free:
        console.print(
            f"This run may take {human(needed)} of memory, and {human(free)} is free: close other programs.",
            style="yellow",
        )


def _check(console: "Console", photographs: "Photographs", shown: int = 5) -> None:
    with console.status(f"looking through {len(photographs)} images"):
        complaints = photographs.check()
    if complaints:
        console.print(f"{len(complaints)} images left out, which cannot be read or are too small:", style="yellow")
        for complaint in complaints[:shown]:
            console.print("  " + complaint, style="yellow")
        if len(complaints) > shown:
            console.print(f"  ... and {len(complaints) - shown} more", style="yellow")


def _run(
    console: "Console",
    photographs: "Photographs",
    held_back: "Photographs",
    out: Path,
    settings: "Settings",
    ranks: "Alone",
    init: str | None,
    real: "list[RealSet]",
    state: dict[str, Any] | None,
) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

    from glunet.inference import memory
    from glunet.loading import read_network
    from glunet.training.loop import train as run_training
    from glunet.training.record import Record
    from glunet.training.report import draw_pairs, fixed_images, keep_the_better, write_report

    memory.keep()
    if ranks.rank > 0:
        run_training(photographs, held_back, out, settings, ranks.device, init, ranks=ranks)
        return
    _say_costs(console, photographs, settings, ranks, state)
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn(), TimeRemainingColumn())
    with Progress(*columns, console=console) as progress, Record(out) as record:
        task = progress.add_task("encoding the first scenes", total=1.0)

        def report(line: dict[str, Any]) -> None:
            record(line)
            if "motion" in line:
                progress.console.print(_figures(line, real))
            else:
                what = f"{line['stage']} · step {line['step']} · error {line['error']:.2f} px"
                progress.update(task, completed=line["progress"], description=what)

        images = fixed_images(held_back, ranks.device)

        def show(step: int, network: "Network", pairs: "Batch") -> None:
            record.pictures(step, draw_pairs(network, pairs, images))

        run_training(photographs, held_back, out, settings, ranks.device, init, report, real, show, ranks)
    weights = out / "weights.safetensors"
    if record.last.get("progress", 1.0) < 1 or not weights.exists():
        console.print(
            f"Stopped before the end; {out / 'state.pt'} has everything. The same command goes on from there:\n"
            f"    {_command()}",
        )
        return
    page, errors = write_report(out, held_back, weights, init, ranks.device)
    # GLU-Net's weights are no substitute for a semantic network that started from them, nor for one with a new head.
    same = init is not None and read_network(init)[0].config == read_network(weights)[0].config
    if same and errors[1] > errors[0]:
        last = keep_the_better(weights, init)
        console.print(
            f"On held-back photographs the new weights are worse than {init}: AEPE {errors[1]:.2f} px, before "
            f"{errors[0]:.2f}. {weights} holds those it started from, {last} the new ones. Give it more steps, or a "
            "lower --lr.",
            style="yellow",
        )
    console.print(f"weights  {weights}\nreport   {page}")
    console.print(f"use      glunet match SOURCE TARGET --out DIR --weights {weights}")


def _figures(line: dict[str, Any], real: "list[RealSet]") -> str:
    """A validation in one line."""
    finest = next(line[key] for key in ("aepe1", "aepe2", "aepe3", "aepe4") if key in line)
    text = f"step {line['step']}: AEPE {finest:.2f} px of 256 on held-back pairs (motion {line['motion']:.1f})"
    for one in real:
        key = f"{one.dataset.benchmark.name} {one.dataset.benchmark.metrics[0]}"
        if key in line:
            coarse = f" (level 4: {line[f'{key} level 4']:.2f})" if f"{key} level 4" in line else ""
            text += f"; {key.replace('aepe', 'AEPE')} {line[key]:.2f}{coarse}"
    return text


def _command() -> str:
    """What was typed, as a shell takes it."""
    return shlex.join(["glunet", *sys.argv[1:]])
