"""glunet: for every pixel of one image, where it is in another::

    import glunet

    matcher = glunet.load()
    match = matcher.match("source.jpg", "target.jpg")

Names are imported when they are first used: `import glunet` alone does not import torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from glunet.errors import GlunetError

if TYPE_CHECKING:
    from glunet.loading import load, weights
    from glunet.match import Match
    from glunet.matcher import Matcher

# Here and nowhere else; CHANGELOG.md and CITATION.cff are checked against it.
__version__ = "0.2.0"

__all__ = ["GlunetError", "Match", "Matcher", "__version__", "load", "weights"]

# The module is not called "weights": importing it would put the module where the function `glunet.weights` belongs.
_WHERE = {
    "Match": "glunet.match",
    "Matcher": "glunet.matcher",
    "load": "glunet.loading",
    "weights": "glunet.loading",
}


def __getattr__(name: str) -> Any:
    if name not in _WHERE:
        raise AttributeError(f"module 'glunet' has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_WHERE[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
