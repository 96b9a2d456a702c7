"""Perceptual hashes of the training photographs, and how near two pictures are by them.

The photographs are not in this repository, their hashes are (tests/data/photo_hashes.npz), so that a test can tell
without them that no development image and no picture of the demo is among them. To make the file again:

    .venv/bin/python tools/photo_hashes.py ../shared/photos tests/data/photo_hashes.npz
"""

from __future__ import annotations

import hashlib
import io
import sys
import tarfile
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

# Of 128 bits. A photograph at another size, compression or brightness differs by a few; two different photographs by
# 40 or so. The nearest to any image of the development set is at 31, the nearest two among themselves at 16.
SAME = 14


def picture_hash(picture: Path | IO[bytes]) -> np.ndarray:
    """16 bytes: whether each cell of an 8 x 8 grid is brighter than its left and than its upper neighbour."""
    with Image.open(picture) as opened:
        grey = opened.convert("L").resize((72, 72), Image.Resampling.BOX)
    pixels = np.asarray(grey, np.float32)
    wide = pixels.reshape(8, 9, 9, 8).mean((1, 3))  # 8 rows, 9 columns
    high = pixels.reshape(9, 8, 8, 9).mean((1, 3))  # 9 rows, 8 columns
    bits = np.concatenate([(wide[:, 1:] > wide[:, :-1]).ravel(), (high[1:] > high[:-1]).ravel()])
    return np.packbits(bits)


def distances(hashes: np.ndarray, known: np.ndarray) -> np.ndarray:
    """How many of the 128 bits differ: (N, 16) and (M, 16) bytes -> (N, M)."""
    return np.unpackbits(hashes[:, None] ^ known[None], axis=-1).sum(-1, dtype=np.int64)


def archive_hashes(archive: Path) -> dict[str, np.ndarray]:
    """The hash of each photograph in a tar, by its name there."""
    with tarfile.open(archive) as tar:
        files = [member for member in tar if member.isfile()]
        return {m.name: picture_hash(io.BytesIO(tar.extractfile(m).read())) for m in files}


def main(photos: Path, out: Path) -> None:
    """Hash every photograph of a folder of tar shards; files are listed by name."""
    found: dict[str, np.ndarray] = {}
    for archive in sorted(photos.glob("*.tar")):
        found |= archive_hashes(archive)
    names = sorted(found)
    # The names are kept as one digest: it tells that this file belongs to that set of photographs.
    digest = hashlib.sha256("\n".join(names).encode()).hexdigest()
    np.savez(out, hashes=np.stack([found[name] for name in names]), names_sha256=np.array(digest))
    print(f"{len(names)} photographs -> {out}")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
