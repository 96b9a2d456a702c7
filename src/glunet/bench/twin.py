"""The plain twin: GLU-Net as its authors' programs run it, and a yardstick that stays as it is.

Four passes of VGG-16 over one image each (target and source in the H-Net frame, and both at 256 x 256), NCHW, float32,
BatchNorm as a layer of its own, decoders that concatenate, local correlation as 81 products with a padded, shifted
image. It shares nothing with the package's network but the names of the weights, and it is not to be made faster:
`glunet bench` tells how many times as fast the package is, and tests that both give the same flow.

The sections are those of the paper: 3.1 and 3.2 the correlations, 3.3 the adaptive resolution, 3.4 the decoders.
"""

import math
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional as F

if TYPE_CHECKING:
    from glunet.network.glunet import GLUNetConfig

VGG = ((64,), (64,), (128, 128), (256, 256, 256), (512, 512, 512))


class PlainTwin(nn.Module):
    """Takes the weights of a `glunet.network.glunet.GLUNet` with the same settings by `take`."""

    def __init__(self, config: "GLUNetConfig") -> None:
        super().__init__()
        self.radius, self.mutual = config.radius, config.mutual
        self.transposed = config.upsampling == "transposed"
        flow_decoder = DenseDecoder if config.decoder == "dense" else ResidualDecoder
        scores = (2 * config.radius + 1) ** 2
        self.encoder = Pyramid()
        read = 258 + (259 if config.adapter == "all" else 0)
        self.decoder4 = MappingDecoder() if config.mapping_decoder == "dense" else ResidualDecoder(read, "final")
        self.decoder3 = flow_decoder(scores + 2, "predict_flow")
        self.refinement3 = Refinement(self.decoder3.outputs)
        self.decoder2 = flow_decoder(scores + 2, "predict_flow")
        self.upsample_features2 = nn.ConvTranspose2d(self.decoder2.outputs, 2, 4, stride=2, padding=1)
        self.decoder1 = flow_decoder(scores + 4, "predict_flow")
        self.refinement1 = Refinement(self.decoder1.outputs)
        if self.transposed:
            self.upsample_flow4 = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
            self.upsample_flow2 = nn.ConvTranspose2d(2, 2, 4, stride=2, padding=1)
        self.described, self.adapted = config.adapter == "all", config.adapter != "none"
        if self.described:
            self.adapter4 = Describer()
        if self.adapted:
            self.adapter3, self.adapter2, self.adapter1 = Adapter(256), Adapter(256), Adapter(128)

    def take(self, state: dict[str, Tensor]) -> None:
        """The tensors of a network, but for those of a head that tells how far off the flow may be."""
        self.load_state_dict({name: tensor for name, tensor in state.items() if not name.startswith("uncertainty.")})

    def forward(self, source: Tensor, target: Tensor) -> Tensor:
        """The flow of pairs of images of one size, as `glunet.Matcher.flow` gives it.

        Args:
            source, target: B x 3 x H x W, RGB in 0..255.

        Returns:
            B x 2 x H x W, on the target's grid, in pixels.
        """
        height, width = target.shape[-2:]
        frame = max(256, height // 8 * 8), max(256, width // 8 * 8)
        extra_levels = max(0, round(math.log2(max(frame) / 256 / 3)))
        high = prepare(target, frame), prepare(source, frame)
        low = prepare(target, (256, 256)), prepare(source, (256, 256))
        flow = self.flows(*high, *low, extra_levels)[-1]
        flow = F.interpolate(flow, size=(height, width), mode="bilinear", align_corners=False)
        return flow * flow.new_tensor((width / frame[1], height / frame[0])).view(1, 2, 1, 1)

    def flows(
        self, target: Tensor, source: Tensor, target_256: Tensor, source_256: Tensor, extra_levels: int = 0
    ) -> list[Tensor]:
        """flow4, flow3, those of the extra levels, flow2 and flow1 of normalised images, as `GLUNet.forward`."""
        target1, target2 = self.encoder(target)[2:4]
        source1, source2 = self.encoder(source)[2:4]
        target3, target4 = self.encoder(target_256, 4)[3:5]
        source3, source4 = self.encoder(source_256, 4)[3:5]
        seen = self.global_scores(target4, source4)
        if self.described:
            seen = torch.cat((seen, self.adapter4(target4, target3, source4, source3)), dim=1)
        if self.adapted:
            target3, target2, target1 = self.adapter3(target3), self.adapter2(target2), self.adapter1(target1)
            source3, source2, source1 = self.adapter3(source3), self.adapter2(source2), self.adapter1(source1)
        height, width = target2.shape[-2:]

        # Level 4, 16 x 16: a map from the global correlation, then flow in pixels of 256.
        mapping = self.decoder4(F.pad(seen, (0, 0, 0, 0, 0, 2)))[-1]
        flow4 = ((mapping + 1) * 7.5 - pixels(mapping)) * 16

        # Level 3, 32 x 32.
        up = self.upsample_flow4(flow4) if self.transposed else resize(flow4, (32, 32))
        scores = self.local_scores(target3, source3, up, 1 / 8)
        features, residual = self.decoder3(torch.cat((scores, up), dim=1))
        flow3 = residual + up + self.refinement3(features)

        # Extra levels: level 2's decoder on coarser grids; flow in pixels of the H-Net frame from here on.
        flow = flow3 * flow3.new_tensor((8 * width / 256, 8 * height / 256)).view(1, 2, 1, 1)
        extra = []
        for i in range(extra_levels):
            divisor = 2 ** (extra_levels - i)
            size = (height // divisor, width // divisor)
            flow = resize(flow, size)
            small_target = F.interpolate(target2, size=size, mode="area")
            small_source = F.interpolate(source2, size=size, mode="area")
            scores = self.local_scores(small_target, small_source, flow, 1 / (8 * divisor))
            flow = flow + self.decoder2(torch.cat((scores, flow), dim=1))[1]
            extra.append(flow)

        # Level 2, an eighth of the frame.
        up = resize(flow, (height, width))
        scores = self.local_scores(target2, source2, up, 1 / 8)
        features, residual = self.decoder2(torch.cat((scores, up), dim=1))
        flow2 = residual + up

        # Level 1, a quarter of it.
        up = self.upsample_flow2(flow2) if self.transposed else resize(flow2, (2 * height, 2 * width))
        scores = self.local_scores(target1, source1, up, 1 / 4)
        features, residual = self.decoder1(torch.cat((scores, up, self.upsample_features2(features)), dim=1))
        flow1 = residual + up + self.refinement1(features)
        return [flow4, flow3, *extra, flow2, flow1]

    def global_scores(self, target: Tensor, source: Tensor) -> Tensor:
        """Every target position with every source position: B x 256 x 16 x 16, the source's in the channels."""
        scores = unit(source).flatten(2).transpose(1, 2) @ unit(target).flatten(2)
        if self.mutual:
            best_source = scores.amax(dim=1, keepdim=True) + 1e-5
            best_target = scores.amax(dim=2, keepdim=True) + 1e-5
            scores = scores * ((scores / best_source) * (scores / best_target))
        return unit(F.relu(scores.unflatten(2, target.shape[-2:])))

    def local_scores(self, target: Tensor, source: Tensor, flow: Tensor, scale: float) -> Tensor:
        """The mean product of target and warped source features at 81 displacements, dx fastest, then LeakyReLU."""
        warped = warp(source, flow * scale)
        height, width = target.shape[-2:]
        reach = self.radius
        padded = F.pad(warped, (reach, reach, reach, reach))
        scores = [
            (target * padded[:, :, dy : dy + height, dx : dx + width]).mean(dim=1)
            for dy in range(2 * reach + 1)
            for dx in range(2 * reach + 1)
        ]
        return F.leaky_relu(torch.stack(scores, dim=1), 0.1)


class Pyramid(nn.Module):
    """VGG-16 to the fourth pooling, in five levels; each but the first ends after its pooling."""

    def __init__(self) -> None:
        super().__init__()
        inputs = 3
        for level, widths in enumerate(VGG):
            layers: list[nn.Module] = []
            for width in widths:
                layers += [nn.Conv2d(inputs, width, 3, padding=1), nn.ReLU(inplace=True)]
                inputs = width
            if level > 0:
                layers.append(nn.MaxPool2d(2))
            self.add_module(f"level_{level}", nn.Sequential(*layers))

    def forward(self, image: Tensor, last: int = 3) -> list[Tensor]:
        """Levels 0 to `last`, at strides 1, 2, 4, 8, 16."""
        levels = []
        for level in range(last + 1):
            image = self.get_submodule(f"level_{level}")(image)
            levels.append(image)
        return levels


class Residual(nn.Module):
    """x and two convolutions of it."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, inner, 3, padding=1)
        self.second = nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.leaky_relu(self.first(x), 0.1))


class Adapter(nn.Module):
    """Features and a correction of them: not in the paper, but in the package's weights."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = Residual(channels, channels // 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.block(x)


class Describer(nn.Module):
    """Descriptors of level 4, and what its decoder reads of them: not in the paper, but in the package's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(1536, 256, 1)
        self.blocks = nn.Sequential(Residual(256, 256), Residual(256, 256))
        self.log_temperature = nn.Parameter(torch.zeros(()))

    def describe(self, level4: Tensor, level3: Tensor) -> Tensor:
        folded = F.pixel_unshuffle(level3, 2)
        seen = torch.cat((unit(level4) * 512**0.5, unit(folded) * 1024**0.5), dim=1)
        return unit(self.blocks(self.reduce(seen)))

    def forward(self, target4: Tensor, target3: Tensor, source4: Tensor, source3: Tensor) -> Tensor:
        """B x 259 x 16 x 16: the probability of each source position, its mean x and y, and how mutual it is."""
        ours, theirs = self.describe(target4, target3).flatten(2), self.describe(source4, source3).flatten(2)
        alike = theirs.transpose(1, 2) @ ours * self.log_temperature.exp()
        forward, back = alike.softmax(dim=1), alike.softmax(dim=2)
        places = (pixels(source4) / 7.5 - 1).flatten(1)
        read = torch.cat((forward, places @ forward, (forward * back).sum(dim=1, keepdim=True)), dim=1)
        return read.unflatten(2, target4.shape[-2:])


def block(inputs: int, outputs: int, dilation: int = 1, slope: float | None = 0.1) -> nn.Sequential:
    """Convolution, BatchNorm, LeakyReLU; without the last where the slope is None."""
    convolution = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation)
    activation = [] if slope is None else [nn.LeakyReLU(slope, inplace=True)]
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), *activation)


def head(inputs: int) -> nn.Conv2d:
    return nn.Conv2d(inputs, 2, 3, padding=1)


class MappingDecoder(nn.Module):
    """Level 4 as published: five blocks with ReLU, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.conv0, self.conv1 = block(258, 128, slope=0.0), block(128, 128, slope=0.0)
        self.conv2, self.conv3, self.conv4 = (
            block(128, 96, slope=0.0),
            block(96, 64, slope=0.0),
            block(64, 32, slope=0.0),
        )
        self.final = head(32)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the head sees, and what it says."""
        x = self.conv4(self.conv3(self.conv2(self.conv1(self.conv0(x)))))
        return x, self.final(x)


class DenseDecoder(nn.Module):
    """Five blocks, each fed with everything so far, the newest in front."""

    def __init__(self, inputs: int, last: str) -> None:
        super().__init__()
        for i, width in enumerate((128, 128, 96, 64, 32)):
            self.add_module(f"conv_{i}", block(inputs, width))
            inputs += width
        self.last, self.outputs = last, inputs
        self.add_module(last, head(inputs))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the head sees, and what it says."""
        for i in range(5):
            x = torch.cat((self.get_submodule(f"conv_{i}")(x), x), dim=1)
        return x, self.get_submodule(self.last)(x)


class ResidualDecoder(nn.Module):
    """Five blocks with two skips, as in the authors' later networks and in the weights of this package."""

    outputs = 32

    def __init__(self, inputs: int, last: str) -> None:
        super().__init__()
        self.conv_0 = block(inputs, 128, slope=None)
        self.conv0_skip = nn.Sequential(nn.Conv2d(128, 96, 1, bias=False), nn.BatchNorm2d(96))
        self.conv_1, self.conv_2 = block(128, 128), block(128, 96, slope=None)
        self.conv2_skip = nn.Sequential(nn.Conv2d(96, 32, 1, bias=False), nn.BatchNorm2d(32))
        self.conv_3, self.conv_4 = block(96, 64), block(64, 32, slope=None)
        self.last = last
        self.add_module(last, head(32))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """What the head sees, and what it says."""
        first = self.conv_0(x)
        second = self.conv_2(self.conv_1(F.leaky_relu(first, 0.1))) + self.conv0_skip(first)
        third = self.conv_4(self.conv_3(F.leaky_relu(second, 0.1))) + self.conv2_skip(second)
        x = F.leaky_relu(third, 0.1)
        return x, self.get_submodule(self.last)(x)


class Refinement(nn.Module):
    """Six dilated blocks and a head."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        widths, dilations = (128, 128, 128, 96, 64, 32), (1, 2, 4, 8, 16, 1)
        for i, (width, dilation) in enumerate(zip(widths, dilations, strict=True), start=1):
            self.add_module(f"conv{i}", block(inputs, width, dilation))
            inputs = width
        self.conv7 = head(inputs)

    def forward(self, x: Tensor) -> Tensor:
        for i in range(1, 8):
            x = self.get_submodule(f"conv{i}")(x)
        return x


def prepare(image: Tensor, size: tuple[int, int]) -> Tensor:
    """Resized by areas, ImageNet's mean and standard deviation taken out."""
    image = F.interpolate(image.float(), size=size, mode="area") / 255
    mean, std = image.new_tensor((0.485, 0.456, 0.406)), image.new_tensor((0.229, 0.224, 0.225))
    return (image - mean.view(3, 1, 1)) / std.view(3, 1, 1)


def resize(flow: Tensor, size: tuple[int, int]) -> Tensor:
    """Another grid, values unchanged."""
    return F.interpolate(flow, size=size, mode="bilinear", align_corners=False)


def unit(features: Tensor) -> Tensor:
    """Of length 1 at each position."""
    return features / (features.square().sum(dim=1, keepdim=True) + 1e-6).sqrt()


def pixels(like: Tensor) -> Tensor:
    """2 x H x W: the x and y of each pixel."""
    height, width = like.shape[-2:]
    y, x = torch.meshgrid(
        torch.arange(height, dtype=like.dtype, device=like.device),
        torch.arange(width, dtype=like.dtype, device=like.device),
        indexing="ij",
    )
    return torch.stack((x, y))


def warp(source: Tensor, flow: Tensor) -> Tensor:
    """The source's features where the flow points, bilinearly, zero outside."""
    height, width = source.shape[-2:]
    x, y = (pixels(flow) + flow).unbind(dim=1)
    grid = torch.stack((2 * x / max(width - 1, 1) - 1, 2 * y / max(height - 1, 1) - 1), dim=-1)
    return F.grid_sample(source, grid, mode="bilinear", padding_mode="zeros", align_corners=True)
