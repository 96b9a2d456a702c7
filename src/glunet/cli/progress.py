"""One progress bar for all commands that take long."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def progress(running: bool = False) -> "Progress":
    """A bar on stderr, with what is done, how many of how many, the time so far and the time left; gone at the end.

    Where stderr is no terminal nothing is drawn; its `console` prints lines beside it. With `running` each task has a
    field of that name, which is shown as well.
    """
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        Progress,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )

    console = Console(stderr=True, soft_wrap=True, highlight=False, markup=False)
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        *([TextColumn("{task.fields[running]}")] if running else []),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )
