"""PDC-Net (Truong et al., CVPR 2021; SPEC 13): the flow, and at each pixel how far off it may be.

GLU-Net-GOCor with residual decoders. Each level also predicts a mixture of two Laplace distributions of the flow's
error: one of variance 1, for what is right, and one of large variance, for what is not (paper section 3.2). What it
goes by is the plain correlation around each position (3.3), the flow decoder's features, and the mixture of the level
before. PDC-Net+ (arXiv 2109.13912) is the same network, trained otherwise.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.flow.geometry import warp
from glunet.network.correlation import global_correlation, l2_normalise, local_correlation
from glunet.network.decoder import SLOPE, WIDTHS
from glunet.network.glunet import GLOBAL_GRID, Features, GLUNet, GLUNetConfig, global_flow, initialise
from glunet.network.gocor import GlobalGOCor, LocalGOCor
from glunet.network.refinement import Refinement
from glunet.network.uncertainty import Mixture

LEAST_VARIANCE = 2.0  # of the large component, square pixels
MOST_LNET, MOST_HNET = 256.0**2, 520.0**2  # and the most that the two halves of the network may say
STEP_REGULARISATION = 0.1  # of the global GOCor
AT_ONCE = 1 << 15  # positions whose correlations are looked at in one batch, where nothing learns


class PDCFlows(NamedTuple):
    """As `glunet.network.glunet.Flows`, without extra levels, and the mixture of each level.

    Attributes:
        answer: flow1 and the packed mixture1, B x 6 x h/4 x w/4.
    """

    flow4: Tensor
    flow3: Tensor
    flow2: Tensor
    flow1: Tensor
    mixture4: Mixture
    mixture3: Mixture
    mixture2: Mixture
    mixture1: Mixture
    answer: Tensor


def _block(inputs: int, outputs: int, padding: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=padding)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.LeakyReLU(SLOPE, inplace=True))


class CorrelationUncertainty(nn.Module):
    """What a position's correlation says, as an image of its own (paper section 3.3): one peak, several, or none.

    Args:
        side: of that image; 16 at the global level, else 9.
    """

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side
        self.conv_0, self.conv_1, self.conv_2 = _block(1, 32, 0), _block(32, 32, 0), _block(32, 16, 0)
        self.predict_uncertainty = nn.Conv2d(16, 6, 3)

    def forward(self, correlation: Tensor) -> Tensor:
        """B x side^2 x h x w -> B x 6 x h x w."""
        batch, _, height, width = correlation.shape
        images = correlation.permute(0, 2, 3, 1).reshape(-1, 1, self.side, self.side)
        parts = (images,) if torch.is_grad_enabled() else images.split(AT_ONCE)
        seen = torch.cat([self._seen(part) for part in parts])
        return seen.view(batch, height, width, 6).permute(0, 3, 1, 2)

    def _seen(self, images: Tensor) -> Tensor:
        x = self.conv_0(images)
        if self.side == GLOBAL_GRID:
            x = F.max_pool2d(x, 2)
        return self.predict_uncertainty(self.conv_2(self.conv_1(x)))


class Uncertainty(nn.Module):
    """The mixture of a level: from its correlation's, its flow decoder's features and those of the level before."""

    def __init__(self, inputs: int, most: float) -> None:
        super().__init__()
        self.most = most
        self.conv_0, self.conv_1 = _block(inputs, 32, 1), _block(32, 16, 1)
        self.predict_uncertainty_final = nn.Conv2d(16, 3, 3, padding=1)

    def forward(self, *seen: Tensor) -> Mixture:
        """B x inputs x h x w, in parts -> the mixture, its large variance within its bounds (equation 6)."""
        x = self.predict_uncertainty_final(self.conv_1(self.conv_0(torch.cat(seen, dim=1))))
        most = torch.tensor(self.most, device=x.device)
        share = torch.sigmoid(x[:, :1] - most.log())
        large = torch.log(LEAST_VARIANCE + (most - LEAST_VARIANCE) * share)
        return Mixture(torch.cat((torch.zeros_like(large), large), dim=1), x[:, 1:])


class PDCNet(GLUNet):
    """The network: normalised images in, flow and mixture of every level out."""

    def __init__(self, config: GLUNetConfig | None = None) -> None:
        super().__init__(config or GLUNetConfig("residual", "residual", network="pdc-net"))
        config = self.config
        if config.radius != 4:
            raise ValueError(f"PDC-Net looks at 9 x 9 displacements, radius 4, not {config.radius}")
        displacements, features = (2 * config.radius + 1) ** 2, WIDTHS[-1]
        flow_decoder = type(self.decoder3)
        self.decoder3, self.decoder2 = flow_decoder(displacements + 6), flow_decoder(displacements + 6)
        self.decoder1 = flow_decoder(displacements + 8)
        self.refinement3, self.refinement1 = Refinement(features + 2), Refinement(features + 2)
        for level, side in ((4, GLOBAL_GRID), (3, 9), (2, 9), (1, 9)):
            self.add_module(f"corr_uncertainty_decoder{level}", CorrelationUncertainty(side))
            most = MOST_LNET if level > 2 else MOST_HNET
            self.add_module(f"uncertainty_decoder{level}", Uncertainty(6 + features + (0 if level == 4 else 6), most))
        initialise(self)
        self.global_gocor = GlobalGOCor(iterations=config.global_iterations, step_regularisation=STEP_REGULARISATION)
        self.local_gocor = LocalGOCor(config.radius, config.local_iterations)
        self.global_gocor.label_map_predictor.requires_grad_(False)

    def decode(  # type: ignore[override]
        self, target: Features, source: Features, extra_levels: int = 0, detach: bool = False, passes: int = 1
    ) -> PDCFlows:
        """The flow and the mixture of every level. There are no extra levels, and one pass only.

        Raises:
            ValueError: if more was asked for.
        """
        if extra_levels or passes != 1:
            raise ValueError("PDC-Net has no extra levels, and one pass")
        flow4, mixture4 = self._level4(target, source)
        up = self.upsample_flow4(flow4)
        x, flow3, mixture3 = self._local(3, target.level3, source.level3, up, mixture4, 1 / 8)
        up = self.to_hnet_frame(flow3, target)
        x, flow2, mixture2 = self._local(2, target.level2, source.level2, up, mixture3, 1 / 8)
        up, features = self.upsample_flow2(flow2), self.upsample_features2(x)
        _, flow1, mixture1 = self._local(1, target.level1, source.level1, up, mixture2, 1 / 4, features)
        answer = torch.cat((flow1, mixture1.packed()), dim=1)
        return PDCFlows(flow4, flow3, flow2, flow1, mixture4, mixture3, mixture2, mixture1, answer)

    def coarse(
        self, target: Features, source: Features, detach: bool = False, passes: int = 1
    ) -> tuple[Tensor, Tensor]:
        """flow4 and flow3 alone."""
        flow4, mixture = self._level4(target, source)
        up = self.upsample_flow4(flow4)
        return flow4, self._local(3, target.level3, source.level3, up, mixture, 1 / 8)[1]

    def _level4(self, target: Features, source: Features) -> tuple[Tensor, Mixture]:
        own, other = l2_normalise(target.level4.float()), l2_normalise(source.level4.float())
        correlation = F.leaky_relu(self.global_gocor(own, other), SLOPE)
        decoder: Any = self.decoder4
        x = decoder.blocks(F.pad(correlation, (0, 0, 0, 0, 0, 2)))
        plain = l2_normalise(F.relu(global_correlation(own, other)))
        seen = self.get_submodule("corr_uncertainty_decoder4")(plain)
        return global_flow(decoder.final(x)), self.get_submodule("uncertainty_decoder4")(seen, x)

    def _local(
        self,
        level: int,
        target: Tensor,
        source: Tensor,
        up: Tensor,
        mixture: Mixture,
        scale: float,
        features: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Mixture]:
        """One local level around the upsampled flow: features, flow, mixture."""
        target, warped = target.float(), warp(source.float(), up.detach() * scale)
        before = torch.cat(mixture.resized((up.shape[-2], up.shape[-1])), dim=1)
        correlation = F.leaky_relu(self.local_gocor(target, warped), SLOPE)
        more = () if features is None else (features,)
        x, residual = self.get_submodule(f"decoder{level}")(torch.cat((correlation, up, *more, before), dim=1))
        flow, seen_by_flow = up + residual, x
        if level != 2:
            refinement: Any = self.get_submodule(f"refinement{level}")
            refined, correction = refinement.features_and_flow(torch.cat((x, flow), dim=1))
            flow, seen_by_flow = flow + correction, x + refined
        plain = F.leaky_relu(local_correlation(target, warped, self.config.radius), SLOPE)
        seen = self.get_submodule(f"corr_uncertainty_decoder{level}")(plain)
        return x, flow, self.get_submodule(f"uncertainty_decoder{level}")(seen, seen_by_flow, before, up)
