"""Weights from the Hugging Face Hub, by its own library: safetensors only, so that nothing foreign is unpickled."""

import re
from pathlib import Path

from glunet.errors import GlunetError, needed

PREFIX = "hf://"
FILE = "model.safetensors"
_ADDRESS = re.compile(r"hf://(?P<repo>[^/@]+/[^/@]+)(@(?P<revision>[^/]+))?(/(?P<file>.+))?")


def fetch(address: str) -> Path:
    """The file on this machine: what was fetched before, or with HF_HUB_OFFLINE, is taken from the hub's cache.

    Args:
        address: hf://OWNER/NAME, with @REVISION and /FILE where they are not the newest and model.safetensors.

    Raises:
        GlunetError: another address, a file of another kind, or one that cannot be had.
    """
    found = _ADDRESS.fullmatch(address)
    if found is None:
        raise GlunetError(f"Weights '{address}': expected hf://OWNER/NAME, or hf://OWNER/NAME@REVISION/FILE.")
    file = found["file"] or FILE
    if not file.endswith(".safetensors"):
        raise GlunetError(f"Weights '{address}': only .safetensors files are taken from the hub; convert it first.")
    with needed("Weights from the hub need huggingface_hub", "hub"):
        from huggingface_hub import hf_hub_download
    try:
        return Path(hf_hub_download(found["repo"], file, revision=found["revision"]))
    except Exception as error:
        reason = " ".join(str(error).split()).split(". ")[0] or type(error).__name__
        raise GlunetError(f"Weights '{address}' cannot be had from the hub: {reason}.") from error
