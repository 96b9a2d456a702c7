"""Official checkpoints: which network a file holds, and its keys under our names (SPEC 7, 11)."""

import re
from collections.abc import Mapping

from torch import Tensor

from glunet.errors import GlunetError
from glunet.network.family import Config, configure

# Official prefix -> ours. What is not listed has one name in both.
RENAMED = (
    (r"^pyramid\.", "encoder."),
    (r"^NeighConsensus\.", "consensus."),
    (r"^deconv(\d)\.", r"upsample_flow\1."),
    (r"^upfeat(\d)\.", r"upsample_features\1."),
    (r"^l_dc_conv(\d)\.", r"refinement1.conv\1."),
    (r"^corr\.corr_module\.filter_(initializer|optimizer)\.", "global_gocor."),
    (r"^local_corr\.filter_(initializer|optimizer)\.", "local_gocor."),
)
# The level of the refinement network that official keys call `dc_conv`.
REFINED = {"local-net": 2, "global-net": 2, "glocal-net": 2}  # and 3 in all others
# Layers that official checkpoints hold and their networks never use.
UNUSED = {"global-net": ("deconv2.",), "glocal-net": ("deconv2.",)}


def our_key(official: str, network: str = "glunet") -> str | None:
    """The name of an official checkpoint's tensor in our network of this name; None if the network never uses it."""
    if official.startswith(UNUSED.get(network, ())):
        return None
    for pattern, name in (*RENAMED, (r"^dc_conv(\d)\.", rf"refinement{REFINED.get(network, 3)}.conv\1.")):
        renamed, found = re.subn(pattern, name, official)
        if found:
            return renamed
    return official


def our_state(official: Mapping[str, Tensor], network: str) -> dict[str, Tensor]:
    """An official state dict under the names of our network, without what it never uses."""
    renamed = {our_key(key, network): value for key, value in official.items()}
    return {key: value for key, value in renamed.items() if key is not None}


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
        raise GlunetError(f"{path} is a PyTorch file without a state dict in it; expected tensors by name.")
    return {str(key).removeprefix("module."): value for key, value in content.items()}


def official_config(state: Mapping[str, Tensor]) -> Config:
    """Which network an official state dict holds, by its keys; between GLOBAL-Net and GLOCAL-Net by a shape."""
    if "upfeat4.weight" in state:
        return configure("local-net")
    if "upfeat3.weight" in state:
        # Decoder3 reads a local correlation and a flow (83 channels), or the features of both images and a flow (514).
        first = state.get("decoder3.conv_0.0.weight")
        return configure("global-net" if first is not None and first.shape[1] == 514 else "glocal-net")
    kinds = {
        "NeighConsensus.": "semantic-glunet",
        "uncertainty_decoder": "pdc-net",
        "corr_uncertainty_decoder": "pdc-net",
        "corr.corr_module.": "glunet-gocor",
        "local_corr.": "glunet-gocor",
    }
    return configure(
        next((kind for part, kind in kinds.items() if any(key.startswith(part) for key in state)), "glunet"),
        decoder="residual" if "decoder3.conv0_skip.0.weight" in state else "dense",
        mapping_decoder="residual" if "decoder4.conv0_skip.0.weight" in state else "dense",
        upsampling="transposed" if "deconv4.weight" in state else "bilinear",
    )
