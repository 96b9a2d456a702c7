"""Every network of the family: its name, its settings, the network itself."""

from typing import Any

from glunet.network.glunet import GLUNet, GLUNetConfig
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


def build(config: Config) -> Network:
    """The network with these settings and fresh weights."""
    kind: Any = FAMILY[config.network]
    return kind(config)
