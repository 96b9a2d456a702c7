"""Global and local correlation, against their definitions written out."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from glunet.network.backends.bands import banded_correlation
from glunet.network.correlation import (
    global_correlation,
    l2_normalise,
    local_correlation,
    mutual_matching,
    plain_local_correlation,
)


def by_definition(target: torch.Tensor, source: torch.Tensor, radius: int) -> torch.Tensor:
    batch, channels, height, width = target.shape
    out = target.new_zeros(batch, (2 * radius + 1) ** 2, height, width)
    span = range(-radius, radius + 1)
    for k, (dy, dx) in enumerate(itertools.product(span, span)):
        for y, x in itertools.product(range(height), range(width)):
            if 0 <= y + dy < height and 0 <= x + dx < width:
                out[:, k, y, x] = (target[:, :, y, x] * source[:, :, y + dy, x + dx]).sum(1) / channels
    return out


@settings(max_examples=25)
@given(
    batch=st.integers(1, 2),
    channels=st.integers(1, 5),
    height=st.integers(1, 9),
    width=st.integers(1, 35),
    radius=st.integers(0, 4),
    seed=st.integers(0, 1000),
)
def test_local_correlation(batch: int, channels: int, height: int, width: int, radius: int, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    target, source = torch.randn((2, batch, channels, height, width), generator=generator, dtype=torch.float64)
    expected = by_definition(target, source, radius)
    torch.testing.assert_close(local_correlation(target, source, radius), expected)
    torch.testing.assert_close(plain_local_correlation(target, source, radius), expected)
    channels_last = (features.contiguous(memory_format=torch.channels_last) for features in (target, source))
    got = banded_correlation(*channels_last, radius, slope=0.1)
    torch.testing.assert_close(got, torch.nn.functional.leaky_relu(expected, 0.1))


def test_local_correlation_gradient() -> None:
    target, source = torch.randn((2, 2, 3, 4, 18), dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    inputs = (target.requires_grad_(), source.clone().requires_grad_())
    assert torch.autograd.gradcheck(lambda t, s: local_correlation(t, s, 2), inputs)


def test_bands_are_computed_in_float32_whatever_the_features() -> None:
    target, source = torch.randn((2, 1, 8, 6, 11), generator=torch.Generator().manual_seed(1)).bfloat16()
    expected = plain_local_correlation(target.float(), source.float(), 4)
    with torch.autocast("cpu", torch.bfloat16):
        got = banded_correlation(target, source, 4)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
def test_local_correlation_on_cuda() -> None:
    target, source = torch.randn(2, 2, 16, 13, 37)
    torch.testing.assert_close(
        local_correlation(target.cuda(), source.cuda()).cpu(), local_correlation(target, source), atol=1e-4, rtol=1e-4
    )


@pytest.mark.parametrize(("other", "radius"), [((1, 3, 4, 6), 4), ((1, 3, 4, 5), -1)])
def test_local_correlation_refuses(other: tuple[int, ...], radius: int) -> None:
    with pytest.raises(ValueError, match="one shape and a radius >= 0"):
        local_correlation(torch.zeros(1, 3, 4, 5), torch.zeros(other), radius)


def test_global_correlation_channels_are_source_positions_row_by_row() -> None:
    target, source = torch.randn((2, 1, 7, 4, 5), generator=torch.Generator().manual_seed(2))
    got = global_correlation(target, source[..., :3])
    for ys, xs, yt, xt in ((0, 0, 0, 0), (1, 2, 3, 4), (3, 0, 2, 1)):
        expected = (source[0, :, ys, xs] * target[0, :, yt, xt]).sum()
        torch.testing.assert_close(got[0, ys * 3 + xs, yt, xt], expected)


def test_l2_normalise() -> None:
    features = torch.randn(2, 5, 3, 4, generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(l2_normalise(features).norm(dim=1), torch.ones(2, 3, 4), atol=1e-5, rtol=0)
    assert not l2_normalise(torch.zeros(1, 4, 2, 2)).isnan().any()


def test_mutual_matching_keeps_mutual_best_and_lowers_the_rest() -> None:
    correlation = torch.rand(1, 6, 2, 3, generator=torch.Generator().manual_seed(4)) + 0.1
    out = mutual_matching(correlation)
    best = (correlation == correlation.amax(1, keepdim=True)) & (correlation == correlation.amax((2, 3), keepdim=True))
    assert best.any()
    torch.testing.assert_close(out[best], correlation[best], rtol=1e-3, atol=0)
    assert (out[~best] < correlation[~best]).all()
