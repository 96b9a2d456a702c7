"""The network as inference runs it: a twin with each BatchNorm folded into the convolution before it.

In evaluation mode BatchNorm multiplies and shifts every channel by constants, which the convolution's own weights can
do. The twin is made from the trainable network and shares with it whatever is the same in both; the trainable network,
its names and its state dict stay as they are.
"""

import copy
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Module = TypeVar("Module", bound=nn.Module)


class FoldedBlock(nn.Module):
    """Convolution and activation of a block whose BatchNorm is in the convolution's weights.

    Attributes:
        slope: of the LeakyReLU; 0 is ReLU, 1 none.
    """

    def __init__(self, weight: Tensor, bias: Tensor, like: nn.Conv2d, slope: float) -> None:
        super().__init__()
        self.weight, self.bias = nn.Buffer(weight, persistent=False), nn.Buffer(bias, persistent=False)
        self.padding, self.dilation, self.slope = like.padding, like.dilation, slope

    def forward(self, x: Tensor) -> Tensor:
        """In the precision of the weights, channels last."""
        x = x.to(self.weight.dtype, memory_format=torch.channels_last)
        x = F.conv2d(x, self.weight, self.bias, padding=self.padding, dilation=self.dilation)
        if self.slope == 1:
            return x
        return x.relu_() if self.slope == 0 else F.leaky_relu_(x, self.slope)


def folded(network: Module, dtype: torch.dtype = torch.float32, but: tuple[str, ...] = ()) -> Module:
    """The network's twin for inference: as it would compute in evaluation mode, with no BatchNorm left.

    Args:
        network: in evaluation mode; is left as it is.
        dtype: of the folded convolutions and what they return. All else (heads, upsampling, encoder, what has no
            BatchNorm) keeps its own, and is shared with `network`.
        but: names of parts of the network to leave as they are.
    """

    def fold(module: nn.Module) -> nn.Module | None:
        layers = list(module.children()) if isinstance(module, nn.Sequential) else []
        if len(layers) < 2 or not isinstance(layers[0], nn.Conv2d) or not isinstance(layers[1], nn.BatchNorm2d):
            return None
        slope = 1.0
        for activation in layers[2:]:
            if not isinstance(activation, nn.LeakyReLU):
                return None
            slope = activation.negative_slope
        weight, bias = folded_weights(layers[0], layers[1])
        weight = weight.to(dtype).contiguous(memory_format=torch.channels_last)
        return FoldedBlock(weight, bias.to(dtype), layers[0], slope)

    kept = [part for name, part in network.named_children() if name in but]
    return twin(network, lambda module: module if any(module is part for part in kept) else fold(module))


@torch.no_grad()
def folded_weights(convolution: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Weight and bias of the one convolution that does what the two do in evaluation mode, computed in float64."""
    mean, variance = norm.running_mean, norm.running_var
    if mean is None or variance is None:
        raise ValueError("a BatchNorm without running statistics depends on its batch and cannot be folded")
    double = torch.float64 if convolution.weight.device.type != "mps" else torch.float32
    scale = norm.weight.to(double) * (variance.to(double) + norm.eps).rsqrt()
    bias = 0 if convolution.bias is None else convolution.bias.to(double)
    weight = convolution.weight.to(double) * scale.view(-1, 1, 1, 1)
    return weight.float(), ((bias - mean.to(double)) * scale + norm.bias.to(double)).float()


def twin(module: Module, replace: Callable[[nn.Module], nn.Module | None]) -> Module:
    """A copy of a module in which `replace` exchanged parts; tensors and parts it leaves alone are shared.

    Args:
        replace: a module -> what stands in its place, or None to look into it.
    """
    copied = copy.copy(module)
    copied._modules = {}
    changed = False
    for name, child in module._modules.items():
        new = None if child is None else (replace(child) or twin(child, replace))
        changed |= new is not child
        copied._modules[name] = new
    return copied if changed else module
