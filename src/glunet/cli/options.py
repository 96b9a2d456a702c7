"""Options that several commands share."""

from pathlib import Path
from typing import Annotated, Any, Literal

import typer

WeightsOption = Annotated[str, typer.Option("--weights", help="Weights: a name in the package, or a file.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, mps, ...; by default the best there is.")
]
ConfidenceOption = Annotated[bool, typer.Option("--confidence/--no-confidence", help="Tell how far to trust it.")]
KeepGoingOption = Annotated[
    bool, typer.Option("--keep-going", help="Name images that cannot be read, and pass over them, instead of ending.")
]

FlowFormat = Literal["flo", "png", "npz", "flo5"]
PairsFileOption = Annotated[
    Path | None, typer.Option("--pairs", help="Text file, two names a line: match these pairs.", metavar="FILE")
]
WindowOption = Annotated[
    int | None,
    typer.Option("--window", help="Each image with the next N, by name: for a walk or a video.", metavar="N"),
]

# None: what the weights were made for.
SearchOption = Annotated[
    Literal["none", "auto", "full"] | None,
    typer.Option(
        "--search",
        help="Look for pairs that one pass loses: never, where needed, or by everything there is; by default as the "
        "weights say.",
        show_default=False,
    ),
]
PolishOption = Annotated[
    bool | None,
    typer.Option(
        "--polish/--no-polish",
        help="Sharpen by the images themselves; by default where they look alike, if the weights say so.",
        show_default=False,
    ),
]
PlaneOption = Annotated[
    bool | None,
    typer.Option(
        "--plane/--no-plane",
        help="Give a scene that is one plane (a wall, a page) the flow of its homography; by default as the weights "
        "say.",
        show_default=False,
    ),
]
SpeedOption = Annotated[
    Literal["auto", "exact", "fast"] | None,
    typer.Option(
        "--speed",
        help="bfloat16 where that pays here (auto; fast is the same), or float32 (exact); by default as the weights "
        "say.",
        show_default=False,
    ),
]

EnlargeOption = Annotated[
    int | None,
    typer.Option(
        "--enlarge-to",
        help="Match targets of fewer pixels than a square of this side in a frame of so many, at most twice as high "
        "and wide: sharper small motion, for as much more time. 640, say. 0: frames as in the paper, rounded down.",
        show_default=False,
        metavar="PX",
        min=0,
    ),
]


def asked(**settings: Any) -> dict[str, Any]:
    """The settings that were given; the others are as the weights say."""
    return {name: value for name, value in settings.items() if value is not None}
