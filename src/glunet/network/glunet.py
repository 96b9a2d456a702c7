"""GLU-Net (paper section 3, figure 3; SPEC 5): global correlation, then local ones, over two resolutions.

L-Net sees a fixed 256 x 256 copy of the images: a *global* correlation at 16 x 16 finds motion of any size (level 4), a
*local* one at 32 x 32 sharpens it (level 3). H-Net sees the images at their own resolution: local correlations at an
eighth (level 2) and a quarter (level 1) of it. Where the two resolutions are far apart, extra levels lie between
(adaptive resolution, paper section 3.3).

Every flow lives on the target's grid and points into the source. flow4 and flow3 are in pixels of the 256 frame, flow2,
flow1 and the extra levels' in pixels of the H-Net frame, whatever their grids; only for warping is a flow brought to
the units of its grid.
"""

from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.flow.geometry import map_to_flow, mirror_flow, resize_area, resize_bilinear, scale_flow
from glunet.network.adapter import DESCRIBED, GlobalAdapter, LocalAdapter
from glunet.network.correlation import global_correlation, l2_normalise, local_scores, mutual_matching
from glunet.network.decoder import (
    DenseFlowDecoder,
    MappingDecoder,
    ResidualFlowDecoder,
    ResidualMappingDecoder,
)
from glunet.network.encoder import VGG16Pyramid
from glunet.network.refinement import Refinement
from glunet.network.uncertainty import Mixture, UncertaintyHead

LNET_SIZE = 256  # side of the L-Net's frame
GLOBAL_GRID = 16  # side of the global correlation's grid


@dataclass(frozen=True)
class GLUNetConfig:
    """What tells one GLU-Net from another.

    Attributes:
        decoder: "dense" as published (SPEC 4.5, 4.6), or "residual" (SPEC 11.5), with half the parameters.
        mapping_decoder: the same choice for level 4.
        upsampling: how flow4 and flow2 reach the next grid: "transposed" convolutions, as published, or "bilinear".
        radius: of the local correlations.
        mutual: mutual matching in the global correlation; the semantic network has neighbourhood consensus instead.
        adapter: learned corrections of the encoder's features before they are compared (`glunet.network.adapter`): of
            levels 3, 2 and 1 ("local"), of level 4 as well ("all"), or none, as published.
        uncertainty: a head that says how far off the flow may be (`glunet.network.uncertainty`); not in the paper.
        network: its name (`glunet.network.family`).
        global_iterations, local_iterations: steps of GOCor's optimisers, in networks that have them (SPEC 12).
    """

    decoder: Literal["dense", "residual"] = "dense"
    mapping_decoder: Literal["dense", "residual"] = "dense"
    upsampling: Literal["transposed", "bilinear"] = "transposed"
    radius: int = 4
    mutual: bool = True
    adapter: Literal["none", "local", "all"] = "none"
    uncertainty: bool = False
    network: Literal["glunet", "semantic-glunet", "glunet-gocor", "pdc-net"] = "glunet"
    global_iterations: int = 3
    local_iterations: int = 3


class Features(NamedTuple):
    """What the encoder says of one image, and all that the decoders need of it.

    Attributes:
        level4: B x 512 x 16 x 16 (behind them an adapter's descriptors; behind all that, with an ensemble, as much of
            the mirrored copy, at the same places) and
        level3: B x 256 x 32 x 32, of the 256 x 256 copy;
        level2: B x 256 x h/8 x w/8 and
        level1: B x 128 x h/4 x w/4, of the H-Net image.
    """

    level4: Tensor
    level3: Tensor
    level2: Tensor
    level1: Tensor


Coarse = tuple[Tensor, Tensor]  # flow4 and flow3


class Flows(NamedTuple):
    """The flow of every level (units in the module's docstring).

    Attributes:
        flow4: B x 2 x 16 x 16.
        flow3: B x 2 x 32 x 32.
        extra: the extra levels', coarse to fine; empty without.
        flow2: B x 2 x h/8 x w/8.
        flow1: B x 2 x h/4 x w/4: the answer, before it is resized to the target.
    """

    flow4: Tensor
    flow3: Tensor
    extra: tuple[Tensor, ...]
    flow2: Tensor
    flow1: Tensor


class GLUNet(nn.Module):
    """The network: normalised images in, flow of every level out.

    Attributes:
        two_frames: it sees an image and its 256 x 256 copy; networks of three levels see one of them.
    """

    two_frames = True

    def __init__(self, config: GLUNetConfig | None = None) -> None:
        super().__init__()
        self.config = config = config or GLUNetConfig()
        flow_decoder = DenseFlowDecoder if config.decoder == "dense" else ResidualFlowDecoder
        mapping_decoder = MappingDecoder if config.mapping_decoder == "dense" else ResidualMappingDecoder
        displacements = (2 * config.radius + 1) ** 2

        self.encoder = VGG16Pyramid()
        self.decoder4 = mapping_decoder(GLOBAL_GRID**2 + (GLOBAL_GRID**2 + 3 if config.adapter == "all" else 0))
        self.decoder3 = flow_decoder(displacements + 2)
        self.refinement3 = Refinement(self.decoder3.outputs)
        self.decoder2 = flow_decoder(displacements + 2)
        self.upsample_features2 = nn.ConvTranspose2d(self.decoder2.outputs, 2, 4, stride=2, padding=1)
        self.decoder1 = flow_decoder(displacements + 4)
        self.refinement1 = Refinement(self.decoder1.outputs)
        if config.upsampling == "transposed":
            self.upsample_flow4 = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
            self.upsample_flow2 = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
        initialise(self)
        if config.adapter == "all":
            self.adapter4 = GlobalAdapter()
        if config.adapter != "none":
            self.adapter3, self.adapter2, self.adapter1 = LocalAdapter(256), LocalAdapter(256), LocalAdapter(128)
        if config.uncertainty:
            self.uncertainty = UncertaintyHead()

    @property
    def has_descriptors(self) -> bool:
        """Whether an adapter of level 4 describes its positions."""
        return self.config.adapter == "all"

    @property
    def has_uncertainty(self) -> bool:
        """Whether it says how far off its flow may be (`mixture`)."""
        return self.config.uncertainty

    @property
    def channels4(self) -> int:
        """Of level 4's features of one image."""
        return 512 + (DESCRIBED if self.has_descriptors else 0)

    def forward(
        self, target: Tensor, source: Tensor, target_256: Tensor, source_256: Tensor, extra_levels: int = 0
    ) -> Flows:
        """The flow from the target into the source, at every level.

        Args:
            target, source: B x 3 x h x w, the H-Net's images, h and w multiples of 8 and at least 256, normalised.
            target_256, source_256: B x 3 x 256 x 256, the L-Net's, normalised.
            extra_levels: how many levels to put between L-Net and H-Net (`glunet.inference.frames.extra_levels`).
        """
        return self.decode(self.encode(target, target_256), self.encode(source, source_256), extra_levels)

    def encode(self, image: Tensor, image_256: Tensor, mirrored_256: Tensor | None = None) -> Features:
        """The features of one image of the pair; a frame of 256 x 256, given twice, is encoded once.

        Args:
            mirrored_256: the L-Net's copy mirrored from left to right, for an ensemble: levels 4 and 3 then give the
                mean of the pair's flow and the mirrored pair's, mirrored back (geometric self-ensemble, Lim et al.,
                CVPRW 2017); level 3 compares the same features in both.
        """
        if image_256 is image:
            every = self.encoder(image, levels=(2, 3, 4))
            features = self.adapt(Features(every[4], every[3], every[3], every[2]))
        else:
            features = self._encode_low(image_256)
            level2, level1 = self.encode_high(image)
            features = features._replace(level2=level2, level1=level1)
        if mirrored_256 is None:
            return features
        mirrored = self._encode_low(mirrored_256).level4.flip(-1)
        return features._replace(level4=torch.cat((features.level4, mirrored), dim=1))

    def _encode_low(self, image_256: Tensor) -> Features:
        """As `encode`, levels 4 and 3 alone; the others are those of level 3, and stand for none."""
        low = self.encoder(image_256, levels=(3, 4))
        return self.adapt(Features(low[4], low[3], low[3], low[3]), high=False)

    def encode_high(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """`level2` and `level1` of the features of an H-Net image."""
        features = self.encoder(image, levels=(2, 3))
        return self.adapt_high(features[3], features[2])

    def adapt(self, features: Features, high: bool = True) -> Features:
        """What this network's decoders read, from the encoder's features as GLU-Net has them.

        Without adapters just those. The descriptors of an adapter of level 4 follow its 512 channels.

        Args:
            high: levels 2 and 1 as well.
        """
        if self.config.adapter == "none":
            return features
        level4, level3, level2, level1 = features
        if self.has_descriptors:
            level4 = torch.cat((level4, self.adapter4(level4, level3).to(level4.dtype)), dim=1)
        fine = self.adapt_high(level2, level1) if high else (level2, level1)
        return Features(level4, self.adapter3(level3), *fine)

    def adapt_high(self, level2: Tensor, level1: Tensor) -> tuple[Tensor, Tensor]:
        """As `adapt`, levels 2 and 1 alone, or a part of them."""
        if self.config.adapter == "none":
            return level2, level1
        return self.adapter2(level2), self.adapter1(level1)

    def coarse(self, target: Features, source: Features, detach: bool = False, passes: int = 1) -> Coarse:
        """flow4 and flow3 alone; `detach` and `passes` as for `decode`."""
        flow4 = self.level4(target, source)
        flow = flow4.detach() if detach else flow4
        for _ in range(passes - 1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
                flow = self.level3(target, source, flow)
        return flow4, self.level3(target, source, flow)

    def decode(
        self,
        target: Features,
        source: Features,
        extra_levels: int = 0,
        detach: bool = False,
        passes: int = 1,
        known: Coarse | None = None,
    ) -> Flows:
        """The flow of every level from the features of the two images.

        Args:
            detach: no gradient from a level's flow into the coarser ones', or into that of an earlier pass: each learns
                from its own errors alone.
            passes: how often level 3, and levels 2 and 1 together, go over their flow, the next time around what the
                last time gave; 1 in the paper. The correlations and decoders run again, the encoder does not.
            known: flow4 and flow3, where they are.
        """
        flow4, flow3 = known or self.coarse(target, source, detach, passes)
        extra = self.between(target, source, flow3.detach() if detach else flow3, extra_levels)
        flow = extra[-1] if extra else self.to_hnet_frame(flow3, target)
        pair = [target, source]
        del target, source  # where the caller keeps none either, the memory of a level is free for the next one
        return Flows(flow4, flow3, extra, *self.fine(pair, flow, detach, passes))

    def fine(self, pair: list[Features], flow: Tensor, detach: bool = False, passes: int = 1) -> tuple[Tensor, Tensor]:
        """flow2 and flow1, the H-Net's levels, around a flow in pixels of its frame, on any grid.

        Args:
            pair: the target's features and the source's. They are taken out of the list.
            detach, passes: as for `decode`.
        """
        for _ in range(passes - 1):
            with torch.set_grad_enabled(torch.is_grad_enabled() and not detach):
                flow = self.fine(list(pair), flow)[1]
        source, target = pair.pop(), pair.pop()
        features2, flow2 = self.level2(target, source, flow.detach() if detach else flow)
        finest = target.level1, source.level1
        del target, source
        up, upsampled = self.upsampled(flow2.detach() if detach else flow2, features2)
        seen = self.level1_input(*finest, up, upsampled)
        del finest, features2, upsampled
        return flow2, self.level1(seen, up)

    def level4(self, target: Features, source: Features) -> Tensor:
        """Global correlation at 16 x 16, decoded to a correspondence map, as flow in 256-frame pixels (SPEC 5.1)."""
        if not self._mirrored(target):
            return global_flow(self.decoder4(self.global_scores(target, source)))
        own = self.channels4
        plain = self.level4(*(image._replace(level4=image.level4[:, :own]) for image in (target, source)))
        other = self.level4(*(image._replace(level4=image.level4[:, own:].flip(-1)) for image in (target, source)))
        return (plain + mirror_flow(other)) / 2

    def _mirrored(self, image: Features) -> bool:
        """Whether the features have those of the mirrored copy."""
        return image.level4.shape[1] > self.channels4

    def global_scores(self, target: Features, source: Features) -> Tensor:
        """The global correlation as decoder4 reads it, B x 256 x 16 x 16 (515 with an adapter), float32."""
        with torch.autocast(target.level4.device.type, enabled=False):
            ours, theirs = target.level4.float(), source.level4.float()
            correlation = global_correlation(l2_normalise(ours[:, :512]), l2_normalise(theirs[:, :512]))
            if self.config.mutual:
                correlation = mutual_matching(correlation)
            scores = l2_normalise(F.relu(correlation))
            if not self.has_descriptors:
                return scores
            # Descriptors learn by their likelihood alone (`glunet.training.loss.descriptor_loss`).
            described = slice(512, self.channels4)
            read = self.adapter4.reading(ours[:, described].detach(), theirs[:, described].detach())
            return torch.cat((scores, read), dim=1)

    def descriptor_logits(self, target: Features, source: Features) -> Tensor:
        """How alike an adapter of level 4 finds every position with every other: B x 256 x 16 x 16, float32."""
        ours, theirs = (image.level4[:, 512 : self.channels4] for image in (target, source))
        return self.adapter4.logits(ours, theirs)

    def level3(self, target: Features, source: Features, flow: Tensor) -> Tensor:
        """Local correlation at 32 x 32 around the upsampled flow4, or a flow3, and refinement (SPEC 5.2)."""
        if flow.shape[-1] == GLOBAL_GRID:
            flow = self.upsample_flow4(flow) if self.config.upsampling == "transposed" else _double(flow)
        ours, theirs = target.level3, source.level3
        plain = self._level3(ours, theirs, flow)
        if not self._mirrored(target):
            return plain
        return (plain + mirror_flow(self._level3(ours.flip(-1), theirs.flip(-1), mirror_flow(flow)))) / 2

    def _level3(self, target: Tensor, source: Tensor, flow: Tensor) -> Tensor:
        correlation = self.local_scores(target, source, flow, 1 / 8)
        features, residual = self.decoder3(torch.cat((correlation, flow), dim=1))
        return residual + flow + self.refinement3(features)

    def to_hnet_frame(self, flow3: Tensor, target: Features) -> Tensor:
        """flow3 in pixels of the H-Net frame, on level 2's grid (SPEC 5.3)."""
        height, width = target.level2.shape[-2:]
        flow = resize_bilinear(flow3, (height, width))
        return scale_flow(flow, 8 * width / LNET_SIZE, 8 * height / LNET_SIZE)

    def between(self, target: Features, source: Features, flow3: Tensor, levels: int) -> tuple[Tensor, ...]:
        """The extra levels: level 2's decoder on coarser grids, coarse to fine (paper section 3.3, SPEC 5.3)."""
        height, width = target.level2.shape[-2:]
        flow = scale_flow(flow3, 8 * width / LNET_SIZE, 8 * height / LNET_SIZE)
        flows = []
        for i in range(levels):
            divisor = 2 ** (levels - i)
            size = (height // divisor, width // divisor)
            flow = resize_bilinear(flow, size)
            correlation = self.local_scores(
                resize_area(target.level2, size), resize_area(source.level2, size), flow, 1 / (8 * divisor)
            )
            flow = flow + self.decoder2(torch.cat((correlation, flow), dim=1))[1]
            flows.append(flow)
        return tuple(flows)

    def level2(self, target: Features, source: Features, flow: Tensor) -> tuple[Tensor, Tensor]:
        """Local correlation at an eighth of the H-Net frame (SPEC 5.4): decoder features and flow2."""
        flow = resize_bilinear(flow, target.level2.shape[-2:])
        correlation = self.local_scores(target.level2, source.level2, flow, 1 / 8)
        features, residual = self.decoder2(torch.cat((correlation, flow), dim=1))
        return features, residual + flow

    def upsampled(self, flow2: Tensor, features2: Tensor) -> tuple[Tensor, Tensor]:
        """flow2 and decoder2's features on level 1's grid, B x 2 x h/4 x w/4 each (SPEC 5.5)."""
        flow = self.upsample_flow2(flow2) if self.config.upsampling == "transposed" else _double(flow2)
        return flow, self.upsample_features2(features2).float()

    def level1_input(self, target: Tensor, source: Tensor, flow: Tensor, features: Tensor) -> Tensor:
        """Local correlation at a quarter of the H-Net frame (SPEC 5.5), as decoder1 reads it, with what is `upsampled`.

        Args:
            target, source: the `level1` of their features.
        """
        return torch.cat((self.local_scores(target, source, flow, 1 / 4), flow, features), dim=1)

    def level1(self, seen: Tensor, flow: Tensor) -> Tensor:
        """flow1 from `level1_input` and the upsampled flow2: decoder and refinement."""
        features, residual = self.decoder1(seen)
        del seen
        return residual + flow + self.refinement1(features)

    def mixture(self, target: Features, source: Features, flow1: Tensor) -> Mixture:
        """How far off flow1 may be, on its grid, in pixels of the H-Net frame, for networks with that head."""
        return self.uncertainty(target, source, flow1)

    def local_scores(self, target: Tensor, source: Tensor, flow: Tensor, scale: float) -> Tensor:
        """The local correlation around a flow times `scale`, on the features' grid, as the flow decoders read it."""
        return local_scores(target, source, flow, scale, self.config.radius)


def global_flow(mapping: Tensor) -> Tensor:
    """A map at 16 x 16, -1..1 the first and last pixel centre, as flow in 256-frame pixels (SPEC 5.1)."""
    return map_to_flow(((mapping + 1) * ((GLOBAL_GRID - 1) / 2)).float()) * (LNET_SIZE / GLOBAL_GRID)


def initialise(network: nn.Module) -> None:
    """He-normal convolutions with zero biases; bilinear upsampling; flow residuals that start at zero.

    With the heads of the flow decoders and refinement networks at zero a level begins as its upsampled input.
    """
    for name, module in network.named_modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        if isinstance(module, nn.ConvTranspose2d):
            nn.init.zeros_(module.bias)  # type: ignore[arg-type]
            if module.in_channels == 2:
                tap = torch.tensor((0.25, 0.75, 0.75, 0.25))
                with torch.no_grad():
                    module.weight.zero_()
                    module.weight[(0, 1), (0, 1)] = torch.outer(tap, tap)
            else:
                nn.init.normal_(module.weight, std=(1 / (4 * module.in_channels)) ** 0.5)
        if name.endswith(("predict_flow", "conv7")):
            nn.init.zeros_(module.weight)


def _double(flow: Tensor) -> Tensor:
    """Twice the grid, values unchanged: what `upsampling="bilinear"` does instead of a transposed convolution."""
    return resize_bilinear(flow, (2 * flow.shape[-2], 2 * flow.shape[-1]))
