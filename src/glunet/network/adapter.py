"""Adapters: small networks on the frozen encoder's features, learned to be compared (not in the paper).

VGG-16 was made to name what is in a photograph. What it says of a place is compared better after a few convolutions
that learned just that.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.network.correlation import global_correlation, l2_normalise
from glunet.network.decoder import SLOPE

DESCRIBED = 256  # channels of the global adapter's descriptors


class GlobalAdapter(nn.Module):
    """One descriptor of unit length for each position of level 4, from the features of levels 4 and 3.

    Learned by the likelihood of the true position under a softmax over all positions (as LoFTR, Sun et al. 2021, learns
    its coarse matches).
    """

    def __init__(self) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(1536, DESCRIBED, 1)
        self.blocks = nn.ModuleList(_Residual(DESCRIBED, DESCRIBED) for _ in range(2))
        self.log_temperature = nn.Parameter(torch.tensor(3.0))

    def forward(self, level4: Tensor, level3: Tensor) -> Tensor:
        """B x 512 x h x w and B x 256 x 2h x 2w -> B x DESCRIBED x h x w."""
        folded = F.pixel_unshuffle(level3, 2)
        seen = [l2_normalise(level.float()) * level.shape[1] ** 0.5 for level in (level4, folded)]
        x = self.reduce(torch.cat(seen, dim=1).to(self.reduce.weight.dtype))
        for block in self.blocks:
            x = block(x)
        return l2_normalise(x.float())

    def logits(self, target: Tensor, source: Tensor) -> Tensor:
        """Cosine similarities of descriptors over the temperature: B x S x h x w, S source positions, float32."""
        return global_correlation(target.float(), source.float()) * self.log_temperature.float().exp()

    def reading(self, target: Tensor, source: Tensor) -> Tensor:
        """What level 4's decoder reads of two images' descriptors.

        Returns:
            B x (S + 3) x h x w: the probability of each source position, its expected coordinates x and y (-1..1 the
            first and last position), and how far the choice is mutual (0..1).
        """
        logits = self.logits(target, source)
        probability = logits.softmax(dim=1)
        back = logits.flatten(2).softmax(dim=2).view_as(logits)
        y, x = (torch.linspace(-1, 1, side, dtype=logits.dtype, device=logits.device) for side in source.shape[-2:])
        places = torch.stack((x.expand(len(y), -1).flatten(), y[:, None].expand(-1, len(x)).flatten()))
        expected = torch.einsum("cs,bshw->bchw", places, probability)
        return torch.cat((probability, expected, (probability * back).sum(dim=1, keepdim=True)), dim=1)


class LocalAdapter(nn.Module):
    """Features of a level, corrected: the correction starts at zero, so that weights without it stay what they are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.block = _Residual(channels, channels // 2)
        nn.init.zeros_(self.block.second.weight)
        nn.init.zeros_(self.block.second.bias)  # type: ignore[arg-type]

    def forward(self, features: Tensor) -> Tensor:
        """B x C x h x w both ways, in the features' dtype."""
        return self.block(features.to(self.block.first.weight.dtype)).to(features.dtype)


class _Residual(nn.Module):
    """x and two 3x3 convolutions of it, with LeakyReLU before the second."""

    def __init__(self, channels: int, inner: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, inner, 3, padding=1)
        self.second = nn.Conv2d(inner, channels, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.second(F.leaky_relu(self.first(x), SLOPE))
