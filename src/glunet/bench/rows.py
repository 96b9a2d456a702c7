"""What is compared: a name, a title, and how to make of it something that is given a pair and computes its flow."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from glunet import loading
from glunet.bench.twin import PlainTwin
from glunet.errors import GlunetError, needed
from glunet.evaluation.baselines import Dis
from glunet.evaluation.methods import raft_flow
from glunet.flow.geometry import as_array
from glunet.inference.memory import available_bytes, human
from glunet.inference.speed import Speed, full_precision
from glunet.network.glunet import GLUNet, GLUNetConfig


@dataclass(frozen=True)
class Pair:
    """A batch of pairs of one size, in the form that each row takes them.

    Attributes:
        source, target: B x 3 x H x W uint8 on the device.
        source_array, target_array: the first pair, H x W x 3 uint8.
    """

    source: Tensor
    target: Tensor
    source_array: np.ndarray
    target_array: np.ndarray


@dataclass(frozen=True)
class Row:
    """One line of the tables.

    Attributes:
        title: as it is shown.
        make: (weights, device) -> what takes a `Pair`.
        published: whether it runs the published decoders with random weights instead of the weights asked for.
        batches: whether it takes several pairs at once.
        bytes: (height, width) -> what it is known to need, for what would not fit.
    """

    title: str
    make: Callable[[Path | str, torch.device], Callable[[Pair], Any]]
    published: bool = False
    batches: bool = False
    bytes: Callable[[int, int], int] = lambda height, width: 0


class Flow:
    """A flow through a matcher or plain; `network()` is the module whose stages can be timed separately, or None."""

    def __init__(self, run: Callable[[Tensor, Tensor], Tensor], network: Callable[[], Any] = lambda: None) -> None:
        self.run, self.network = run, network

    @torch.inference_mode()
    def __call__(self, pair: Pair) -> Tensor:
        return self.run(pair.source, pair.target)


def make(name: str, weights: Path | str, device: torch.device) -> Callable[[Pair], Any]:
    """What the row of this name times.

    Raises:
        GlunetError: if what it needs is not on this machine, or the weights cannot be used.
    """
    return ROWS[name].make(weights, device)


def make_pair(height: int, width: int, device: torch.device, batch: int = 1, seed: int = 0) -> Pair:
    """Smooth noise, and it again some pixels to the side: time does not depend on what is in the images."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand((batch, 3, height // 16 + 2, width // 16 + 2), generator=generator)
    picture = F.interpolate(coarse, size=(height + 8, width + 8), mode="bicubic").clamp(0, 1).mul(255).byte()
    source = picture[..., :height, :width].contiguous()
    target = picture[..., 8:, 8:].contiguous()
    arrays = [as_array(image[0]) for image in (source, target)]
    return Pair(source.to(device), target.to(device), *arrays)


def save_published(path: Path) -> None:
    """Random weights for GLU-Net with the published settings, as a file that `glunet.load` takes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = GLUNet(GLUNetConfig())
    loading.save_weights(path, loading.network_state(network), network.config, {})


def _glunet(speed: Speed, as_shipped: bool = False) -> Callable[[Path | str, torch.device], Callable[[Pair], Any]]:
    """Without `as_shipped` what the plain twin computes: the paper's one pass, without a pyramid."""
    paper: dict[str, Any] = {
        "pyramid": False,
        "passes": 1,
        "enlarge_to": 0,
        "anchor": False,
        "ensemble": False,
        "looks": 1,
    }

    def build(weights: Path | str, device: torch.device) -> Callable[[Pair], Any]:
        matcher = loading.load(weights, device, speed=speed, **({} if as_shipped else paper))
        return Flow(matcher.flow, lambda: matcher.computation.inference)

    return build


def _match(weights: Path | str, device: torch.device) -> Callable[[Pair], Any]:
    matcher = loading.load(weights, device)
    return lambda pair: matcher.match(pair.source_array, pair.target_array)


def _twin(weights: Path | str, device: torch.device) -> Callable[[Pair], Any]:
    network, _ = loading.read_weights(weights)
    if network.config.network != "glunet":
        raise GlunetError(f"the plain twin is of GLU-Net, but these weights are {network.config.network}'s.")
    twin = PlainTwin(network.config)
    twin.take(network.state_dict())
    twin = twin.to(device).eval()

    def run(source: Tensor, target: Tensor) -> Tensor:
        with full_precision(device, "exact"):  # float32 in earnest, on a GPU too
            return twin(source, target)

    return Flow(run, lambda: twin)


def _dis(weights: Path | str, device: torch.device) -> Callable[[Pair], Any]:
    dis = Dis()
    return lambda pair: dis.match(pair.source_array, pair.target_array)


def _raft(size: str) -> Callable[[Path | str, torch.device], Callable[[Pair], Any]]:
    def build(weights: Path | str, device: torch.device) -> Callable[[Pair], Any]:
        try:
            with needed("it needs torchvision", "raft"):
                module = importlib.import_module("torchvision.models.optical_flow")
        except RuntimeError as error:
            raise GlunetError(f"torchvision does not fit this torch ({str(error).splitlines()[0]}).") from error
        network: Any = getattr(module, f"raft_{size}")(weights=None).to(device).eval()

        return Flow(lambda source, target: raft_flow(network, target, source))

    return build


def _raft_bytes(height: int, width: int) -> int:
    """Its correlation of all positions with all others, pooled copies, one more while they are made; and a reserve."""
    positions = max(16, -(-height // 8)) * max(16, -(-width // 8))
    return 13 * positions**2


def check_memory(name: str, height: int, width: int, device: torch.device) -> None:
    """Whether it fits, as far as that is known.

    Raises:
        GlunetError: if the row is known to need more than there is.
    """
    available, needed = available_bytes(device), ROWS[name].bytes(height, width)
    if available is not None and needed > available:
        raise GlunetError(f"it would need {human(needed)} of memory, but {human(available)} is available.")


ROWS: dict[str, Row] = {
    "exact": Row("glunet, exact", _glunet("exact"), batches=True),
    "fast": Row("glunet, fast", _glunet("fast"), batches=True),
    "shipped-exact": Row("glunet, exact, default settings", _glunet("exact", as_shipped=True), batches=True),
    "shipped-fast": Row("glunet, fast, default settings", _glunet("fast", as_shipped=True), batches=True),
    "match": Row("glunet, match()", _match),
    "twin": Row("plain twin", _twin, batches=True),
    "published-exact": Row("published, exact", _glunet("exact"), published=True),
    "published-fast": Row("published, fast", _glunet("fast"), published=True),
    "published-twin": Row("published, plain twin", _twin, published=True),
    "dis": Row("OpenCV DIS, medium", _dis),
    "raft-small": Row("RAFT small", _raft("small"), bytes=_raft_bytes),
    "raft-large": Row("RAFT large", _raft("large"), bytes=_raft_bytes),
}
DEFAULT = tuple(name for name, row in ROWS.items() if not row.published)


def twin_of(name: str) -> str:
    """The row that this one's ratios are to."""
    return "published-twin" if ROWS[name].published else "twin"
