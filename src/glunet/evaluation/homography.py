"""A homography out of a dense flow, the way the HPatches homography protocol wants it."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glunet.evaluation.datasets.read import grid
from glunet.extras import needed


def homography_of_flow(
    flow: NDArray[Any], source_size: tuple[int, int], points: int = 2000
) -> NDArray[np.float64] | None:
    """Source to target, 3 x 3, by MAGSAC over an even grid of about `points` matches; None when it cannot be estimated.

    Args:
        flow: H x W x 2 on the target's grid in source pixels.
        source_size: (height, width); matches that leave the source are dropped.
    """
    with needed("a homography needs OpenCV", "eval"):
        import cv2
    height, width = flow.shape[:2]
    step = max(1, round((height * width / points) ** 0.5))
    target = grid((height, width))[step // 2 :: step, step // 2 :: step].reshape(-1, 2)
    source = target + flow[step // 2 :: step, step // 2 :: step].reshape(-1, 2)
    inside = ((source >= 0) & (source <= (source_size[1] - 1, source_size[0] - 1))).all(axis=-1)
    if inside.sum() < 8:
        return None
    cv2.setRNGSeed(0)  # the same matches always give the same homography
    try:
        matrix, _ = cv2.findHomography(
            source[inside],
            target[inside],
            cv2.USAC_MAGSAC,
            ransacReprojThreshold=1.0,
            maxIters=10000,
            confidence=0.9999,
        )
    except cv2.error:  # degenerate matches, all on one line say
        return None
    return None if matrix is None else np.asarray(matrix, np.float64)
