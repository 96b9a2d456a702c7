"""glunet video: flow of a video's frames, as files and as films."""

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from glunet.cli import options
from glunet.cli.progress import progress
from glunet.errors import GlunetError

if TYPE_CHECKING:
    from glunet.matcher import Matcher
    from glunet.video.reader import Frames
    from glunet.video.run import Plan

FramesOption = Annotated[Path, typer.Argument(help="A video file, or a folder of images.", metavar="IN")]
OutOption = Annotated[Path, typer.Option(help="Folder for the results, made where it is missing.", metavar="DIR")]
AgainstOption = Annotated[
    int | None,
    typer.Option(help="Match each frame with this one, counted from 0; else with its neighbour.", metavar="FRAME"),
]
DirectionOption = Annotated[
    Literal["forward", "backward"],
    typer.Option(
        help="forward: the flow is on the earlier (or fixed) frame's grid and points into the later (or other) "
        "one; backward: the other way round."
    ),
]
FlowFormatOption = Annotated[
    Literal["flo", "png", "npz", "flo5", "none"],
    typer.Option("--format", help="Of the flow files: Middlebury's, KITTI's with 16 bits, NumPy's, Spring's; or none."),
]


class Film(StrEnum):
    """Words of --mp4: an enum, since typer takes no list of literals."""

    FLOW = "flow"
    WARPED = "warped"
    STABILISED = "stabilised"


Mp4Option = Annotated[
    list[Film] | None,
    typer.Option(
        help="A film: flow in colours, the source seen from the target, or stabilised; more than once for several."
    ),
]
FirstOption = Annotated[int, typer.Option("--from", help="First frame, counted from 0.", metavar="FRAME")]
LastOption = Annotated[int | None, typer.Option("--to", help="Last frame, included.", metavar="FRAME")]
EveryOption = Annotated[int, typer.Option(min=1, help="Take every so many frames only.", metavar="N")]
SizeOption = Annotated[
    int | None,
    typer.Option(help="Bring frames down to this longer side; flow and films are in its pixels.", metavar="PIXELS"),
]
FpsOption = Annotated[float | None, typer.Option(help="Frames a second of a folder of images; 25 by default.")]
SmoothOption = Annotated[
    float, typer.Option(help="Stabilised, without --against: quicker motion is shake.", metavar="SECONDS")
]
FlowMaxOption = Annotated[
    float | None,
    typer.Option(help="Length with full colour in the flow film; else the longest so far.", metavar="PIXELS"),
]
ResumeOption = Annotated[
    bool, typer.Option("--resume", help="Leave flow files alone that an earlier run of this command made.")
]


def video(
    frames: FramesOption,
    out: OutOption,
    against: AgainstOption = None,
    direction: DirectionOption = "forward",
    flow_format: FlowFormatOption = "flo",
    mp4: Mp4Option = None,
    first: FirstOption = 0,
    last: LastOption = None,
    every: EveryOption = 1,
    size: SizeOption = None,
    fps: FpsOption = None,
    smooth: SmoothOption = 1.0,
    flow_max: FlowMaxOption = None,
    keep_going: options.KeepGoingOption = False,
    resume: ResumeOption = False,
    weights: options.WeightsOption = "glunet",
    device: options.DeviceOption = None,
    search: options.SearchOption = None,
    polish: options.PolishOption = None,
    plane: options.PlaneOption = None,
    confidence: options.ConfidenceOption = True,
) -> None:
    """Flow of consecutive frames, or of each frame against a fixed one; files for each pair, and films.

    DIR gets 000000-to-000001.flo and so on (TARGET-to-SOURCE: on the target's grid, pointing into the source), films
    named by their kind, and video.json: what each file is, how sure, and which frames were broken. Files of the same
    names are replaced. The memory taken does not grow with the length of the video.

    Example: glunet video in.mp4 --out result --mp4 flow --mp4 stabilised
    """
    films = tuple(film.value for film in dict.fromkeys(mp4 or ()))
    from glunet.flow.files import FLOW_SUFFIXES
    from glunet.loading import load
    from glunet.video.reader import open_frames
    from glunet.video.run import LIST, Plan

    suffix = "" if flow_format == "none" else f".{flow_format}"
    assert not suffix or suffix in FLOW_SUFFIXES
    opened = open_frames(frames, fps)
    if out.exists() and not out.is_dir():
        raise GlunetError(f"'{out}' is a file, but a folder is expected: choose another name.")
    wanted = range(first, (opened.count - 1 if last is None else last) + 1, every)
    limits = smooth, flow_max, keep_going, resume
    plan = Plan(wanted, against, direction, size, confidence, suffix, films, *limits, search)
    if (out / LIST).exists() and not resume:
        typer.echo(f"glunet: '{out}' holds results already; files of the same names are replaced.", err=True)
    content = _watched(load(weights, device, search=search, polish=polish, plane=plane), opened, out, plan)
    _tell(content, out, films, size)


def _tell(content: dict[str, Any], out: Path, films: tuple[str, ...], size: int | None) -> None:
    """What was written, and what a user should know of it."""
    from glunet.video.run import LIST

    written = [pair["file"] for pair in content["pairs"] if "file" in pair]
    if written:
        typer.echo(f"{out / written[0]} ... {out / written[-1]} ({len(written)} files)")
    for film in films:
        typer.echo(out / f"{film}.mp4")
    typer.echo(out / LIST)
    height, width = content["flow_size"] or (0, 0)
    if films and (height % 2 or width % 2):
        typer.echo("glunet: the films have one row or column more than the frames: their sides must be even.", err=True)
    if size is not None and height:
        typer.echo(f"glunet: flow and films are in pixels of {width} x {height}.", err=True)


def _watched(matcher: "Matcher", frames: "Frames", out: Path, plan: "Plan") -> dict[str, Any]:
    """`glunet.video.run` with a progress bar and the time left on stderr, and a line for each problem."""
    from glunet.video.run import run

    with progress() as bar:
        tasks: dict[str, Any] = {}

        def watch(doing: str, done: int, total: int, problem: str) -> None:
            if doing not in tasks:
                tasks[doing] = bar.add_task(doing, total=total)
            bar.update(tasks[doing], completed=done, total=total)
            if problem:
                bar.console.print(f"glunet: passed over {problem}")

        return run(matcher, frames, out, plan, watch)
