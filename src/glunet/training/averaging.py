"""The averaged weights: a running mean of those that learn, with BatchNorm's statistics of their own."""

from typing import Any

import torch
from torch import nn

from glunet.network.family import Network
from glunet.training.pool import Pool, detours, read
from glunet.training.ranks import Alone
from glunet.training.recipes import Settings, Stage
from glunet.training.validation import predict


@torch.no_grad()
def average(averaged: Network, network: Network, decay: float) -> None:
    """One step of the running mean."""
    for ours, theirs in zip(averaged.parameters(), network.parameters(), strict=True):
        if theirs.requires_grad:
            ours.lerp_(theirs, 1 - decay)


@torch.no_grad()
def estimate_statistics(
    averaged: Network,
    network: Network,
    pools: list[Pool],
    stage: Stage,
    step: int,
    settings: Settings,
    ranks: Alone,
    kinds: Pool | None = None,
) -> None:
    """BatchNorm's statistics of the averaged weights: their own, over some batches of all ranks.

    `kinds` has triplets, whose share of a batch is as in training: without it PF-WILLOW lost three points.

    Levels that the stage does not reach keep the network's. Nothing happens while the pools are empty.
    """
    filled = [pool for pool in pools if len(pool)]
    if not filled:
        return
    norms = [m for m in averaged.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # a plain mean over the batches that follow
        norm.train()
    for number in range(-(-settings.norm_batches // ranks.world)):
        key = (1 << 30) + step + number
        batch = filled[number % len(filled)].batch(stage.batch, key)
        pair: tuple[Any, Any] = batch.target, batch.source
        if kinds is not None and len(kinds):
            pair = detours(batch, *kinds.triplets(stage.triplets, key))
        with torch.autocast(ranks.device.type, dtype=torch.bfloat16, enabled=settings.bf16):
            target, source = (read(held, averaged) for held in pair)
            predict(averaged, target, source, stage.levels, passes=1 + number % stage.passes)
    for ours, theirs in zip(norms, (m for m in network.modules() if isinstance(m, nn.BatchNorm2d)), strict=True):
        ours.eval()
        if ours.num_batches_tracked == 0:
            ours.load_state_dict(theirs.state_dict())
        elif ranks.world > 1:
            assert ours.running_mean is not None
            assert ours.running_var is not None
            ours.running_mean.copy_(ranks.sum(ours.running_mean) / ranks.world)
            ours.running_var.copy_(ranks.sum(ours.running_var) / ranks.world)


def train_mode(network: Network, freeze_norms: bool) -> None:
    """Everything learns; BatchNorm goes on with the statistics it has if they are frozen."""
    network.train()
    if freeze_norms:
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
