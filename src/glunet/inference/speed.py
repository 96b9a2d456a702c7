"""How a matcher computes: "exact" or "fast", on this device; "auto" is "fast" where that pays.

Both use a twin of the network made for inference (`backends.folding`), on a CPU with an encoder that goes through the
image in strips (`backends.strips`, both in `glunet.network`). "exact" is float32 throughout and differs from the
trainable network by rounding. "fast" computes the encoder and the finest level's decoder and refinement, which together
are nine tenths of the work, in bfloat16 (float16 on a GPU without it), where a measurement says that this is faster
here. Heads, flow, coordinates, correlations and the coarse levels stay in float32: their decoders in bfloat16 were a
tenth of the time of the encoder, and five times its error.
"""

import copy
import itertools
import time
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.errors import GlunetError
from glunet.network.backends.folding import folded
from glunet.network.backends.strips import StripPyramid
from glunet.network.encoder import VGG16Pyramid
from glunet.network.family import Network

Speed = Literal["auto", "fast", "exact"]
SPEEDS = get_args(Speed)


def resolved(speed: Speed, device: torch.device) -> Speed:
    """ "fast" or "exact": what "auto", and its synonym "fast", come to on this device.

    Raises:
        GlunetError: another word.
    """
    if speed not in SPEEDS:
        raise GlunetError(f"speed={speed!r} came: it is one of {', '.join(map(repr, SPEEDS))}.")
    return "exact" if speed == "exact" or low_precision(device) == torch.float32 else "fast"


def for_inference(network: Network, speed: Speed) -> Network:
    """The network's twin that a matcher computes with, where the network is.

    It shares with the network what is the same in both. In float32 the global level's decoder stays as it is, for what
    `StripPyramid` says.
    """
    device = next(network.parameters()).device
    dtype = low_precision(device) if speed == "fast" else torch.float32
    made: Any = folded(network, but=("decoder4",) if dtype == torch.float32 else ())
    if dtype != torch.float32:
        finest = 1 if "decoder1" in network._modules else 2
        for part in (f"decoder{finest}", f"refinement{finest}"):
            if part in network._modules:
                made._modules[part] = folded(network.get_submodule(part), dtype)
    if isinstance(network.encoder, VGG16Pyramid):
        made.encoder = StripPyramid(network.encoder, dtype) if device.type == "cpu" else Cast(network.encoder, dtype)
    return made


def state_of(network: nn.Module) -> object:
    """What changes when any tensor of the network is exchanged or written to; costs a fraction of a millisecond."""
    tensors = itertools.chain(network.parameters(), network.buffers())
    return tuple((id(t), t.device, 0 if t.is_inference() else t._version) for t in tensors)


class Cast(nn.Module):
    """An encoder in another precision and laid out channels last: for a GPU, which has room for whole layers."""

    def __init__(self, encoder: nn.Module, dtype: torch.dtype) -> None:
        super().__init__()
        self.dtype = dtype
        twin: Any = encoder if dtype == torch.float32 else copy.deepcopy(encoder)
        self.encoder = twin.to(dtype=dtype, memory_format=torch.channels_last)

    def forward(self, image: Tensor, levels: Iterable[int]) -> dict[int, Tensor]:
        """As `VGG16Pyramid.forward`; the features are of the encoder's precision."""
        return self.encoder(image.to(self.dtype, memory_format=torch.channels_last), levels)


@contextmanager
def own_state() -> Iterator[None]:
    """While it lasts, PyTorch's global state is its own: what a caller set neither changes a flow nor breaks loading.

    That is autocast and the default device. Also a decorator.
    """
    with ExitStack() as stack:
        if torch.get_default_device().type != "cpu":  # the context costs microseconds at each of PyTorch's functions
            stack.enter_context(torch.device("cpu"))
        for device in ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",):
            stack.enter_context(torch.autocast(device, enabled=False))
        yield


@contextmanager
def full_precision(device: torch.device, speed: Speed) -> Iterator[None]:
    """While it lasts, "exact" convolutions on CUDA are in float32, not in PyTorch's default, TensorFloat-32."""
    if device.type != "cuda" or speed == "fast":
        yield
        return
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def low_precision(device: torch.device) -> torch.dtype:
    """What "fast" computes in on this device: bfloat16 or float16 where that is faster, else float32."""
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    return torch.bfloat16 if device.type == "cpu" and bfloat16_pays(device) else torch.float32


@cache
def bfloat16_pays(device: torch.device) -> bool:
    """Whether a convolution is faster in bfloat16: measured once, in a few milliseconds.

    A processor that knows it (AMX) takes a sixth of the time; one that does not is far slower than in float32.
    """

    def seconds(dtype: torch.dtype) -> float:
        x, weight = (torch.zeros(shape, dtype=dtype, device=device) for shape in ((4, 128, 32, 32), (128, 128, 3, 3)))
        x, weight = (t.contiguous(memory_format=torch.channels_last) for t in (x, weight))
        times = []
        for _ in range(6):
            began = time.perf_counter()
            float(F.conv2d(x, weight, padding=1)[0, 0, 0, 0])  # which waits for the device
            times.append(time.perf_counter() - began)
        return min(times[1:])

    try:
        with torch.inference_mode():
            return seconds(torch.bfloat16) < seconds(torch.float32)
    except (RuntimeError, TypeError):  # a device that has no such numbers
        return False
