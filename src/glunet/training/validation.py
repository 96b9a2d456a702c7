"""Validation on fixed synthetic pairs of photographs that training never sees."""

import dataclasses
from typing import Any, NamedTuple

import torch
from torch import Tensor

from glunet.network.family import Network
from glunet.training.loss import truths
from glunet.training.photographs import Photographs
from glunet.training.pool import SCENES, SQUARE, Batch, Pool
from glunet.training.ranks import Alone
from glunet.training.recipes import LEVELS
from glunet.training.scenes import SceneParameters

BINS = ((0, 8), (8, 32), (32, 96), (96, 1000))  # of the true displacement, pixels of 256
SEED = 20200614


class Predicted(NamedTuple):
    """The flows of the levels asked for, coarse to fine, and of extra levels."""

    levels: tuple[Tensor, ...]
    extra: tuple[Tensor, ...] = ()


def predict(
    network: Any,
    target: Any,
    source: Any,
    levels: tuple[int, ...],
    extra: int = 0,
    detach: bool = False,
    passes: int = 1,
) -> Predicted:
    """The flow of every level of `levels`: (4,), (4, 3) or all that the network has (`recipes.LEVELS`).

    Args:
        network: any of the family, and the features of the two images as it has them (`Batch.features`).
        detach, passes: see `GLUNet.decode`.
    """
    if levels == (4,):
        return Predicted((network.level4(target, source),))
    options: dict[str, Any] = ({"detach": True} if detach else {}) | ({"passes": passes} if passes > 1 else {})
    if levels == (4, 3):
        return Predicted(network.coarse(target, source, **options))
    flows = network.decode(target, source, extra, **options)._asdict()
    return Predicted(tuple(flows[f"flow{level}"] for level in levels), flows.get("extra", ()))


def validation_parameters() -> SceneParameters:
    """The scenes that are validated on: as in training, without those turned by any angle."""
    return dataclasses.replace(SceneParameters(), any_angle=0.0)


def fixed_pairs(
    encoder: Network,
    photographs: Photographs,
    pairs: int = 64,
    keep_images: bool = False,
    at_once: int = 16,
    part: tuple[int, int] = (0, 1),
) -> list[Batch]:
    """Pairs of views at 256, encoded once, the same for every run on the same photographs.

    Args:
        part: (rank, ranks) of processes that train together: the ranks' pairs together are those of one process.
    """
    rank, ranks = part
    mine = len(range(rank, -(-pairs // SCENES), ranks))  # batches of scenes, dealt out in turn
    if mine == 0:
        return []
    pool = Pool(
        encoder, photographs, validation_parameters(), SQUARE, memory=1 << 40, capacity=mine * SCENES, views=2,
        seed=SEED, keep_images=keep_images, part=part,
    )  # fmt: skip
    while not pool.full:
        pool.refresh()
    numbers = [i for i in range(mine * SCENES) if (i // SCENES * ranks + rank) * SCENES + i % SCENES < pairs]
    batches = []
    for first in range(0, len(numbers), at_once):
        some = numbers[first : first + at_once]
        zeros = torch.zeros(len(some), dtype=torch.long)
        batches.append(pool.pairs(some, zeros, zeros + 1))
    return batches


@torch.no_grad()
def validate(
    network: Network,
    batches: list[Batch],
    levels: tuple[int, ...] | None = None,
    ranks: Alone | None = None,
    passes: int = 1,
) -> dict[str, float]:
    """End-point errors over the visible pixels of all pairs, in pixels of 256.

    Args:
        levels: as `predict` takes them; None for all that the network has.
        passes: see `GLUNet.decode`.
        ranks: the processes whose pairs count together; each has its own in `batches`.

    Returns:
        "aepe4".."aepe1" of each level of `levels`; "motion", the mean displacement; and of the last level "pck1",
        "pck5" and, by range of true displacement, "aepe 0-8" and so on; the shares of pixels "covered" and "out of
        view", which do not count.
    """
    levels = levels or LEVELS[network.config.network]
    names = [f"aepe{level}" for level in levels] + ["motion", "pck1", "pck5"]
    names += [f"aepe {low}-{high}" for low, high in BINS] + ["covered", "out of view"]
    sums = dict.fromkeys(names, (0.0, 0))

    def add(name: str, values: Tensor) -> None:
        total, count = sums[name]
        # On the CPU: not every device has float64.
        sums[name] = (total + float(values.cpu().double().sum()), count + values.numel())

    network.eval()
    for batch in batches:
        flows = predict(network, *batch.features(network), levels, passes=passes).levels
        grids = [tuple(flow.shape[-2:]) for flow in flows]
        true = truths(batch.scenes, batch.target_view, batch.source_view, batch.frame, grids)  # type: ignore[arg-type]
        for level, flow, t in zip(levels, flows, true, strict=True):
            error = (flow.float() - t.flow).norm(dim=1)[t.visible]
            add(f"aepe{level}", error)
        finest = true[-1]
        motion = finest.flow.norm(dim=1)[finest.visible]
        add("motion", motion)
        add("pck1", (error <= 1).float())
        add("pck5", (error <= 5).float())
        for low, high in BINS:
            add(f"aepe {low}-{high}", error[(motion >= low) & (motion < high)])
        add("covered", (finest.in_view & ~finest.visible).float())
        add("out of view", (~finest.in_view).float())
    table = torch.tensor(list(sums.values()), dtype=torch.float64)
    if ranks is not None:
        table = ranks.sum(table)
    return {name: total / max(count, 1) for name, (total, count) in zip(names, table.tolist(), strict=True)}
