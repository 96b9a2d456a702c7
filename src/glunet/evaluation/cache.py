"""Predictions on disk, so that a killed evaluation goes on where it was and figures can be made anew in seconds.

A prediction is found by what it hangs on and nothing else: the method's identity (for the network that holds the hash
of the weights and of the package's code) and the pixels handed to the method, which are the protocol's doing. Whoever
changes weights, code, protocol or data therefore gets a new prediction, never an old one.
"""

import hashlib
import re
from pathlib import Path

import numpy as np

from glunet.evaluation.baselines import Flow, Image
from glunet.flow.files import writing

Key = str


def content_key(source: Image, target: Image) -> Key:
    """The hash of a pair's pixels."""
    digest = hashlib.blake2b(digest_size=16)
    for image in (source, target):
        digest.update(repr(image.shape).encode())
        digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


class Cache:
    """A folder of predictions, one uncompressed float32 .npy a pair (8 bytes a pixel)."""

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder)

    def path(self, identity: str, key: Key) -> Path:
        """Where the prediction of that method for that pair lies."""
        readable = re.sub(r"[^A-Za-z0-9.-]+", "-", identity)[:40].strip("-")
        return (
            self.folder / f"{readable}-{hashlib.blake2b(identity.encode(), digest_size=6).hexdigest()}" / f"{key}.npy"
        )

    def load(self, identity: str, key: Key, size: tuple[int, int]) -> Flow | None:
        """The prediction for a target of (height, width), or None when there is none that is whole."""
        try:
            flow = np.load(self.path(identity, key), allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        return flow if flow.shape == (*size, 2) and flow.dtype == np.float32 else None

    def save(self, identity: str, key: Key, flow: Flow) -> None:
        """Write beside, then rename: a kill leaves either a whole file or none under the name."""
        path = self.path(identity, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        with writing(path) as part, open(part, "wb") as file:
            np.save(file, np.asarray(flow, np.float32))
