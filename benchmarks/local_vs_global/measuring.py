"""Errors by displacement and by resolution: raw sums, of which figures and tables are made later."""

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor

from glunet.flow.geometry import resize_bilinear, scale_flow
from glunet.inference.frames import FRAMINGS, finish, prepare
from glunet.network.family import Network
from glunet.network.glunet import LNET_SIZE, GLUNet
from glunet.training.loss import truths
from glunet.training.photographs import Photographs
from glunet.training.pool import encoder_alone
from glunet.training.recipes import LEVELS
from glunet.training.scenes import truth
from glunet.training.validation import fixed_pairs, predict, validation_parameters
from glunet.training.views import make_views

EDGES = (0, 2, 4, 8, 16, 32, 48, 64, 96, 128, 192, math.inf)  # of the true displacement, in pixels
SIZES = (256, 520, 1040)
SEED = 1912
STILL = "no-motion"
Tally = dict[str, list[float]]


def tally(error: Tensor, motion: Tensor, sums: Tally | None = None) -> Tally:
    """Counts and sums of pixels in bins of their true displacement, added to `sums`.

    Args:
        error: N end-point errors, pixels; `motion`: N true displacements, pixels of the same frame.

    Returns:
        lists as long as there are bins (`EDGES`): "pixels", "error" (their sum), "within 1", "within 5" (counts).
    """
    sums = sums or {key: [0.0] * (len(EDGES) - 1) for key in ("pixels", "error", "within 1", "within 5")}
    for i, (low, high) in enumerate(pairwise(EDGES)):
        some = error[(motion >= low) & (motion < high)].double().cpu()
        for key, value in (
            ("pixels", len(some)), ("error", float(some.sum())),
            ("within 1", int((some <= 1).sum())), ("within 5", int((some <= 5).sum())),
        ):  # fmt: skip
            sums[key][i] = round(sums[key][i] + value, 3)
    return sums


@torch.no_grad()
def by_displacement(
    networks: dict[str, Network], held_back: Photographs, pairs: int, bf16: bool, at_once: int = 16
) -> dict[str, Tally]:
    """Errors of every network's finest level on the same pairs at 256, visible pixels of its 64 x 64 grid.

    And those of the answer that nothing moves, under `STILL`; likewise in `by_resolution`.
    """
    first = next(iter(networks.values()))
    encoder = encoder_alone(first.encoder, torch.bfloat16 if bf16 else torch.float32)
    found: dict[str, Tally] = {}
    for batch in fixed_pairs(encoder, held_back, pairs, at_once=at_once):
        (true,) = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, [(64, 64)])
        motion = true.flow.norm(dim=1)[true.visible]
        found[STILL] = tally(motion, motion, found.get(STILL))
        for name, network in networks.items():
            flow = predict(network, *batch.features(network), LEVELS[network.config.network]).levels[-1].float()
            found[name] = tally((flow - true.flow).norm(dim=1)[true.visible], motion, found.get(name))
    return found


@torch.no_grad()
def by_resolution(
    networks: dict[str, Network], held_back: Photographs, scenes: int, bf16: bool, sizes: Sequence[int] = SIZES
) -> dict[str, dict[str, Tally]]:
    """Errors in original pixels on the same scenes photographed at several sizes, each network in its own frame."""
    found: dict[str, dict[str, Tally]] = {name: {} for name in (STILL, *networks)}
    device = next(iter(networks.values())).encoder.level_0[0].weight.device  # type: ignore[union-attr, index]
    for size in sizes:
        for number in range(scenes):
            target, source, true, stride = pair(held_back, number, size, device)
            motion = true.flow.norm(dim=1)[true.visible]
            found[STILL][str(size)] = tally(motion, motion, found[STILL].get(str(size)))
            known: dict[Any, Any] = {}
            for name, network in networks.items():
                flow = sampled(full_flow(network, target, source, bf16, known=known), stride)
                error = (flow - true.flow).norm(dim=1)[true.visible]
                found[name][str(size)] = tally(error, motion, found[name].get(str(size)))
    return found


def pair(held_back: Photographs, number: int, size: int, device: torch.device | str = "cpu") -> Any:
    """Pair `number` of a series at one size: target and source (1 x 3 x size x size, 0..255), truth, and its stride.

    The scene is the same at every size, its photograph as large as it is. The truth is at every `stride`-th pixel from
    (stride // 2, stride // 2) on, in pixels.
    """
    parameters, seed = validation_parameters(), (SEED, number)
    views = make_views(held_back, 1, 2, (size, size), seed, parameters, device)
    # An odd stride: then positions of the coarser grid are centres of pixels.
    stride = next(k for k in (5, 3, 1) if size % k == 0 and (size // k >= 64 or k == 1))
    zero = torch.zeros(1, dtype=torch.long, device=device)
    true = truth(views.scenes, zero, zero + 1, (size // stride, size // stride), (size, size))
    return views.images[:, 0], views.images[:, 1], true, stride


def sampled(flow: Tensor, stride: int) -> Tensor:
    """B x 2 x H x W at the positions of `pair`'s truth."""
    return flow[..., stride // 2 :: stride, stride // 2 :: stride]


def full_flow(
    network: Network,
    target: Tensor,
    source: Tensor,
    bf16: bool = False,
    extra: int = 0,
    frame: tuple[int, int] | None = None,
    lnet_only: bool = False,
    known: dict[Any, Any] | None = None,
) -> Tensor:
    """The flow of images of one size, in their pixels: B x 2 x H x W.

    Args:
        target, source: B x 3 x H x W, 0..255.
        extra: extra levels between L-Net and H-Net.
        frame: (height, width) of the network's frame; None for its own choice.
        lnet_only: GLU-Net's levels 4 and 3 alone.
        known: features of this pair by network and frame; what is not there yet is added. All encoders must be alike.
    """
    size = (target.shape[-2], target.shape[-1])
    framing = FRAMINGS[network.config.network]
    frame = frame or framing.size(*size)
    anyone: Any = network
    known = {} if known is None else known
    which = (network.config.network, frame)
    with torch.autocast(target.device.type, dtype=torch.bfloat16, enabled=bf16):
        if which not in known:
            known[which] = [anyone.encode(*prepare(images, frame, lnet=framing.lnet)) for images in (target, source)]
        features = known[which]
        if lnet_only:
            assert isinstance(network, GLUNet)
            flow = network.coarse(*features)[1].float()
            return scale_flow(resize_bilinear(flow, size), size[1] / LNET_SIZE, size[0] / LNET_SIZE)
        return finish(anyone.decode(*features, extra)[-1].float(), size, frame)


def mean(sums: Tally, what: str = "error", bins: slice = slice(None)) -> float:
    """AEPE ("error"), or the share within a threshold ("within 1", "within 5"), over some bins; NaN without pixels."""
    pixels = sum(sums["pixels"][bins])
    return sum(sums[what][bins]) / pixels if pixels else math.nan
