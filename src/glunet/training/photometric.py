"""Photometric differences as between real views of a scene, on batches, each image on its own.

Random parameters come from a CPU generator; the pictures may be on any device.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

# The luminance quantisation table of the JPEG standard (ITU-T T.81, annex K).
_QUANTISATION = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)


def augment(images: Tensor, generator: torch.Generator, strength: float = 1.0) -> Tensor:
    """Exposure, white balance, saturation, gamma, shadow, blur, noise, JPEG and grey, each at random.

    Args:
        images: B x 3 x H x W, RGB in 0..1.
        generator: a CPU generator.
        strength: 1 for differences as between photographs by two cameras, 0 for none.

    Returns:
        B x 3 x H x W in 0..1, rounded to whole grey levels as a file would be.
    """
    count, device = len(images), images.device

    def uniform(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        return (torch.rand((count, *shape), generator=generator) * (high - low) + low).to(device)

    def some(share: float, *shape: int) -> Tensor:
        return (torch.rand((count, *shape), generator=generator) < share).to(device)

    exposure = (0.45 * strength * uniform(1, 1, 1)).exp()
    balance = (0.12 * strength * uniform(3, 1, 1)).exp()
    gamma = (0.35 * strength * uniform(1, 1, 1)).exp()
    grey = images.mean(dim=1, keepdim=True)
    saturation = 1 + 0.6 * strength * uniform(1, 1, 1)
    saturation = torch.where(some(0.12 * strength, 1, 1, 1), 0.0, saturation)
    images = grey + (images - grey) * saturation
    images = (images.clamp(0, 1) ** gamma) * exposure * balance
    middle = images.mean(dim=(1, 2, 3), keepdim=True)
    images = middle + (images - middle) * (1 + 0.3 * strength * uniform(1, 1, 1))
    images = images * _shadow(images, uniform, some(0.35 * strength, 1, 1, 1), strength)
    images = torch.where(some(0.35 * strength, 1, 1, 1), _blur(images, uniform(low=0.3, high=1.8)), images)
    noise = torch.where(some(0.5, 1, 1, 1), 0.03 * strength * uniform(1, 1, 1, low=0.0), 0.0)
    images = images + noise * torch.randn(images.shape, generator=generator).to(device)
    images = images.clamp(0, 1)
    chosen = some(0.3 * strength).nonzero()[:, 0]
    if len(chosen):
        images[chosen] = _jpeg(images[chosen], uniform(low=0.5, high=4.0)[chosen])
    return (images * 255).round().clamp(0, 255) / 255


def _shadow(images: Tensor, uniform: Callable[..., Tensor], chosen: Tensor, strength: float) -> Tensor:
    """A soft edge between light and shade across the picture."""
    height, width = images.shape[-2:]
    y = torch.linspace(-1, 1, height, device=images.device).view(1, 1, -1, 1)
    x = torch.linspace(-1, 1, width, device=images.device).view(1, 1, 1, -1)
    angle = math.pi * uniform(1, 1, 1)
    across = angle.cos() * x + angle.sin() * y + 0.5 * uniform(1, 1, 1)
    shade = 1 + 0.5 * strength * uniform(1, 1, 1) * torch.sigmoid(across * uniform(1, 1, 1, low=1.0, high=12.0))
    return torch.where(chosen, shade, 1.0)


def _blur(images: Tensor, sigma: Tensor) -> Tensor:
    """Gaussian blur, one sigma (pixels) an image."""
    count, channels, height, width = images.shape
    reach = torch.arange(-4, 5, device=images.device, dtype=images.dtype)
    kernel = (-0.5 * (reach / sigma[:, None]) ** 2).exp()
    kernel = (kernel / kernel.sum(1, keepdim=True)).repeat_interleave(channels, 0)[:, None]
    flat = F.pad(images, (4, 4, 4, 4), mode="reflect").view(1, count * channels, height + 8, width + 8)
    flat = F.conv2d(flat, kernel[..., None], groups=count * channels)
    flat = F.conv2d(flat, kernel[:, :, None], groups=count * channels)
    return flat.view(count, channels, height, width)


def _jpeg(images: Tensor, coarseness: Tensor) -> Tensor:
    """What JPEG leaves of pictures: 8 x 8 cosine coefficients rounded to multiples of the standard table's steps.

    `coarseness` scales the table: 1 is a quality of 50, 0.5 of 75.
    """
    height, width = images.shape[-2:]
    n = torch.arange(8, device=images.device, dtype=images.dtype)
    basis = torch.cos(math.pi * (2 * n + 1) * n[:, None] / 16) * math.sqrt(2 / 8)
    basis[0] /= math.sqrt(2)
    padded = F.pad(images, (0, -width % 8, 0, -height % 8), mode="replicate") * 255 - 128
    blocks = padded.unfold(2, 8, 8).unfold(3, 8, 8)
    table = images.new_tensor(_QUANTISATION) * coarseness.view(-1, 1, 1, 1, 1, 1)
    coefficients = (basis @ blocks @ basis.T / table).round() * table
    blocks = basis.T @ coefficients @ basis
    out = blocks.permute(0, 1, 2, 4, 3, 5).reshape(padded.shape)[..., :height, :width]
    return ((out + 128) / 255).clamp(0, 1)
