"""Options that several commands share; what their words may be the matcher says."""

from typing import Annotated, Any

import typer

WeightsOption = Annotated[str, typer.Option("--weights", help="Weights: a name in the package, or a file.")]
DeviceOption = Annotated[
    str | None, typer.Option("--device", help="cpu, cuda, mps, ...; by default the best there is.")
]
ConfidenceOption = Annotated[
    bool, typer.Option("--confidence/--no-confidence", help="Match both ways, to tell how far to trust it.")
]
KeepGoingOption = Annotated[
    bool, typer.Option("--keep-going", help="Name images that cannot be read, and pass over them, instead of ending.")
]

# None: what the weights were made for. Typed Any, since the words are checked where they are used (`glunet.load`).
SearchOption = Annotated[
    Any,
    typer.Option(
        "--search",
        help="none, auto (find pairs that one pass loses) or full (try everything); by default as the weights say.",
        show_default=False,
        metavar="HOW",
        parser=str,
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
SpeedOption = Annotated[
    Any,
    typer.Option(
        "--speed",
        help="auto (bfloat16 where that pays here) or exact (float32); by default as the weights say.",
        show_default=False,
        metavar="HOW",
        parser=str,
    ),
]
