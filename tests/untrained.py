"""A whole matcher with random weights, the same in every run: for what does not depend on training.

It is narrow, which makes it many times as fast: the published widths are for the goldens and the package's weights.
"""

from functools import cache
from typing import Any

import pytest
import torch
from torch import nn

from glunet.matcher import Matcher
from glunet.network.glunet import GLUNet, GLUNetConfig
from narrow import narrow_network


@cache
def network(wide: bool = False) -> GLUNet:
    with torch.random.fork_rng(), pytest.MonkeyPatch.context() as patch:
        encoder = {} if wide else narrow_network(patch.setattr)
        torch.manual_seed(0)
        net = GLUNet(GLUNetConfig(decoder="residual", mapping_decoder="residual"))
        net.load_state_dict(net.state_dict() | encoder)
        for name, module in net.named_modules():
            if name.endswith(("predict_flow", "conv7")) and isinstance(module, nn.Conv2d):
                nn.init.normal_(module.weight, std=0.003)  # they start at zero, which would hide their levels
    return net


def matcher(**settings: Any) -> Matcher:
    return Matcher(network(), "untrained", "ab" * 32, **settings)
