"""Every network of the family: its name, its settings, the network itself."""

import dataclasses
from typing import Any, Literal

import torch

from glunet.network.glunet import GLOBAL_GRID, GLUNet, GLUNetConfig
from glunet.network.gocor import GOCorGLUNet
from glunet.network.pdcnet import PDCNet
from glunet.network.semantic import SemanticGLUNet
from glunet.network.threelevel import ThreeLevelConfig, ThreeLevelNet

Config = GLUNetConfig | ThreeLevelConfig
Network = GLUNet | ThreeLevelNet  # the semantic network is a GLUNet

FAMILY: dict[str, type[GLUNet] | type[ThreeLevelNet]] = {
    "glunet": GLUNet,
    "semantic-glunet": SemanticGLUNet,
    "glunet-gocor": GOCorGLUNet,
    "pdc-net": PDCNet,
    "local-net": ThreeLevelNet,
    "global-net": ThreeLevelNet,
    "glocal-net": ThreeLevelNet,
}


def configure(network: str, **settings: Any) -> Config:
    """The settings of the network of this name, as published where `settings` say nothing.

    Raises:
        KeyError: if there is no such network.
        TypeError: if it has no such setting.
    """
    if network == "pdc-net":  # published with residual decoders only
        settings = {"decoder": "residual", "mapping_decoder": "residual"} | settings
    kind: Any = ThreeLevelConfig if FAMILY[network] is ThreeLevelNet else GLUNetConfig
    return kind(network=network, **settings)


def adapted(network: GLUNet, adapter: Literal["local", "all"]) -> GLUNet:
    """The same network with adapters, which at first change nothing; decoder4 does not read the descriptors yet.

    Raises:
        ValueError: descriptors ("all") for a dense decoder4, whose later layers read its input, too.
    """
    config = dataclasses.replace(network.config, adapter=adapter)
    if adapter == "all" and config.mapping_decoder == "dense":
        raise ValueError("descriptors are for networks with a residual mapping decoder")
    made: Any = build(config)
    state = made.state_dict()
    for key, values in network.state_dict().items():
        if state[key].shape == values.shape:
            state[key] = values
        else:  # between the correlation and the two channels at the end come the descriptors' scores
            state[key] = torch.zeros_like(state[key])
            state[key][:, : GLOBAL_GRID**2], state[key][:, -2:] = values[:, :-2], values[:, -2:]
    made.load_state_dict(state)
    return made


def build(config: Config) -> Network:
    """The network with these settings and fresh weights."""
    kind: Any = FAMILY[config.network]
    return kind(config)
