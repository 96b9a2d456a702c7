"""Official checkpoints as files of ours, and what any file of weights holds: every tensor accounted for."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from glunet.errors import GlunetError
from glunet.loading import find, is_safetensors, read_network, read_official, save_weights, sha256
from glunet.network.checkpoint import our_key

Description = dict[str, Any]


def convert(official: str | Path, out: Path, half: bool = False) -> Description:
    """Write an official checkpoint as safetensors, with its own encoder: the same network, bit for bit.

    Args:
        half: float16 (BatchNorm's statistics stay float32): half the size, but the flow changes in its last digits.

    Returns:
        as `describe(official)`.

    Raises:
        GlunetError: `official` is none, or damaged, or of an unknown network; or `out` cannot be written.
    """
    path = find(official)
    if is_safetensors(path):
        raise GlunetError(f"{path} is a safetensors file already; give an official checkpoint (.pth).")
    if out.suffix != ".safetensors":
        raise GlunetError(f"'{out}' does not end in .safetensors, by which people know such files: name it so.")
    description = describe(path)
    network, metadata = read_network(path)
    metadata |= {
        "name": out.stem,
        "converted_from": {"file": path.name, "sha256": description["sha256"]},
        "licence": "that of the checkpoint it was converted from",
    }
    save_weights(out, network.state_dict(), network.config, metadata, half)
    written = read_network(out)[0].state_dict()
    changed = [
        key for key, value in network.state_dict().items()
        if value.is_floating_point() and not half and not torch.equal(value, written[key])
    ]  # fmt: skip
    if changed:
        raise GlunetError(f"{out} does not hold what {path} does, first in '{changed[0]}': write it again.")
    return description


def describe(name: str | Path) -> Description:
    """What weights (see `glunet.load`) hold, read whole and put into their network.

    Returns:
        "file", "sha256", "bytes", "kind", "network", "settings", "parameters" (and of these "trained", all but the
        encoder's), "tensors": how many are used, counters of batches, and such that the network never uses; and
        "metadata" as the file has it.

    Raises:
        GlunetError: as `glunet.load`.
    """
    path = find(name)
    network, metadata = read_network(path)
    own = network.state_dict()
    counters = sum(key.endswith("num_batches_tracked") for key in own)
    tensors = {"used": len(own) - counters}
    if not is_safetensors(path):
        keys = list(read_official(path))
        tensors["counters of batches"] = sum(key.endswith("num_batches_tracked") for key in keys)
        tensors["never used"] = sum(our_key(key, network.config.network) is None for key in keys)
    settings = asdict(network.config)
    return {
        "file": str(path),
        "sha256": sha256(path),
        "bytes": path.stat().st_size,
        "kind": "safetensors of glunet" if is_safetensors(path) else "official checkpoint",
        "network": settings.pop("network"),
        "settings": settings,
        "parameters": sum(p.numel() for p in network.parameters()),
        "trained": sum(p.numel() for key, p in network.named_parameters() if not key.startswith("encoder.")),
        "tensors": tensors,
        "metadata": {key: value for key, value in metadata.items() if key not in ("network", "config")},
    }
