"""Decoders: from a correlation to a correspondence map (level 4) or a flow residual (levels 3, 2, 1).

Paper section 3.4; SPEC 4.4 to 4.6, and 11.5 for the residual ones. Blocks carry the names of the official checkpoints.
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

SLOPE = 0.1  # of every LeakyReLU
WIDTHS = (128, 128, 96, 64, 32)  # output channels of a decoder's five blocks


class ConvBlock(nn.Sequential):
    """3x3 convolution (dilated, same size), batch normalisation, LeakyReLU; slope 0 is ReLU, slope 1 no activation."""

    def __init__(self, inputs: int, outputs: int, dilation: int = 1, slope: float = SLOPE) -> None:
        layers = [
            nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation),
            nn.BatchNorm2d(outputs),
        ]
        super().__init__(*layers, *([] if slope == 1 else [nn.LeakyReLU(slope, inplace=True)]))


class Head(nn.Conv2d):
    """3x3 convolution to two channels, in float32 under autocast: bfloat16 near 1 would be half a pixel of 256."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs, 2, 3, padding=1)

    def forward(self, input: Tensor) -> Tensor:
        with torch.autocast(input.device.type, enabled=False):
            return super().forward(input.to(self.weight.dtype))


class MappingDecoder(nn.Module):
    """Level 4 as published: five blocks with ReLU, a map. Two zero channels follow the correlation (SPEC 4.5)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        inputs += 2
        for i, width in enumerate(WIDTHS):
            self.add_module(f"conv{i}", ConvBlock(inputs, width, slope=0.0))
            inputs = width
        self.final = Head(inputs)

    def forward(self, correlation: Tensor) -> Tensor:
        """B x S x h x w -> B x 2 x h x w, normalised coordinates: -1..1 are the first and last pixel centre."""
        x = F.pad(correlation, (0, 0, 0, 0, 0, 2))
        for i in range(len(WIDTHS)):
            x = self.get_submodule(f"conv{i}")(x)
        return self.final(x)


class DenseBlocks(nn.Module):
    """Five blocks, each fed with everything so far, the newest output in front (SPEC 4.6)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        for i, width in enumerate(WIDTHS):
            self.add_module(f"conv_{i}", ConvBlock(inputs, width))
            inputs += width
        self.outputs = inputs

    def blocks(self, x: Tensor) -> Tensor:
        for i in range(len(WIDTHS)):
            new = self.get_submodule(f"conv_{i}")(x)
            x = torch.cat((new, x.to(new.dtype)), dim=1)
        return x


class ResidualBlocks(nn.Module):
    """Five blocks with two 1x1 skips around pairs of them: half the parameters of the dense ones (SPEC 11.5)."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        w0, w1, w2, w3, w4 = WIDTHS
        self.conv_0 = ConvBlock(inputs, w0, slope=1)
        self.conv0_skip = nn.Sequential(nn.Conv2d(w0, w2, 1, bias=False), nn.BatchNorm2d(w2))
        self.conv_1 = ConvBlock(w0, w1)
        self.conv_2 = ConvBlock(w1, w2, slope=1)
        self.conv2_skip = nn.Sequential(nn.Conv2d(w2, w4, 1, bias=False), nn.BatchNorm2d(w4))
        self.conv_3 = ConvBlock(w2, w3)
        self.conv_4 = ConvBlock(w3, w4, slope=1)
        self.outputs = w4

    def blocks(self, x: Tensor) -> Tensor:
        x = self.conv_0(x)
        skip = self.conv0_skip(x)
        x = self.conv_1(_activated(x))
        x = self.conv_2(x) + skip
        skip = self.conv2_skip(x)
        x = self.conv_3(_activated(x))
        return _activated(self.conv_4(x) + skip)


class ResidualMappingDecoder(ResidualBlocks):
    """Level 4 out of residual blocks; the two zero channels as in `MappingDecoder`."""

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs + 2)
        self.final = Head(self.outputs)

    def forward(self, correlation: Tensor) -> Tensor:
        """As `MappingDecoder.forward`."""
        return self.final(self.blocks(F.pad(correlation, (0, 0, 0, 0, 0, 2))))


class _FlowHead(nn.Module):
    """What turns blocks into a decoder of a local level."""

    outputs: int
    blocks: Callable[[Tensor], Tensor]

    def __init__(self, inputs: int) -> None:
        super().__init__(inputs)
        self.predict_flow = Head(self.outputs)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """B x inputs x h x w -> features B x outputs x h x w, flow residual B x 2 x h x w in pixels of the frame."""
        features = self.blocks(x)
        return features, self.predict_flow(features)


class DenseFlowDecoder(_FlowHead, DenseBlocks):
    """A flow residual, and the features it was read from, for upsampling and refinement."""


class ResidualFlowDecoder(_FlowHead, ResidualBlocks):
    """As `DenseFlowDecoder`, out of residual blocks."""


def _activated(x: Tensor) -> Tensor:
    """LeakyReLU, in place where no gradient needs what was there."""
    return F.leaky_relu(x, SLOPE, inplace=not (torch.is_grad_enabled() and x.requires_grad))
