"""Official checkpoints: which network a file holds, and its keys under our names (SPEC 7)."""

import re
from collections.abc import Mapping

from torch import Tensor

from glunet.errors import GlunetError
from glunet.network.glunet import GLUNetConfig

# Official prefix -> ours. What is not listed has one name in both.
RENAMED = (
    (r"^pyramid\.", "encoder."),
    (r"^dc_conv(\d)\.", r"refinement3.conv\1."),
    (r"^l_dc_conv(\d)\.", r"refinement1.conv\1."),
    (r"^deconv4\.", "upsample_flow4."),
    (r"^deconv2\.", "upsample_flow2."),
    (r"^upfeat2\.", "upsample_features2."),
)


def our_key(official: str) -> str:
    """The name a tensor of an official checkpoint has in our network."""
    for pattern, name in RENAMED:
        renamed, found = re.subn(pattern, name, official)
        if found:
            return renamed
    return official


def is_official(keys: Mapping[str, object]) -> bool:
    """Whether these are the keys of an official checkpoint (of any network of the family)."""
    return any(key.startswith("pyramid.") for key in keys)


def bare_state(content: object, path: str) -> dict[str, Tensor]:
    """The state dict inside a loaded checkpoint, bare or under `state_dict`, without `module.` before its keys.

    Raises:
        GlunetError: if there is none.
    """
    if isinstance(content, Mapping) and isinstance(content.get("state_dict"), Mapping):
        content = content["state_dict"]
    if not isinstance(content, Mapping) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise GlunetError(
            f"{path} is a PyTorch file without a state dict in it; expected tensors by name."
        )
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def official_config(state: Mapping[str, Tensor]) -> GLUNetConfig:
    """Which GLU-Net an official state dict holds, told by its keys."""
    return GLUNetConfig(
        decoder="residual" if "decoder3.conv0_skip.0.weight" in state else "dense",
        mapping_decoder="residual" if "decoder4.conv0_skip.0.weight" in state else "dense",
        upsampling="transposed" if "deconv4.weight" in state else "bilinear",
    )
