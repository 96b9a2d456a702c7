"""Neighbourhood consensus and the semantic network's features (SPEC 11.1)."""

import itertools

import pytest
import torch

from glunet.network.consensus import Conv4d, NeighbourhoodConsensus, conv4d
from glunet.network.correlation import global_correlation, mutual_matching
from glunet.network.glunet import GLUNetConfig
from glunet.network.semantic import SemanticGLUNet
from glunet.training.pool import encoder_alone


def by_definition(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> torch.Tensor:
    """A 4-D convolution tap by tap."""
    reach = weight.shape[0] // 2
    padded = torch.nn.functional.pad(x, (reach,) * 8)
    total = bias.view(1, -1, 1, 1, 1, 1).expand(len(x), -1, *x.shape[2:])
    for taps in itertools.product(range(weight.shape[0]), repeat=4):
        i, j, k, m = taps
        window = padded
        for axis, (start, length) in enumerate(zip(taps, x.shape[2:], strict=True), start=2):
            window = window.narrow(axis, start, length)
        total = total + torch.einsum("bcpqrs,oc->bopqrs", window, weight[i, :, :, j, k, m])
    return total


@pytest.mark.parametrize(("channels", "outputs", "kernel"), [(1, 3, 3), (3, 3, 3), (3, 1, 3), (2, 1, 5)])
def test_conv4d_is_its_definition(channels: int, outputs: int, kernel: int) -> None:
    torch.manual_seed(0)
    x = torch.randn(2, channels, 3, 4, 5, 6, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(kernel, outputs, channels, kernel, kernel, kernel, dtype=torch.float64, requires_grad=True)
    bias = torch.randn(outputs, dtype=torch.float64, requires_grad=True)
    got, want = conv4d(x, weight, bias), by_definition(x, weight, bias)
    torch.testing.assert_close(got, want)
    ahead = torch.randn_like(want)
    for ours, theirs in zip(
        torch.autograd.grad(got, (x, weight, bias), ahead),
        torch.autograd.grad(want, (x, weight, bias), ahead),
        strict=True,
    ):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("source_size", [(5, 4), (3, 6)])
def test_consensus_treats_target_and_source_alike(source_size: tuple[int, int]) -> None:
    torch.manual_seed(1)
    consensus = NeighbourhoodConsensus().double()
    for module in consensus.modules():
        if isinstance(module, Conv4d):
            torch.nn.init.normal_(module.weight, std=0.3)
    target = torch.rand(2, 8, 5, 4, dtype=torch.float64)
    source = torch.rand(2, 8, *source_size, dtype=torch.float64)
    there = consensus(global_correlation(target, source), source_size)
    back = consensus(global_correlation(source, target), (5, 4))
    assert there.shape == (2, source_size[0] * source_size[1], 5, 4)
    assert there.max() > 0
    torch.testing.assert_close(there.flatten(2).transpose(1, 2), back.flatten(2))


def test_consensus_begins_close_to_mutual_matching_and_learns() -> None:
    torch.manual_seed(2)
    consensus = NeighbourhoodConsensus()
    correlation = torch.rand(1, 36, 6, 6).square()
    scores = consensus(correlation, (6, 6))
    twice = mutual_matching(2 * mutual_matching(correlation))
    assert torch.corrcoef(torch.stack((scores.flatten(), twice.flatten())))[0, 1] > 0.9
    scores.square().mean().backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in consensus.parameters())


@torch.inference_mode()
def test_semantic_features_have_the_coarser_ones_behind() -> None:
    torch.manual_seed(3)
    network = SemanticGLUNet(GLUNetConfig("residual", "residual", network="semantic-glunet")).eval()
    image, image_256 = torch.randn(1, 3, 264, 320), torch.randn(1, 3, 256, 256)
    plain = encoder_alone(network.encoder, torch.float32).encode(image, image_256)
    got = network.encode(image, image_256)
    assert got.level4.shape == (1, 1024, 16, 16)
    assert got.level3.shape == (1, 1280, 32, 32)
    torch.testing.assert_close(got.level4[:, :512], plain.level4)
    torch.testing.assert_close(got.level3[:, :256], plain.level3)
    assert torch.equal(got.level2, plain.level2)
    assert torch.equal(got.level1, plain.level1)
    # The mean of what was enlarged is that of what it was made of, but for the border.
    torch.testing.assert_close(got.level4[:, 512:].mean(), plain.level4.mean(), rtol=0.05, atol=0)
