"""The encoder as inference on a CPU runs it: the same features, a few rows of the image at a time.

VGG's first layers are its largest by far: of a 520 x 520 image each is 69 MB. Such a block costs more time, to
be had from the system and to be read again from outside the caches, than some of the convolutions do. So a level is
computed from its input to its pooling in strips of a few MB, each with as many rows around it as its convolutions look
at; only what was pooled is kept. That takes a fifth of the memory and, channels last, a little over half of the time.
"""

import copy
from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.network.encoder import VGG16Pyramid

STRIP = 4 * 2**20  # bytes of a strip's largest layer, about: what stays in the caches of one or two cores
LEAST = 16  # rows of a strip


class StripPyramid(nn.Module):
    """A `VGG16Pyramid` for inference: called alike, in a precision of its own, images one after the other.

    In float32, where level 4 is asked for, the encoder's own layers compute from level 2 on. The global correlation and
    the map that is read from it make 2e-3 px of a feature's last bit, and what sums in the published network's order
    stays nearer to it. The 256 x 256 images that level 4 is asked for are small by then: strips would gain nothing.

    Args:
        encoder: whose weights are copied, channels last.
        dtype: of the computation and of the features.
    """

    def __init__(self, encoder: VGG16Pyramid, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.dtype = dtype
        self.encoder = encoder
        self.exact = dtype == torch.float32
        self.levels: list[list[nn.Conv2d]] = []
        for level in list(encoder.children())[: 4 if self.exact else 5]:
            self.levels.append([_laid_out(layer, dtype) for layer in level.children() if isinstance(layer, nn.Conv2d)])

    def forward(self, image: Tensor, levels: Iterable[int]) -> dict[int, Tensor]:
        """As `VGG16Pyramid.forward`; the features are channels last. Not differentiable."""
        wanted = set(levels)
        features = {}
        waiting: list[nn.Conv2d] = []  # level 0 ends without a pooling, and level 1 goes on where it ends
        for level in range(max(wanted) + 1):
            if self.exact and 4 in wanted and level >= 2:
                image = self.encoder.get_submodule(f"level_{level}")(image.contiguous())
                features.update({level: image} if level in wanted else {})
                continue
            waiting.extend(self.levels[level])
            if level > 0 or level in wanted:
                image = in_strips(image, waiting, self.dtype, pooled=level > 0)
                waiting = []
            if level in wanted:
                features[level] = image
        return features


def in_strips(image: Tensor, layers: list[nn.Conv2d], dtype: torch.dtype, pooled: bool, strip: int = STRIP) -> Tensor:
    """3x3 convolutions with ReLU, one after the other, and a 2x2 max pooling, without the layers in between at once.

    Args:
        image: B x C x H x W.
        layers: with zero padding 1; their weights of type `dtype`.
        pooled: whether the pooling follows.
        strip: bytes of a strip's largest layer.

    Returns:
        B x D x H x W, halved where pooled, channels last.
    """
    batch, _, height, width = image.shape
    step = 2 if pooled else 1
    row = max(layer.out_channels for layer in layers) * width * dtype.itemsize
    rows = max(LEAST, strip // row // 2 * 2)
    out = torch.empty(
        (batch, layers[-1].out_channels, height // step, width // step),
        dtype=dtype,
        device=image.device,
        memory_format=torch.channels_last,
    )
    end = height // step * step  # an odd last row is seen, but not pooled
    for number in range(batch):
        for start in range(0, end, rows):
            stop = min(start + rows, end)
            part = _convolved(image[number : number + 1], layers, dtype, start, stop, last_relu=not pooled)
            place = out[number : number + 1, :, start // step : stop // step]
            if pooled:
                part = part[..., : width // 2 * 2]
                part = torch.maximum(part[:, :, 0::2], part[:, :, 1::2])
                torch.maximum(part[..., 0::2], part[..., 1::2], out=place).relu_()  # after: a quarter of the work
            else:
                place.copy_(part)
    return out


def _convolved(
    image: Tensor, layers: list[nn.Conv2d], dtype: torch.dtype, start: int, stop: int, last_relu: bool
) -> Tensor:
    """Rows start:stop after the last layer."""
    height, around = image.shape[2], len(layers)
    part = image[:, :, max(0, start - around) : stop + around].to(dtype, memory_format=torch.channels_last)
    for i, layer in enumerate(layers):
        beyond = around - 1 - i  # rows that the layers after this one look at
        top, bottom = start - beyond <= 0, stop + beyond >= height
        # At the image's edge there are zeros around; elsewhere the rows at hand are all that count.
        part = F.conv2d(part, layer.weight, layer.bias, padding=(int(top or bottom), 1))
        if top != bottom:
            part = part[:, :, :-1] if top else part[:, :, 1:]
        if last_relu or beyond:
            part = part.relu_()
    return part


def _laid_out(layer: nn.Conv2d, dtype: torch.dtype) -> nn.Conv2d:
    """A copy of the layer, without one of its weights in their own precision in between."""
    twin = copy.copy(layer)
    twin._parameters = {
        "weight": nn.Parameter(
            layer.weight.detach().to(dtype, copy=True, memory_format=torch.channels_last), requires_grad=False
        ),
        "bias": None if layer.bias is None else nn.Parameter(layer.bias.detach().to(dtype), requires_grad=False),
    }
    return twin
