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


def by_weights(flag: str, what: str, **more: Any) -> Any:
    """An option that is None where it is not given: the weights know what they were made for."""
    return typer.Option(flag, help=f"{what}; by default as the weights say.", show_default=False, **more)


SearchOption = Annotated[
    Literal["none", "auto", "full"] | None,
    by_weights("--search", "Look for pairs that one pass loses: never, where needed, or by everything there is"),
]
PolishOption = Annotated[
    bool | None, by_weights("--polish/--no-polish", "Sharpen by the images themselves, everywhere or nowhere")
]
PlaneOption = Annotated[
    bool | None,
    by_weights("--plane/--no-plane", "Give a scene that is one plane (a wall, a page) the flow of its homography"),
]
SpeedOption = Annotated[
    Literal["auto", "exact", "fast"] | None,
    by_weights("--speed", "bfloat16 where that pays here (auto; fast is the same), or float32 (exact)"),
]
EnlargeOption = Annotated[
    int | None,
    by_weights(
        "--enlarge-to",
        "Match targets of fewer pixels than a square of this side in a frame of so many, at most twice as high and "
        "wide: sharper small motion, for as much more time (640, say; 0: frames as in the paper, rounded down)",
        metavar="PX",
        min=0,
    ),
]


def asked(**settings: Any) -> dict[str, Any]:
    """The settings that were given; the others are as the weights say."""
    return {name: value for name, value in settings.items() if value is not None}
