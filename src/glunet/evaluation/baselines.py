"""What one would use instead, under one signature: match(source, target) -> flow.

Images are H x W x 3 uint8 RGB; the flow is H x W x 2 float32 on the target's grid, in source pixels. `identity` names
the method with everything its answer hangs on, which is what a cache is keyed by.
"""

from typing import Protocol

import cv2
import numpy as np
from numpy.typing import NDArray

from glunet.evaluation.datasets.read import grid

Image = NDArray[np.uint8]
Flow = NDArray[np.float32]


class Method(Protocol):
    """What `evaluate` asks of a method. `batch` is how many pairs of one size it likes to be handed at once."""

    name: str
    identity: str
    batch: int

    def match_many(self, pairs: list[tuple[Image, Image]]) -> list[Flow]:
        """Flows of (source, target) pairs that all have one size of source and one size of target."""
        ...

    def with_flipping(self) -> "Method":
        """The method that also tries the mirrored target, for two objects of one kind; itself if it knows no such."""
        ...


class OneByOne:
    """What methods share that match a pair at a time."""

    name = ""
    identity = ""
    batch = 1

    def match(self, source: Image, target: Image) -> Flow:
        raise NotImplementedError

    def match_many(self, pairs: list[tuple[Image, Image]]) -> list[Flow]:
        return [self.match(source, target) for source, target in pairs]

    def with_flipping(self) -> Method:
        return self


class Identity(OneByOne):
    """No motion: for a source of another size the map of a plain resize."""

    name = "no motion"
    identity = "identity-1"

    def match(self, source: Image, target: Image) -> Flow:
        zero = np.zeros((*target.shape[:2], 2), np.float32)
        return frame_to_source(zero, source.shape[:2])


class SiftHomography(OneByOne):
    """SIFT, ratio test, one homography by MAGSAC; no motion where there are fewer than eight matches.

    The homography is applied as everybody applies it, also beyond its horizon, so that on hopeless pairs single pixels
    near the horizon rule the mean error.
    """

    name = "SIFT + MAGSAC"

    def __init__(self, ratio: float = 0.8, threshold: float = 2.0, at_least: int = 8) -> None:
        self.ratio, self.threshold, self.at_least = ratio, threshold, at_least
        self.identity = f"sift-1-{ratio}-{threshold}-{at_least}-opencv-{cv2.__version__}"

    def match(self, source: Image, target: Image) -> Flow:
        matrix = self.homography(source, target)
        if matrix is None:
            return Identity().match(source, target)
        pixels = grid(target.shape[:2])
        points = np.concatenate((pixels, np.ones_like(pixels[..., :1])), axis=-1) @ matrix.T
        with np.errstate(divide="ignore", invalid="ignore"):
            flow = points[..., :2] / points[..., 2:] - pixels
        return np.nan_to_num(flow, nan=0.0, posinf=1e6, neginf=-1e6).clip(-1e6, 1e6).astype(np.float32)

    def homography(self, source: Image, target: Image) -> NDArray[np.float64] | None:
        """Target to source, or None when there are too few matches."""
        sift = cv2.SIFT_create()
        (points_s, words_s), (points_t, words_t) = (
            sift.detectAndCompute(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), None) for image in (source, target)
        )
        if words_s is None or words_t is None or len(words_s) < 2:
            return None
        nearest = cv2.BFMatcher(cv2.NORM_L2).knnMatch(words_t, words_s, k=2)
        good = [m[0] for m in nearest if len(m) == 2 and m[0].distance < self.ratio * m[1].distance]
        if len(good) < self.at_least:
            return None
        there = np.array([points_t[m.queryIdx].pt for m in good])
        here = np.array([points_s[m.trainIdx].pt for m in good])
        cv2.setRNGSeed(0)  # the same images always give the same homography
        try:
            matrix, _ = cv2.findHomography(there, here, cv2.USAC_MAGSAC, self.threshold)
        except cv2.error:  # degenerate matches
            return None
        return None if matrix is None else np.asarray(matrix, np.float64)


class Dis(OneByOne):
    """OpenCV's DIS optical flow, preset medium, on grey images of the target's size."""

    name = "DIS"

    def __init__(self, preset: str = "medium") -> None:
        self.preset = getattr(cv2, f"DISOPTICAL_FLOW_PRESET_{preset.upper()}")
        self.identity = f"dis-1-{preset}-{cv2.__version__}"

    def match(self, source: Image, target: Image) -> Flow:
        algorithm = cv2.DISOpticalFlow_create(self.preset)  # anew, because it keeps state between frames
        grey_t, grey_s = _grey_frame(source, target)
        return frame_to_source(np.asarray(algorithm.calc(grey_t, grey_s, None), np.float32), source.shape[:2])


class Farneback(OneByOne):
    """OpenCV's Farneback optical flow with five levels, on grey images of the target's size."""

    name = "Farneback"

    def __init__(self) -> None:
        self.identity = f"farneback-1-{cv2.__version__}"

    def match(self, source: Image, target: Image) -> Flow:
        grey_t, grey_s = _grey_frame(source, target)
        flow = cv2.calcOpticalFlowFarneback(grey_t, grey_s, None, 0.5, 5, 15, 3, 7, 1.5, 0)
        return frame_to_source(np.asarray(flow, np.float32), source.shape[:2])


def frame_to_source(flow: Flow, source_size: tuple[int, int]) -> Flow:
    """From a flow between images of the target's size to one in the source's own pixels."""
    if flow.shape[:2] == tuple(source_size):
        return flow
    from glunet.flow.geometry import as_array, as_tensor, frame_flow_to_source

    return as_array(frame_flow_to_source(as_tensor(flow), source_size)[0])


def _grey_frame(source: Image, target: Image) -> tuple[Image, Image]:
    """Target and source in grey, the source area-resized to the target's size."""
    if source.shape != target.shape:
        source = cv2.resize(source, (target.shape[1], target.shape[0]), interpolation=cv2.INTER_AREA)
    return cv2.cvtColor(target, cv2.COLOR_RGB2GRAY), cv2.cvtColor(source, cv2.COLOR_RGB2GRAY)
