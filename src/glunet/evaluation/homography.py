"""A homography out of a dense flow, the way the HPatches homography protocol wants it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glunet.evaluation.datasets.read import grid
from glunet.geometry.estimation import robust_homography


def homography_of_flow(
    flow: NDArray[Any], source_size: tuple[int, int], points: int = 2000
) -> NDArray[np.float64] | None:
    """Source to target, 3 x 3, by MAGSAC over an even grid of about `points` matches; None when it cannot be estimated.

    Args:
        flow: H x W x 2 on the target's grid in source pixels.
        source_size: (height, width); matches that leave the source are dropped.
    """
    height, width = flow.shape[:2]
    step = max(1, round((height * width / points) ** 0.5))
    target = grid((height, width))[step // 2 :: step, step // 2 :: step].reshape(-1, 2)
    source = target + flow[step // 2 :: step, step // 2 :: step].reshape(-1, 2)
    inside = ((source >= 0) & (source <= (source_size[1] - 1, source_size[0] - 1))).all(axis=-1)
    if inside.sum() < 8:
        return None
    model = robust_homography(source[inside], target[inside], threshold=1.0, iterations=10000)
    return None if model is None else model[0]
