"""GOCor (Truong et al., NeurIPS 2020; SPEC 12): correlation with filters that are optimised for the images at hand.

A plain correlation compares the target's features with the source's. Here each target position has a filter instead,
which begins as that position's feature and is then made, by a few steps of steepest descent, to answer to its own
place of the target and to no other (the reference loss), and, globally, to answer to the source smoothly (the query
loss). The answers of these filters on the source are the correlation: repeated and flat structure matches less
everywhere at once. The step length is the minimum along the gradient of the loss's Gauss-Newton approximation.

In the paper's words the target is the *reference* and the source the *query*.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.flow.geometry import warp
from glunet.network.correlation import (
    global_correlation,
    l2_normalise,
    local_correlation,
    local_correlation_transposed,
)
from glunet.network.decoder import SLOPE
from glunet.network.glunet import Features, GLUNet, GLUNetConfig

BINS, SPACING = 10, 0.5  # of the distance basis: how many, and how far apart in positions of the grid
QUERY_CHANNELS = 16  # of the query loss' 4-D convolution, in between and at its end
STRIP = 64 * 2**20  # bytes of a strip's local correlation, about: what bounds the memory of large frames


class Optimiser(nn.Module):
    """What the global and the local layer have in common: step length, regularisation, and three maps of distance.

    Each map is a piecewise linear function of the distance between the filter's own place and another: `label` is the
    wanted answer y, `weight` how much it counts v, `mask` (0..1) how much a negative answer counts m.
    """

    def __init__(self) -> None:
        super().__init__()
        self.log_step_length = nn.Parameter(torch.zeros(1))
        self.filter_reg = nn.Parameter(torch.full((1,), 1e-2))
        self.label_map_predictor = nn.Conv2d(BINS, 1, 1, bias=False)
        self.spatial_weight_predictor = nn.Conv2d(BINS, 1, 1, bias=False)
        self.target_mask_predictor = nn.Sequential(nn.Conv2d(BINS, 1, 1, bias=False), nn.Sigmoid())
        at = SPACING * torch.arange(BINS).view(1, -1, 1, 1)
        label = torch.exp(-at.square() / 2)
        with torch.no_grad():
            self.label_map_predictor.weight.copy_(label - label.min())
            self.spatial_weight_predictor.weight.fill_(1)
            self.target_mask_predictor.get_parameter("0.weight").copy_(4 * torch.tanh(2 - at))

    def maps(self, distance: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """y, v and m at distances H x W, in positions of the grid: H x W each."""
        bins = torch.arange(BINS, device=distance.device).view(-1, 1, 1)
        basis = F.relu(1 - (distance / SPACING - bins).abs())
        last = (1 + distance / SPACING - (BINS - 1)).clamp(0, 1)
        basis = torch.cat((basis[:-1], last[None]))[None].to(self.log_step_length.dtype)
        predictors = (self.label_map_predictor, self.spatial_weight_predictor, self.target_mask_predictor)
        label, weight, mask = (predictor(basis)[0, 0] for predictor in predictors)
        return label, weight, mask

    @property
    def step(self) -> Tensor:
        """The step length's learnt factor."""
        return self.log_step_length.exp()


def activation(scores: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """The answer as the reference loss counts it, and its derivative: as it is where `mask` is 1, its size where 0."""
    size, own = (1 - mask) / 2, (1 + mask) / 2
    return size * scores.abs() + own * scores, size * scores.sign() + own


class LocalGOCor(Optimiser):
    """The local layer (SPEC 12.1): one filter a target position, its answers within a window around it.

    Args:
        radius: of the window.
        iterations: steps of descent; 3 in training, 7 in the paper's evaluation.
    """

    def __init__(self, radius: int = 4, iterations: int = 3) -> None:
        super().__init__()
        self.radius, self.iterations = radius, iterations
        self.scaling = nn.Parameter(torch.ones(1))

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """As `local_correlation` of this radius: B x C x H x W twice -> B x (2R + 1)^2 x H x W.

        Where nothing learns, rows of a large frame are worked on in strips: no position looks at another's filter.
        """
        height, width = target.shape[-2:]
        diameter = 2 * self.radius + 1
        rows = max(16, STRIP // (4 * diameter**2 * width * len(target)))
        if rows >= height or torch.is_grad_enabled():
            return self._optimised(target, source)
        strips = []
        for start in range(0, height, rows):
            first, end = max(0, start - self.radius), min(height, start + rows + self.radius)
            strip = self._optimised(target[:, :, first:end], source[:, :, first:end])
            strips.append(strip[:, :, start - first : min(height, start + rows) - first])
        return torch.cat(strips, dim=2)

    def _optimised(self, target: Tensor, source: Tensor) -> Tensor:
        channels = target.shape[1]
        offsets = torch.arange(-self.radius, self.radius + 1, device=target.device, dtype=torch.float32)
        distance = torch.hypot(offsets[:, None], offsets)
        label, weight, mask = (values.reshape(1, -1, 1, 1) for values in self.maps(distance))
        regularisation = self.filter_reg.square().clamp(min=1e-10) / channels**2
        filters = self.scaling * target / (target.square().mean(dim=1, keepdim=True) + 1e-6)
        for _ in range(self.iterations):
            answers, slope = activation(local_correlation(filters, target, self.radius), mask)
            slope = weight * slope
            residual = slope * (weight * answers - weight * label)
            gradient = regularisation * filters + local_correlation_transposed(residual, target, self.radius)
            squared = gradient.square().sum(dim=1, keepdim=True)
            curvature = (slope * local_correlation(gradient, target, self.radius)).square().sum(dim=1, keepdim=True)
            length = squared / (curvature + regularisation * squared).clamp(min=1e-8)
            filters = filters - self.step * length * gradient
        return local_correlation(filters, source, self.radius)


class QueryLoss(nn.Module):
    """The linear operator R of the query loss: a 4-D convolution, a 2-D one over the source and one over the target.

    It sees how the answers of neighbouring filters change between neighbouring source positions.
    """

    def __init__(self) -> None:
        super().__init__()
        self.weight1 = nn.Parameter(torch.empty(QUERY_CHANNELS, 1, 3, 3))
        self.weight2 = nn.Parameter(torch.empty(QUERY_CHANNELS, QUERY_CHANNELS, 3, 3))
        for weight in (self.weight1, self.weight2):
            nn.init.normal_(weight, std=1e-3)

    def forward(self, scores: Tensor, target_size: tuple[int, int], source_size: tuple[int, int]) -> Tensor:
        """R of B x T x S (target and source positions, row-major): B * S x 16 x Ht x Wt."""
        batch = len(scores)
        x = F.conv2d(scores.reshape(-1, 1, *source_size), self.weight1, padding=1)
        x = x.view(batch, -1, QUERY_CHANNELS, source_size[0] * source_size[1]).permute(0, 3, 2, 1)
        return F.conv2d(x.reshape(-1, QUERY_CHANNELS, *target_size), self.weight2, padding=1)

    def transposed(self, z: Tensor, source_size: tuple[int, int]) -> Tensor:
        """R's transpose: as `forward` returns -> B x T x S."""
        target = z.shape[-2] * z.shape[-1]
        source = source_size[0] * source_size[1]
        x = F.conv_transpose2d(z, self.weight2, padding=1)
        x = x.view(-1, source, QUERY_CHANNELS, target).permute(0, 3, 2, 1)
        x = F.conv_transpose2d(x.reshape(-1, QUERY_CHANNELS, *source_size), self.weight1, padding=1)
        return x.view(-1, target, source)


class GlobalGOCor(Optimiser):
    """The global layer (SPEC 12.2): one filter a target position, its answers on all of the source.

    Args:
        channels: of the features.
        iterations: steps of descent.
        step_regularisation: added to the denominator of the step length, times the squared gradient; 0.1 in PDC-Net.
    """

    def __init__(self, channels: int = 512, iterations: int = 3, step_regularisation: float = 0.0) -> None:
        super().__init__()
        self.iterations, self.step_regularisation = iterations, step_regularisation
        self.target_fg = nn.Parameter(torch.ones(channels))
        self.target_bg = nn.Parameter(torch.zeros(channels))
        self.reg_layer = QueryLoss()

    def forward(self, target: Tensor, source: Tensor) -> Tensor:
        """As `global_correlation`: B x C x Ht x Wt, B x C x Hs x Ws -> B x (Hs * Ws) x Ht x Wt.

        Args:
            target, source: of unit length at each position.
        """
        size, source_size = _size(target), _size(source)
        own, other = target.flatten(2).transpose(1, 2), source.flatten(2).transpose(1, 2)
        y, x = torch.meshgrid(*(torch.arange(n, device=target.device) for n in size), indexing="ij")
        places = torch.stack((y.flatten(), x.flatten()), dim=-1).float()
        label, weight, mask = self.maps(torch.cdist(places, places, compute_mode="donot_use_mm_for_euclid_dist"))
        regularisation = self.filter_reg.square().clamp(min=1e-10)
        filters = self._first(own)
        for _ in range(self.iterations):
            answers, slope = activation(filters @ own.transpose(1, 2), mask)
            slope = weight * slope
            residual = slope * (weight * answers - weight * label)
            seen = self.reg_layer(filters @ other.transpose(1, 2), size, source_size)
            gradient = regularisation * filters + residual @ own
            gradient = gradient + self.reg_layer.transposed(seen, source_size) @ other
            squared = gradient.square().sum(dim=(1, 2), keepdim=True)
            curvature = (slope * (gradient @ own.transpose(1, 2))).square().sum(dim=(1, 2), keepdim=True)
            query = self.reg_layer(gradient @ other.transpose(1, 2), size, source_size)
            curvature = curvature + query.view(len(own), -1).square().sum(dim=1).view(-1, 1, 1)
            bound = (curvature + regularisation * squared).clamp(min=1e-8) + self.step_regularisation * squared
            filters = filters - self.step * (squared / bound) * gradient
        return global_correlation(filters.transpose(1, 2).unflatten(2, size), source)

    def _first(self, own: Tensor) -> Tensor:
        """Filters, B x N x C, that answer to their own feature and not to the mean one."""
        mean = own.mean(dim=1, keepdim=True)
        ff, bb, fb = own.square().sum(-1, True), mean.square().sum(-1, True), (own * mean).sum(-1, True)
        bound = (ff * bb - fb.square()).clamp(min=1e-6)
        fg, bg = self.target_fg, self.target_bg
        return ((fg * bb - bg * fb) * own - (fg * fb - bg * ff) * mean) / bound


def _size(features: Tensor) -> tuple[int, int]:
    return features.shape[-2], features.shape[-1]


class GOCorGLUNet(GLUNet):
    """GLU-Net with both correlations optimised: GLU-Net-GOCor. One local layer serves all local levels."""

    def __init__(self, config: GLUNetConfig | None = None) -> None:
        super().__init__(config or GLUNetConfig(network="glunet-gocor"))
        self.global_gocor = GlobalGOCor(iterations=self.config.global_iterations)
        self.local_gocor = LocalGOCor(self.config.radius, self.config.local_iterations)

    def global_scores(self, target: Features, source: Features) -> Tensor:
        """The optimised global correlation as decoder4 reads it, B x 256 x 16 x 16, float32."""
        with torch.autocast(target.level4.device.type, enabled=False):
            normalised = (l2_normalise(features.level4.float()) for features in (target, source))
            return F.leaky_relu(self.global_gocor(*normalised), SLOPE)

    def local_scores(self, target: Tensor, source: Tensor, flow: Tensor, scale: float) -> Tensor:
        """The optimised local correlation around a flow times `scale`, as the flow decoders read it, float32."""
        with torch.autocast(target.device.type, enabled=False):
            warped = warp(source, flow.detach() * scale)
            return F.leaky_relu(self.local_gocor(target.float(), warped.float()), SLOPE)
