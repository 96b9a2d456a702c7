"""How far off a flow may be: a mixture of Laplace distributions at each position, and GLU-Net's own head that says it.

The mixture is PDC-Net's (Truong et al., CVPR 2021, section 3.2; SPEC 13). The head is ours: it sees the features of
both images and the finished flow alone, so that it can be learned while all else is frozen, and moves no flow.
"""

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.flow.geometry import in_view, resize_area, resize_bilinear, scale_flow, warp
from glunet.network import encoder
from glunet.network.correlation import l2_normalise, local_correlation
from glunet.network.decoder import SLOPE

RADIUS = 2  # of the correlations around where the flow leads
KIND = 16  # channels that tell what a place looks like
WIDTHS = (64, 64, 48, 32)  # of levels 4, 3, 2 and 1
# Standard deviations, pixels of the frame: the small component's lies between the first two, the large one's between
# the last two. PDC-Net's small one is always 1, which cannot tell a tenth of a pixel from one.
SMALL, LARGE = (0.05, 4.0), (2.0, 256.0)


class Mixture(NamedTuple):
    """Two Laplace distributions of the flow's error, at each position.

    Attributes:
        log_variance: B x 2 x h x w, natural logarithms of square pixels, the small one's (0 in PDC-Net) first.
        logits: B x 2 x h x w, their weights before the softmax.
    """

    log_variance: Tensor
    logits: Tensor

    def resized(self, size: tuple[int, int]) -> "Mixture":
        """On another grid, bilinearly; variances keep their unit."""
        return self if self.logits.shape[-2:] == size else Mixture.unpacked(resize_bilinear(self.packed(), size))

    def scaled(self, x: float, y: float) -> "Mixture":
        """In other pixels, of which one of these is x by y."""
        return Mixture(self.log_variance + math.log(x * y), self.logits)

    def probability(self, radius: float = 1.0) -> Tensor:
        """P_R: that the flow is right to within `radius` pixels in x and in y (paper equation 8): B x h x w, 0..1."""
        within = 1 - torch.exp(-(2**0.5) * radius * torch.exp(-self.log_variance / 2))
        shares = (self.logits.softmax(dim=1) * within.square()).sum(dim=1)
        return shares.clamp(max=1)  # two shares may sum to a little more in float32

    def variance(self) -> Tensor:
        """Of the flow's error in x, and as much in y, square pixels: B x h x w."""
        return (self.logits.softmax(dim=1) * self.log_variance.exp()).sum(dim=1)

    def deviation(self) -> Tensor:
        """The expected error, up to a factor, pixels: B x h x w, the mean of both standard deviations by weight."""
        return (self.logits.softmax(dim=1) * (self.log_variance / 2).exp()).sum(dim=1)

    def negative_log_likelihood(self, error: Tensor) -> Tensor:
        """Of errors in x and y, B x 2 x h x w, pixels (paper equation 3): B x h x w."""
        length = 2**0.5 * error.abs().sum(dim=1, keepdim=True)
        each = -math.log(2) - self.log_variance - length * torch.exp(-self.log_variance / 2)
        return -torch.logsumexp(self.logits.log_softmax(dim=1) + each, dim=1)

    def packed(self) -> Tensor:
        """Both log-variances and both logits: B x 4 x h x w."""
        return torch.cat(self, dim=1)

    @classmethod
    def unpacked(cls, values: Tensor) -> "Mixture":
        """Of what `packed` returned."""
        return cls(values[:, :2], values[:, 2:])


class UncertaintyHead(nn.Module):
    """The mixture of a finished flow, from how alike both images' features are around where it leads, level by level.

    At each level, coarse to fine: the correlation around the flow's end, how far the flow departs from its
    neighbours', whether it leads out of the source, what the place looks like, and what the level before predicted.
    """

    def __init__(self) -> None:
        super().__init__()
        seen = (2 * RADIUS + 1) ** 2 + 3
        before = 0
        # Levels 4 and 3 lie at 1/16 and 1/8 of the L-Net's frame, 2 and 1 at 1/8 and 1/4 of the H-Net's.
        kinds = [encoder.LEVELS[depth][-1] for depth in (4, 3, 3, 2)]
        for level, width, channels in zip((4, 3, 2, 1), WIDTHS, kinds, strict=True):
            self.add_module(f"kind{level}", nn.Conv2d(channels, KIND, 1))
            self.add_module(f"first{level}", nn.Conv2d(seen + KIND + before, width, 3, padding=1))
            self.add_module(f"second{level}", nn.Conv2d(width, width, 3, padding=1))
            before = width if level > 1 else 0
            if level == 4:
                before = 2 * width  # and its mean over the image
        self.predict = nn.Conv2d(WIDTHS[-1], 4, 3, padding=1)

    def forward(self, target: Sequence[Tensor], source: Sequence[Tensor], flow: Tensor) -> Mixture:
        """The mixture at level 1's grid.

        Args:
            target, source: features of the levels 4, 3, 2 and 1 (`glunet.network.glunet.Features`).
            flow: B x 2 x h x w on that grid, pixels of the H-Net frame, as `GLUNet.decode` ends with.

        Returns:
            log-variances in square pixels of that frame, float32.
        """
        height, width = flow.shape[-2:]
        frame = 4 * width, 4 * height
        x: Tensor | None = None
        for level, ours, theirs in zip((4, 3, 2, 1), target[:4], source[:4], strict=True):
            seen = self._seen(level, ours[:, :512], theirs[:, :512], flow, frame)
            if x is not None:
                seen = torch.cat((seen, resize_bilinear(x, seen.shape[-2:])), dim=1)
            for part in ("first", "second"):
                seen = F.leaky_relu(self.get_submodule(f"{part}{level}")(seen), SLOPE)
            x = seen
            if level == 4:
                x = torch.cat((x, x.mean(dim=(2, 3), keepdim=True).expand_as(x)), dim=1)
        with torch.autocast(flow.device.type, enabled=False):
            assert x is not None
            predicted = self.predict(x.to(self.predict.weight.dtype)).float()
        low, high = (
            torch.tensor(ends, dtype=torch.float32, device=flow.device).log() * 2
            for ends in zip(SMALL, LARGE, strict=True)
        )
        bounds = (low + (high - low) * torch.sigmoid(predicted[:, :2].movedim(1, -1))).movedim(-1, 1)
        return Mixture(bounds, predicted[:, 2:])

    def _seen(self, level: int, ours: Tensor, theirs: Tensor, flow: Tensor, frame: tuple[int, int]) -> Tensor:
        """What one level sees, B x C x its grid."""
        height, width = size = ours.shape[-2:]
        there = flow if flow.shape[-2:] == size else resize_area(flow, size)
        there = scale_flow(there.float(), width / frame[0], height / frame[1])
        ours, theirs = l2_normalise(ours.float()), l2_normalise(theirs.float())
        alike = local_correlation(ours, warp(theirs, there), RADIUS).float() * ours.shape[1]
        near = F.avg_pool2d(F.pad(there, (1, 1, 1, 1), mode="replicate"), 3, 1)
        cues = torch.log1p(10 * (there - near).abs()), in_view(there, (height, width))[:, None].float()
        kind = self.get_submodule(f"kind{level}")(ours)
        return torch.cat((alike, *cues, kind), dim=1)
