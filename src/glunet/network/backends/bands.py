"""Local correlation on a CPU, for inference: a band of a matrix product, without copies of padded or shifted features.

A stripe of a few columns of the target meets a window that is `radius` wider on each side. With the window's rows one
behind the other in memory, all that a row of the stripe is compared with is one matrix, and the matrices of successive
rows overlap: one batched product makes every score of the stripe. The wanted ones are the diagonals of the product,
which are a view of it.
"""

import torch
from torch import Tensor

STRIPE = 8  # columns: with more, more of the product is not wanted; with fewer, the products are too small


def banded_correlation(target: Tensor, source: Tensor, radius: int, slope: float = 1.0) -> Tensor:
    """`glunet.network.correlation.local_correlation`, then LeakyReLU of this slope. Not differentiable.

    Args:
        target, source: B x C x H x W; without a copy where they are channels last.
        slope: 1 for no activation.

    Returns:
        B x (2 radius + 1)^2 x H x W, channels last; in float32, or float64 as the features are.
    """
    dtype = torch.promote_types(target.dtype, torch.float32)
    batch, channels, height, width = target.shape
    target, source = (features.to(dtype).permute(0, 2, 3, 1) for features in (target, source))
    reach, wide = 2 * radius + 1, STRIPE + 2 * radius
    out = target.new_empty((batch, height, width, reach * reach))
    window = target.new_zeros((height + 2 * radius, wide, channels))
    rows = window.as_strided((height, reach * wide, channels), (wide * channels, channels, 1))
    with torch.autocast(target.device.type, enabled=False):
        for b in range(batch):
            for start in range(0, width, STRIPE):
                columns = min(STRIPE, width - start)
                low, high = max(0, start - radius), min(width, start + STRIPE + radius)
                if high - low < wide:
                    window.zero_()  # what lies outside the image
                inside = window[radius : radius + height, low - start + radius : high - start + radius]
                torch.mul(source[b, :, low:high], 1 / channels, out=inside)
                scores = torch.bmm(target[b, :, start : start + columns], rows.transpose(1, 2))
                band = scores.as_strided(
                    (height, columns, reach, reach), (columns * reach * wide, reach * wide + 1, wide, 1)
                )
                place = out[b, :, start : start + columns].unflatten(-1, (reach, reach))
                torch.ops.aten.leaky_relu.out(band, slope, out=place)
    return out.permute(0, 3, 1, 2)
