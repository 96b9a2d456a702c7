"""What an extra brings: libraries that not every install has."""

from collections.abc import Iterator
from contextlib import contextmanager

from glunet.errors import GlunetError


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
