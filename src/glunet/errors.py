"""The one exception a user's mistake raises."""

from collections.abc import Iterator
from contextlib import contextmanager


class GlunetError(ValueError):
    """A user's mistake, explained in one sentence: what came, what was expected, what to do.

    The command line prints the sentence and ends with exit code 2; nothing else of the package prints or exits.
    """


@contextmanager
def needed(need: str, extra: str) -> Iterator[None]:
    """Around the import of a library: where that is missing, an error tells what for and how to have it.

    Args:
        need: who needs which library, "Video needs PyAV".
        extra: of this package, which brings it.

    Raises:
        GlunetError: if it is not installed.
    """
    try:
        yield
    except ImportError as error:
        missing = f" ({error.name} is missing)" if error.name else ""
        raise GlunetError(f"{need}{missing}: pip install 'glunet[{extra}]'.") from error
