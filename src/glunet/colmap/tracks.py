"""Tracks: keypoints of several images that matches tie together."""

from collections.abc import Sequence

import numpy as np

from glunet.colmap.database import Verified


def track_lengths(pairs: Sequence[Verified]) -> np.ndarray:
    """In how many images each track of the verified matches is seen, (T,) int64, 2 and more.

    A track is what inlier matches tie together, directly or by way of other images.
    """
    if not any(len(pair.inliers) for pair in pairs):
        return np.empty(0, np.int64)
    names = sorted({name for pair in pairs for name in pair.names})
    sizes = dict.fromkeys(names, 0)
    for pair in pairs:
        for name, column in zip(pair.names, pair.inliers.T, strict=True):
            sizes[name] = max(sizes[name], int(column.max(initial=0)) + 1)
    first = dict(zip(names, np.cumsum([0, *sizes.values()])[:-1], strict=True))
    image = np.repeat(np.arange(len(names)), list(sizes.values()))
    a, b = (
        np.concatenate([first[pair.names[side]] + pair.inliers[:, side].astype(np.int64) for pair in pairs])
        for side in (0, 1)
    )
    root = np.arange(len(image))
    while True:  # each takes the smallest number it is tied to, and that one's, until nothing changes
        low = np.minimum(root[a], root[b])
        new = root.copy()
        for side in (a, b):
            np.minimum.at(new, root[side], low)
            np.minimum.at(new, side, low)
        new = new[new]
        if np.array_equal(new, root):
            break
        root = new
    tied = np.unique(np.stack((root, image), axis=-1), axis=0)[:, 0]  # each image once in a track
    lengths = np.bincount(tied)
    return lengths[lengths > 1]
