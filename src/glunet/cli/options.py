"""Options that several commands share; what their words may be the matcher says."""

from typing import Annotated, Any

import typer

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
