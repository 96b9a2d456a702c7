"""The networks that the paper compares GLU-Net with (paper section 4.1 and supplement, SPEC 11.2 to 11.4).

Three levels, at a 16th, an 8th and a 4th of one frame, out of GLU-Net's own blocks:

| network    | frame            | level 4            | levels 3 and 2                  |
| ---------- | ---------------- | ------------------ | ------------------------------- |
| LOCAL-Net  | the image's size | local correlation  | local correlation               |
| GLOBAL-Net | 256 x 256        | global correlation | the two features, side by side  |
| GLOCAL-Net | 256 x 256        | global correlation | local correlation               |

A local correlation sees no farther than four steps of its grid; a global one, on a fixed grid, no detail. Every flow is
in pixels of the frame, whatever its grid.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.flow.geometry import warp
from glunet.network.correlation import global_correlation, l2_normalise, local_correlation, local_scores
from glunet.network.decoder import (
    SLOPE,
    DenseFlowDecoder,
    MappingDecoder,
    ResidualFlowDecoder,
    ResidualMappingDecoder,
)
from glunet.network.encoder import LEVELS, VGG16Pyramid
from glunet.network.glunet import GLOBAL_GRID, LNET_SIZE, Features, global_flow, initialise
from glunet.network.refinement import Refinement


@dataclass(frozen=True)
class ThreeLevelConfig:
    """Which of the three, the radius of its local correlations, and its decoders: "dense" as published.

    `mapping_decoder` is that of level 4; LOCAL-Net, whose level 4 reads a local correlation, takes `decoder` there too.
    """

    network: Literal["local-net", "global-net", "glocal-net"] = "glocal-net"
    radius: int = 4
    decoder: Literal["dense", "residual"] = "dense"
    mapping_decoder: Literal["dense", "residual"] = "dense"


class ThreeLevelFeatures(NamedTuple):
    """The encoder's features of one image: B x 512 x h/16 x w/16, B x 256 x h/8 x w/8, B x 128 x h/4 x w/4."""

    level4: Tensor
    level3: Tensor
    level2: Tensor


class ThreeLevelFlows(NamedTuple):
    """The flow of every level in pixels of the frame, B x 2 x h/16 x w/16, then an 8th, then a 4th: the answer."""

    flow4: Tensor
    flow3: Tensor
    flow2: Tensor


class ThreeLevelNet(nn.Module):
    """LOCAL-Net, GLOBAL-Net or GLOCAL-Net: normalised images in, flow of every level out."""

    two_frames = has_descriptors = has_uncertainty = False  # as GLU-Net's

    def __init__(self, config: ThreeLevelConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or ThreeLevelConfig()
        self.starts_global = config.network != "local-net"
        self.correlates = config.network != "global-net"
        displacements = (2 * config.radius + 1) ** 2
        flow_decoder = DenseFlowDecoder if config.decoder == "dense" else ResidualFlowDecoder
        mapping_decoder = MappingDecoder if config.mapping_decoder == "dense" else ResidualMappingDecoder

        def compared(level: int) -> int:  # channels of `compare`
            return displacements if self.correlates else 2 * LEVELS[level][-1]

        self.encoder = VGG16Pyramid()
        inputs3 = compared(3) + 2
        if self.starts_global:
            self.decoder4: nn.Module = mapping_decoder(GLOBAL_GRID**2)
        else:
            decoder4 = flow_decoder(displacements)
            self.decoder4 = decoder4
            self.upsample_features4 = _doubling(decoder4.outputs)
            inputs3 += 2
        self.upsample_flow4 = _doubling(2)
        self.decoder3 = flow_decoder(inputs3)
        self.upsample_flow3 = _doubling(2)
        self.upsample_features3 = _doubling(self.decoder3.outputs)
        self.decoder2 = flow_decoder(compared(2) + 4)
        self.refinement2 = Refinement(self.decoder2.outputs)
        initialise(self)

    def forward(self, target: Tensor, source: Tensor) -> ThreeLevelFlows:
        """The flow from the target into the source, at every level.

        Args:
            target, source: B x 3 x h x w, normalised. GLOBAL-Net and GLOCAL-Net: 256 x 256; LOCAL-Net: multiples of 16.
        """
        return self.decode(self.encode(target), self.encode(source))

    def encode(self, image: Tensor, image_256: Tensor | None = None) -> ThreeLevelFeatures:
        """The features of one image of the pair; `image_256` is GLU-Net's, and not looked at."""
        features = self.encoder(image, levels=(2, 3, 4))
        return ThreeLevelFeatures(features[4], features[3], features[2])

    def adapt(self, features: Features, high: bool = True) -> ThreeLevelFeatures:
        """What this network's decoders read, from the encoder's features of a 256 frame as GLU-Net has them.

        `high` is GLU-Net's: there is nothing to leave out here.

        Raises:
            ValueError: features of another frame, which lack its level 4.
        """
        if features.level1.shape[-2:] != (LNET_SIZE // 4, LNET_SIZE // 4):
            height, width = (4 * side for side in features.level1.shape[-2:])
            raise ValueError(
                f"{self.config.network} takes GLU-Net's features of a 256 frame only, not {height} x {width}"
            )
        return ThreeLevelFeatures(features.level4, features.level3, features.level1)

    def decode(self, target: ThreeLevelFeatures, source: ThreeLevelFeatures, extra_levels: int = 0) -> ThreeLevelFlows:
        """The flow of every level from the features of the two images.

        Raises:
            ValueError: if extra levels are asked for, which only GLU-Net has (`glunet.inference.frames.FRAMINGS`).
        """
        if extra_levels:
            raise ValueError(f"{self.config.network} has no extra levels, but {extra_levels} were asked for")
        flow4, flow3, features3 = self._coarse(target, source)
        flow = self.upsample_flow3(flow3)
        seen = self.compare(target.level2, source.level2, flow, 1 / 4)
        features2, residual = self.decoder2(torch.cat((seen, flow, self.upsample_features3(features3).float()), dim=1))
        return ThreeLevelFlows(flow4, flow3, residual + flow + self.refinement2(features2))

    def level4(self, target: ThreeLevelFeatures, source: ThreeLevelFeatures) -> Tensor:
        """The coarsest flow alone."""
        return self._start(target, source)[0]

    def coarse(self, target: ThreeLevelFeatures, source: ThreeLevelFeatures) -> tuple[Tensor, Tensor]:
        """flow4 and flow3 alone."""
        return self._coarse(target, source)[:2]

    def _coarse(self, target: ThreeLevelFeatures, source: ThreeLevelFeatures) -> tuple[Tensor, Tensor, Tensor]:
        """flow4, flow3, and the features of decoder3."""
        flow4, upsampled = self._start(target, source)
        flow = self.upsample_flow4(flow4)
        seen = self.compare(target.level3, source.level3, flow, 1 / 8)
        features3, residual = self.decoder3(torch.cat((seen, flow, *upsampled), dim=1))
        return flow4, residual + flow, features3

    def _start(self, target: ThreeLevelFeatures, source: ThreeLevelFeatures) -> tuple[Tensor, list[Tensor]]:
        """flow4, and what else level 3 reads of level 4."""
        if self.starts_global:
            return global_flow(self.decoder4(self.global_scores(target, source))), []
        scores = local_correlation(target.level4, source.level4, self.config.radius).float()
        features, flow4 = self.decoder4(F.leaky_relu(scores, SLOPE))
        return flow4, [self.upsample_features4(features).float()]

    def global_scores(self, target: ThreeLevelFeatures, source: ThreeLevelFeatures) -> Tensor:
        """The global correlation as decoder4 reads it, B x 256 x 16 x 16, float32.

        Without mutual matching, and source position (xs, ys) in channel xs * 16 + ys, as the published weights have it.
        """
        with torch.autocast(target.level4.device.type, enabled=False):
            columns_first = l2_normalise(source.level4.float()).transpose(2, 3)
            return l2_normalise(F.relu(global_correlation(l2_normalise(target.level4.float()), columns_first)))

    def compare(self, target: Tensor, source: Tensor, flow: Tensor, scale: float) -> Tensor:
        """What a flow decoder reads of the target's features and the source's, warped by the flow times `scale`."""
        if self.correlates:
            return local_scores(target, source, flow, scale, self.config.radius)
        return torch.cat((target, warp(source, flow.detach() * scale)), dim=1).float()


def _doubling(inputs: int) -> nn.ConvTranspose2d:
    """A learned upsampling to two channels (SPEC 4.8)."""
    return nn.ConvTranspose2d(inputs, 2, 4, stride=2, padding=1)
