"""Validation on fixed synthetic pairs of photographs that training never sees."""

import dataclasses
from typing import NamedTuple

import torch
from torch import Tensor

from glunet.network.glunet import Features, GLUNet
from glunet.training.loss import truths
from glunet.training.photographs import Photographs
from glunet.training.pool import SQUARE, Batch, Pool
from glunet.training.scenes import Recipe

BINS = ((0, 8), (8, 32), (32, 96), (96, 1000))  # of the true displacement, pixels of 256
SEED = 20200614


class Predicted(NamedTuple):
    """The flows of the levels that a stage has reached; None for those it has not."""

    flow4: Tensor
    flow3: Tensor | None
    flow2: Tensor | None
    flow1: Tensor | None
    extra: tuple[Tensor, ...]


def predict(
    network: GLUNet, target: Features, source: Features, levels: tuple[int, ...] = (4, 3, 2, 1), extra: int = 0
) -> Predicted:
    """The flow of every level down to the last of `levels`, which are (4,), (4, 3) or (4, 3, 2, 1)."""
    if levels[-1] <= 2:
        flows = network.decode(target, source, extra)
        return Predicted(flows.flow4, flows.flow3, flows.flow2, flows.flow1, flows.extra)
    flow4 = network.level4(target, source)
    return Predicted(flow4, network.level3(target, source, flow4) if levels[-1] == 3 else None, None, None, ())


def validation_recipe() -> Recipe:
    """The scenes that are validated on: as in training, without those turned by any angle."""
    return dataclasses.replace(Recipe(), any_angle=0.0)


def fixed_pairs(
    encoder: GLUNet, photographs: Photographs, pairs: int = 64, keep_images: bool = False, at_once: int = 16
) -> list[Batch]:
    """Pairs of views at 256, encoded once, the same for every run on the same photographs."""
    recipe = dataclasses.replace(Recipe(), any_angle=0.0)
    pool = Pool(
        encoder,
        photographs,
        recipe,
        SQUARE,
        memory=1 << 40,
        capacity=pairs,
        views=2,
        seed=SEED,
        keep_images=keep_images,
    )
    while len(pool) < pairs:
        pool.refresh()
    batches = []
    for first in range(0, pairs, at_once):
        numbers = list(range(first, min(first + at_once, pairs)))
        zeros = torch.zeros(len(numbers), dtype=torch.long)
        batches.append(pool.pairs(numbers, zeros, zeros + 1))
    return batches


@torch.no_grad()
def validate(network: GLUNet, batches: list[Batch], levels: tuple[int, ...] = (4, 3, 2, 1)) -> dict[str, float]:
    """End-point errors over the visible pixels of all pairs, in pixels of 256.

    Returns:
        "aepe4".."aepe1" of each level of `levels`; "motion", the mean displacement; and of the last level "pck1",
        "pck5" and, by range of true displacement, "aepe 0-8" and so on.
    """
    sums: dict[str, tuple[float, int]] = {}

    def add(name: str, values: Tensor) -> None:
        total, count = sums.get(name, (0.0, 0))
        sums[name] = (total + float(values.double().sum()), count + values.numel())

    network.eval()
    for batch in batches:
        flows = [flow for flow in predict(network, *batch.features(network), levels)[:4] if flow is not None]
        grids = [tuple(flow.shape[-2:]) for flow in flows]
        true = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, grids)  # type: ignore[arg-type]
        for level, flow, t in zip(levels, flows, true, strict=True):
            error = (flow.float() - t.flow).norm(dim=1)[t.visible]
            add(f"aepe{level}", error)
        motion = true[-1].flow.norm(dim=1)[true[-1].visible]
        add("motion", motion)
        add("pck1", (error <= 1).float())
        add("pck5", (error <= 5).float())
        for low, high in BINS:
            add(f"aepe {low}-{high}", error[(motion >= low) & (motion < high)])
    return {name: total / max(count, 1) for name, (total, count) in sums.items()}
