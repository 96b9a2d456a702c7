"""Methods by name, and the two that are networks: glunet itself and torchvision's RAFT."""

import ast
import copy
import hashlib
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from glunet import __version__
from glunet.errors import GlunetError, needed
from glunet.evaluation.baselines import (
    Dis,
    Farneback,
    Flow,
    Identity,
    Image,
    Method,
    OneByOne,
    SiftHomography,
    frame_to_source,
)

if TYPE_CHECKING:
    from torch import Tensor

    from glunet.inference.polish import Polish
    from glunet.inference.search import Search
    from glunet.inference.speed import Speed
    from glunet.matcher import Matcher

NAMES = ("glunet", "network", "identity", "sift", "dis", "farneback", "raft")
DEFAULT = ("glunet", "network", "dis", "sift", "identity")


def method(
    name: str,
    weights: str | Path = "glunet",
    device: str | None = None,
    speed: "Speed | None" = None,
    flipping: bool | None = None,
    search: "Search | None" = None,
    polish: "Polish | None" = None,
    enlarge_to: int | None = None,
) -> Method:
    """A method by its name on the command line.

    Args:
        name: one of `NAMES`.
        weights, device, speed, search, polish, enlarge_to: for "glunet" and "network", as `glunet.load` takes them;
            "network" is without search and polish always. The device also for "raft".
        flipping: for the two, try the mirrored target as well (`glunet.load`); None where the protocol does.

    Raises:
        GlunetError: no such name, or what it needs is not on this machine.
    """
    if name in ("glunet", "network"):
        from glunet import loading

        around: dict[str, Any] = {"search": search, "polish": polish, "enlarge_to": enlarge_to}
        if name == "network":
            around |= {"search": "none", "polish": False}
        matcher = loading.load(weights, device, flipping=bool(flipping), speed=speed, **around)
        return Glunet(matcher, may_flip=flipping is None, name=name)
    if name == "raft":
        return Raft(device)
    baselines = {"identity": Identity, "sift": SiftHomography, "dis": Dis, "farneback": Farneback}
    if name not in baselines:
        raise GlunetError(f"no method {name!r}; there are {', '.join(NAMES)}.")
    return baselines[name]()


class Glunet:
    """The network, through a matcher; pairs of one size go through it together on a GPU.

    Weights that were never saved have no hash: their predictions must not be kept, so use no cache then. Encodings are
    remembered: make a new one when the weights have changed.

    Args:
        matcher: is left as it is.
        batch: pairs at once; by default 8 on a GPU. On a CPU it is one: one pair fills the cores, more the memory.
        bfloat16: as the matcher would at speed "fast", for quick looks at checkpoints.
        may_flip: try mirrored targets where a benchmark's protocol does.
    """

    def __init__(
        self,
        matcher: "Matcher",
        batch: int | None = None,
        bfloat16: bool = False,
        may_flip: bool = True,
        name: str = "glunet",
    ) -> None:
        self.name = name
        made_by, device = matcher.provenance, matcher.device.type
        if bfloat16:
            matcher = matcher.with_(speed="fast")
            made_by = matcher.provenance
        # A network without a global level cannot tell mirrored pairs.
        self.may_flip = may_flip and matcher.network.config.network != "local-net"
        self.batch = batch or (1 if device == "cpu" else 8)
        if device == "cpu":
            from glunet.evaluation.encoding import remembering

            matcher = remembering(matcher)
        self.matcher = matcher
        self.identity = "-".join(("glunet", made_by.sha256 or "unsaved", code_version(), device, str(made_by.settings)))

    def match_many(self, pairs: list[tuple[Image, Image]]) -> list[Flow]:
        if self.matcher.settings.search != "none" or self.matcher.settings.polish:
            return [self.matcher.match(*pair, confidence=False).flow for pair in pairs]
        import torch

        from glunet.flow.geometry import as_array, as_tensor

        source, target = (torch.cat([as_tensor(pair[i]) for pair in pairs]).to(self.matcher.device) for i in (0, 1))
        return [as_array(flow) for flow in self.matcher.flow(source, target)]

    def with_flipping(self) -> Method:
        if not self.may_flip or self.matcher.settings.flipping:
            return self
        twin = copy.copy(self)
        twin.matcher = self.matcher.with_(flipping=True)
        twin.identity = f"{self.identity}-flipping"
        return twin


class Raft(OneByOne):
    """torchvision's RAFT (large), when it and its weights are on this machine: nothing is downloaded."""

    name = "RAFT"

    def __init__(self, device: str | None = None) -> None:
        with needed("RAFT needs torchvision", "raft"):
            from torchvision.models.optical_flow import Raft_Large_Weights, raft_large
        import torch

        weights = Raft_Large_Weights.C_T_SKHT_V2
        path = Path(torch.hub.get_dir()) / "checkpoints" / Path(weights.url).name
        if not path.is_file():
            raise GlunetError(f"RAFT's weights are not on this machine; expected {path}, which is {weights.url}.")
        self.device = torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))
        self.network: Any = raft_large()
        self.network.load_state_dict(torch.load(path, map_location="cpu", weights_only=True))
        self.network.to(self.device).eval()
        self.identity = f"raft-1-{path.stem}-{self.device.type}"

    def match(self, source: Image, target: Image) -> Flow:
        import torch

        from glunet.flow.geometry import as_array, as_tensor, resize_area

        ours, theirs = (as_tensor(image).float().to(self.device) for image in (target, source))
        with torch.inference_mode():
            flow = raft_flow(self.network, ours, resize_area(theirs, target.shape[:2]))
        return frame_to_source(as_array(flow[0].float()), source.shape[:2])


def raft_flow(network: Any, target: "Tensor", source: "Tensor") -> "Tensor":
    """The flow by torchvision's RAFT, of images B x 3 x H x W in 0..255.

    They are padded to multiples of 8, and to 128 px at least, for its pyramid of correlations.
    """
    from torch.nn import functional as F

    height, width = target.shape[-2:]
    padding = (0, max(128, -(-width // 8) * 8) - width, 0, max(128, -(-height // 8) * 8) - height)
    padded = (F.pad(image / 127.5 - 1, padding, mode="replicate") for image in (target, source))
    return network(*padded)[-1][..., :height, :width]


# The folders that a flow hangs on, "." for the modules on the ground.
FLOORS = (".", "images", "flow", "geometry", "network", "network/backends", "inference")


@cache
def code_version(package: Path = Path(__file__).parents[1]) -> str:
    """The package's version and a hash of the code that a prediction hangs on, without comments and docstrings."""
    digest = hashlib.blake2b(digest_size=6)
    for path in sorted(path for floor in FLOORS for path in (package / floor).glob("*.py")):
        tree = ast.parse(path.read_text(encoding="utf-8"))
        for node in ast.walk(tree):
            if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node, clean=False):
                node.body = node.body[1:]
        digest.update(ast.dump(tree).encode())
    return f"{__version__}-{digest.hexdigest()}"
