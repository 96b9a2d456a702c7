"""Validation on fixed synthetic pairs of photographs that training never sees."""

import dataclasses

import torch

from glunet.network.glunet import GLUNet
from glunet.training.loss import truths
from glunet.training.photographs import Photographs
from glunet.training.pool import Batch, Pool
from glunet.training.scenes import Recipe

BINS = ((0, 8), (8, 32), (32, 96), (96, 1000))  # of the true displacement, pixels of 256
SEED = 20200614


def fixed_pairs(network: GLUNet, photographs: Photographs, pairs: int = 64, at_once: int = 16) -> list[Batch]:
    """Encoded pairs, the same for every run on the same photographs: two views of each of `pairs` scenes at 256."""
    recipe = dataclasses.replace(Recipe(), any_angle=0.0)
    pool = Pool(network, photographs, recipe, capacity=pairs, views=2, scenes_a_batch=min(pairs, 8), seed=SEED)
    while len(pool) < pairs:
        pool.refresh()
    batches = []
    for place in range(pool.places):
        features, scenes = pool.features[place], pool.scenes[place]
        assert features is not None and scenes is not None
        device = scenes.plane.device
        views = torch.zeros(len(scenes.plane), dtype=torch.long, device=device)
        take = [type(features)(*(level[:, v].clone() for level in features)) for v in (0, 1)]
        batches.append(Batch(take[0], take[1], scenes, views, views + 1, pool.frame))
    return batches


@torch.no_grad()
def validate(network: GLUNet, batches: list[Batch], levels: tuple[int, ...] = (4, 3, 2, 1)) -> dict[str, float]:
    """End-point errors over the visible pixels of all pairs, in pixels of 256.

    Returns:
        "aepe4".."aepe1" at each level of `levels`, "motion" the mean displacement, "pck1", "pck5" and "aepe 0-8" and so
        on, by range of true displacement, of the last level.
    """
    sums: dict[str, tuple[float, float]] = {}

    def add(name: str, values: torch.Tensor) -> None:
        total, count = sums.get(name, (0.0, 0))
        sums[name] = (total + float(values.double().sum()), count + values.numel())

    network.eval()
    for batch in batches:
        flows = predict(network, batch, levels)
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


def predict(network: GLUNet, batch: Batch, levels: tuple[int, ...]) -> list[torch.Tensor]:
    """The flow of the levels 4, then 3, then 2 and 1: as far as the last of `levels`."""
    flow4 = network.level4(batch.target, batch.source)
    if levels[-1] == 4:
        return [flow4]
    if levels[-1] == 3:
        return [flow4, network.level3(batch.target, batch.source, flow4)]
    flows = network.decode(batch.target, batch.source)
    return [flows.flow4, flows.flow3, flows.flow2, flows.flow1]
