"""The encoder as inference on a CPU runs it: the same features, a few rows of the image at a time.

VGG's first layers are its largest by far: of a 520 x 520 image each is 69 MB. Such a block costs more time, to
be had from the system and to be read again from outside the caches, than some of the convolutions do. So a level is
computed from its input to its pooling in strips of a few MB, each with as many rows around it as its convolutions look
at; only what was pooled is kept. That takes a fifth of the memory and, channels last, a little over half of the time.
"""

import copy
from collections.abc import Iterable, Sequence

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
        self.exact = dtype == torch.float32
        self.encoder = encoder if self.exact else None
        self.levels: list[list[nn.Conv2d]] = []
        for level in list(encoder.children())[: 4 if self.exact else 5]:
            self.levels.append([_laid_out(layer, dtype) for layer in level.children() if isinstance(layer, nn.Conv2d)])

    def forward(self, image: Tensor, levels: Iterable[int]) -> dict[int, Tensor]:
        """As `VGG16Pyramid.forward`; the features are channels last. Not differentiable."""
        wanted = set(levels)
        features = {}
        before: list[nn.Conv2d] = []
        waiting: list[nn.Conv2d] = []  # level 0 ends without a pooling, and level 1 goes on where it ends
        for level in range(max(wanted) + 1):
            if self.exact and 4 in wanted and level >= 2:
                assert self.encoder is not None
                layers = self.encoder.get_submodule(f"level_{level}")
                image = torch.cat([layers(one) for one in image.contiguous().split(1)])
                features.update({level: image} if level in wanted else {})
                continue
            waiting.extend(self.levels[level])
            # The largest map, of level 1, is not there as a whole where only level 2 looks at it.
            passing = level == 1 and not wanted & {0, 1} and not (self.exact and 4 in wanted) and max(wanted) > 1
            if passing:
                before, waiting = waiting, []
            elif level > 0 or level in wanted:
                image = in_strips(image, waiting, self.dtype, pooled=level > 0, before=before)
                before, waiting = [], []
            if level in wanted:
                features[level] = image
        return features


def in_strips(
    image: Tensor,
    layers: Sequence[nn.Conv2d],
    dtype: torch.dtype,
    pooled: bool,
    strip: int = STRIP,
    before: Sequence[nn.Conv2d] = (),
) -> Tensor:
    """3x3 convolutions with ReLU, one after the other, and a 2x2 max pooling, without the layers in between at once.

    Args:
        image: B x C x H x W.
        layers: with zero padding 1; their weights of type `dtype`.
        pooled: whether the pooling follows.
        strip: bytes of a strip's largest layer.
        before: layers, with a pooling, whose result is what `layers` are for: it is made as they come to it.

    Returns:
        B x D x H x W, halved where pooled, channels last.
    """
    batch = len(image)
    height, width = (side // 2 if before else side for side in image.shape[2:])
    step = 2 if pooled else 1
    rows = _rows(layers, width, dtype, strip)
    out = torch.empty(
        (batch, layers[-1].out_channels, height // step, width // step),
        dtype=dtype,
        device=image.device,
        memory_format=torch.channels_last,
    )
    end = height // step * step  # an odd last row is seen, but not pooled
    for number in range(batch):
        one = image[number : number + 1]
        seen: Tensor | Passing = Passing(one, before, dtype, strip) if before else one
        for start in range(0, end, rows):
            stop = min(start + rows, end)
            part = _convolved(seen, layers, dtype, start, stop, last_relu=not pooled)
            place = out[number : number + 1, :, start // step : stop // step]
            if pooled:
                _pool(part, place)
            else:
                place.copy_(part)
    return out


class Passing:
    """The rows of a level for the next one: made in strips as they are asked for, downwards, and then let go."""

    def __init__(self, image: Tensor, layers: Sequence[nn.Conv2d], dtype: torch.dtype, strip: int) -> None:
        self.image, self.layers, self.dtype = image, layers, dtype
        self.step = _rows(layers, image.shape[3], dtype, strip)
        self.height, self.width = (side // 2 for side in image.shape[2:])
        self.first = self.made = 0  # rows that are there: first:made
        self.there: list[Tensor] = []

    def rows(self, start: int, stop: int) -> Tensor:
        """1 x D x (stop - start) x width; `start` never less than before."""
        while self.made < min(stop, self.height):
            end = min(2 * self.made + self.step, 2 * self.height)
            part = _convolved(self.image, self.layers, self.dtype, 2 * self.made, end, last_relu=False)
            place = part.new_empty((1, self.layers[-1].out_channels, end // 2 - self.made, self.width))
            place = place.contiguous(memory_format=torch.channels_last)
            _pool(part, place)
            self.there.append(place)
            self.made = end // 2
        whole = torch.cat(self.there, dim=2)[:, :, start - self.first :]
        self.there, self.first = [whole], start
        return whole[:, :, : stop - start]


def _rows(layers: Sequence[nn.Conv2d], width: int, dtype: torch.dtype, strip: int) -> int:
    """Of a strip; an even number."""
    row = max(layer.out_channels for layer in layers) * width * dtype.itemsize
    return max(LEAST, strip // row // 2 * 2)


def _pool(part: Tensor, place: Tensor) -> None:
    """2 x 2 max pooling and ReLU into `place`; an odd last column is left out."""
    part = part[..., : part.shape[3] // 2 * 2]
    part = torch.maximum(part[:, :, 0::2], part[:, :, 1::2])
    torch.maximum(part[..., 0::2], part[..., 1::2], out=place).relu_()  # after: a quarter of the work


def _convolved(
    image: "Tensor | Passing", layers: Sequence[nn.Conv2d], dtype: torch.dtype, start: int, stop: int, last_relu: bool
) -> Tensor:
    """Rows start:stop after the last layer."""
    around = len(layers)
    low, high = max(0, start - around), stop + around
    if isinstance(image, Passing):
        height, part = image.height, image.rows(low, high)
    else:
        height, part = image.shape[2], image[:, :, low:high].to(dtype, memory_format=torch.channels_last)
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
