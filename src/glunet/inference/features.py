"""Points that match by the encoder's features, where keypoints find nothing: day and night, winter and summer."""

from typing import Any

import numpy as np
import torch
from torch import Tensor

from glunet.flow.geometry import resize_area, resize_bilinear
from glunet.inference.computation import Computation
from glunet.inference.encoded import Encoded
from glunet.inference.frames import normalise
from glunet.inference.hypotheses import matched
from glunet.inference.speed import full_precision
from glunet.network.correlation import l2_normalise

LONGEST = 576  # px of the longer side that images are brought down to
_CELL = 16  # px of the deepest level's positions


def feature_points(computation: Computation, source: Encoded, target: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """Positions of level 3 whose descriptors are each other's nearest: N x 2 in the source and the target, pixels.

    A descriptor is the features of levels 3 and 4, each without its mean over the image and of unit length: the deeper
    ones tell what is at a place, the others where, and what all places of an image have in common tells neither
    (figures: docs/weights.md, 2026-11-28).
    """
    for image in (source, target):  # the network may have asked before a search does
        if image.described is None:
            image.described = _described(computation, image)
    assert source.described is not None
    assert target.described is not None
    return matched(source.described, target.described, ratio=None)


@torch.inference_mode()
def _described(computation: Computation, image: Encoded) -> tuple[np.ndarray, np.ndarray]:
    """The valid positions of level 3, N x 2, pixels of the image, and their descriptors, N x 768."""
    height, width = image.size
    scale = min(1.0, LONGEST / max(height, width)) / _CELL
    size = tuple(max(2, round(side * scale)) * _CELL for side in (height, width))
    network: Any = computation.inference
    with full_precision(computation.device, computation.settings.speed):
        levels = network.encoder(normalise(resize_area(image.pixels, size)), levels=(3, 4))
    rows, columns = levels[3].shape[-2:]
    deep = resize_bilinear(levels[4].float(), (rows, columns))
    words = l2_normalise(torch.cat((_centred(levels[3].float()), _centred(deep)), dim=1))[0].flatten(1).T
    y, x = np.divmod(np.arange(rows * columns), columns)
    points = (np.stack((x, y), axis=-1) + 0.5) * (width / columns, height / rows) - 0.5
    if image.valid is not None:
        at = np.rint(points).astype(int)
        kept = image.valid[at[:, 1].clip(0, height - 1), at[:, 0].clip(0, width - 1)]
        return points[kept], words.cpu().numpy()[kept]
    return points, words.cpu().numpy()


def _centred(features: Tensor) -> Tensor:
    return l2_normalise(features - features.mean(dim=(2, 3), keepdim=True))
