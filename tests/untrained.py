"""A whole matcher with random weights, the same in every run: for what does not depend on training."""

from functools import cache
from typing import Any

import torch
from torch import nn

from glunet.matcher import Matcher
from glunet.network.glunet import GLUNet, GLUNetConfig


@cache
def network() -> GLUNet:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = GLUNet(GLUNetConfig(decoder="residual", mapping_decoder="residual"))
        for name, module in net.named_modules():
            if name.endswith(("predict_flow", "conv7")) and isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.003)  # they start at zero, which would hide their levels
    return net


def matcher(**settings: Any) -> Matcher:
    return Matcher(network(), "untrained", "ab" * 32, **settings)
