"""Propagation between passes: what is found elsewhere and looks alike is taken over, and nothing else."""

from itertools import product

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.flow.geometry import warp
from glunet.network import propagation
from glunet.network.correlation import l2_normalise
from glunet.network.propagation import APART, DISTANCES, LEAST, MARGIN, propagate, weighted_rows, weighted_rows_plain

DEVICES = ["cpu", *(["cuda"] if torch.cuda.is_available() else [])]


def plainly(target: Tensor, source: Tensor, flow: Tensor, scale: float) -> Tensor:
    """The same with dense maps: every position's features warped by every candidate."""

    def similarity(flow: Tensor) -> Tensor:
        alike = (l2_normalise(target) * warp(l2_normalise(source), flow * scale)).sum(dim=1, keepdim=True)
        return F.avg_pool2d(alike, 3, 1, 1, count_include_pad=False)

    own = similarity(flow)
    best, result = (own + MARGIN).clamp_min(LEAST), flow
    height, width = flow.shape[-2:]
    y, x = torch.meshgrid(torch.arange(height), torch.arange(width), indexing="ij")
    for distance, down, right in product(DISTANCES, (-1, 0, 1), (-1, 0, 1)):
        if (down, right) == (0, 0):
            continue
        rows, columns = (y + distance * down).clamp(0, height - 1), (x + distance * right).clamp(0, width - 1)
        other = flow[..., rows, columns]
        found = similarity(other)
        better = ((other - flow).norm(dim=1, keepdim=True) > APART) & (found > best)
        best, result = torch.where(better, found, best), torch.where(better, other, result)
    return result


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_is_the_plain_one(device, layout, monkeypatch):
    torch.manual_seed(3)
    monkeypatch.setattr(propagation, "_AT_ONCE", 100)
    target = F.avg_pool2d(torch.rand(2, 6, 37, 31), 3, 1, 1)
    source = target.roll((1, 2), (2, 3)) + 0.1 * torch.rand(2, 6, 37, 31)
    flow = 4 * torch.tensor([2.0, 1.0]).view(1, 2, 1, 1) * (torch.rand(2, 1, 37, 31) > 0.5) + 3 * torch.rand(
        2, 2, 37, 31
    )
    pair = [features.to(device=device, memory_format=layout) for features in (target, source)]
    found = propagate(*pair, flow.to(device), 1 / 4).cpu()
    assert torch.equal(found, plainly(target, source, flow, 1 / 4))
    assert 0.05 < (found != flow).any(dim=1).float().mean() < 0.95, "some are taken over, and some are not"
    assert torch.equal(found[1:], propagate(*(one[1:] for one in pair), flow[1:].to(device), 1 / 4).cpu())


def test_a_background_pulled_along_goes_back():
    torch.manual_seed(0)
    source = torch.randn(1, 32, 40, 60)
    target = source.clone()
    target[..., 26:30] = source[..., 20:24]  # a thin thing moved by six positions to the right
    true = torch.zeros(1, 2, 40, 60)
    true[:, 0, :, 26:30] = -24.0
    wrong = true.clone()
    wrong[:, 0, :, 22:34] = -24.0  # what is around it was taken along
    found = propagate(target, source, wrong, 1 / 4)
    assert (wrong != true).any(dim=1).float().mean() > 0.1
    assert torch.equal(found, true)


def test_without_likeness_nothing_changes():
    torch.manual_seed(1)
    target, source = torch.randn(2, 1, 64, 24, 24)
    flow = 20 * torch.randn(1, 2, 24, 24)
    assert torch.equal(propagate(target, source, flow, 1 / 4), flow)


def test_an_even_flow_stays_and_comes_back_on_the_features_grid():
    features = torch.rand(1, 4, 12, 20)
    flow = torch.tensor([5.0, -3.0]).view(1, 2, 1, 1).expand(1, 2, 24, 40)
    found = propagate(features, features, flow, 1 / 4)
    assert torch.equal(found, flow[..., :12, :20])


def test_what_is_taken_over_learns_where_it_came_from():
    torch.manual_seed(4)
    source = torch.randn(1, 16, 20, 30)
    flow = torch.zeros(1, 2, 20, 30)
    flow[:, 0, :, 10:14] = -24.0  # wrong: no part moved
    flow.requires_grad_()
    found = propagate(source, source, flow, 1 / 4)
    assert not found.any()
    found.sum().backward()
    assert not flow.grad[..., 10:14].any()
    assert flow.grad.sum() == found.numel()


@pytest.mark.parametrize("device", DEVICES)
def test_weighted_rows_agree(device):
    torch.manual_seed(2)
    rows, indices, weights = torch.randn(53, 7), torch.randint(0, 53, (19, 4)), torch.rand(19, 4)
    given = [one.to(device) for one in (rows, indices, weights)]
    torch.testing.assert_close(weighted_rows(*given), weighted_rows_plain(*given))
