"""The twin without BatchNorm computes what the network computes, and shares what it can."""

import pytest
import torch
from torch import nn

from glunet.network.backends.folding import FoldedBlock, folded, folded_weights
from glunet.network.decoder import ConvBlock, DenseFlowDecoder, MappingDecoder, ResidualFlowDecoder
from glunet.network.family import build, configure
from glunet.network.refinement import Refinement


def settled(module: nn.Module) -> nn.Module:
    """In evaluation mode, with statistics and an affine part of BatchNorm that are not those it starts with."""
    generator = torch.Generator().manual_seed(0)
    for norm in module.modules():
        if isinstance(norm, nn.BatchNorm2d):
            norm.running_mean.normal_(generator=generator)
            norm.running_var.uniform_(0.2, 2, generator=generator)
            nn.init.normal_(norm.weight, 1, 0.3, generator)
            nn.init.normal_(norm.bias, 0, 0.3, generator)
    return module.eval()


@pytest.mark.parametrize(
    ("module", "channels"),
    [
        (ConvBlock(5, 7), 5),
        (ConvBlock(5, 7, dilation=3, slope=0.0), 5),
        (ConvBlock(5, 7, slope=1), 5),
        (MappingDecoder(16), 16),
        (DenseFlowDecoder(9), 9),
        (ResidualFlowDecoder(9), 9),
        (Refinement(6), 6),
    ],
    ids=lambda value: type(value).__name__,
)
@pytest.mark.parametrize("size", [(1, 1), (7, 13), (16, 16)])
@torch.inference_mode()
def test_folding_changes_nothing(module: nn.Module, channels: int, size: tuple[int, int]) -> None:
    settled(module)
    twin = folded(nn.ModuleDict({"part": module}))["part"]
    assert not any(isinstance(part, nn.BatchNorm2d) for part in twin.modules())
    x = torch.randn(2, channels, *size, generator=torch.Generator().manual_seed(1))
    before = x.clone()
    torch.testing.assert_close(twin(x), module(x), atol=1e-4, rtol=1e-4)
    assert torch.equal(x, before), "an input was written to"


@torch.inference_mode()
def test_low_precision_is_in_the_blocks_alone() -> None:
    decoder = settled(DenseFlowDecoder(9))
    twin = folded(nn.ModuleDict({"part": decoder}), torch.bfloat16)["part"]
    x = torch.randn(1, 9, 12, 12, generator=torch.Generator().manual_seed(1))
    (features, flow), (exact_features, exact) = twin(x), decoder(x)
    assert features.dtype == torch.bfloat16
    assert flow.dtype == torch.float32
    assert twin.predict_flow is decoder.predict_flow
    assert (features - exact_features).abs().mean() < 0.02 * exact_features.abs().mean()
    assert (flow - exact).abs().max() <= 0.05 * exact.abs().max() + 1e-6


@pytest.mark.parametrize("name", ["glunet", "semantic-glunet", "local-net", "global-net", "glocal-net"])
def test_the_network_is_left_as_it_is(name: str) -> None:
    network = settled(build(configure(name)))
    before = {key: value.clone() for key, value in network.state_dict().items()}
    keys = list(before)
    twin = folded(network, torch.bfloat16, but=("decoder2",))
    assert list(network.state_dict()) == keys
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())
    assert not any(isinstance(part, FoldedBlock) for part in network.modules())
    assert twin.encoder is network.encoder
    assert twin.decoder2 is network.decoder2
    assert type(twin) is type(network)


def test_no_statistics_no_folding() -> None:
    with pytest.raises(ValueError, match="cannot be folded"):
        folded_weights(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3, track_running_stats=False))
