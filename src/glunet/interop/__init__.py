"""The matcher in the places of other people's: OpenCV's optical flow, scikit-image's registration, kornia's matchers,
napari's layers, the Hugging Face Hub's folders. Nothing of theirs is imported: arrays and tensors go in and out in the
shapes that they use.
"""

from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from glunet.errors import GlunetError
from glunet.loading import HUB, HUB_FILE, load, network_state, save_weights
from glunet.match import Match
from glunet.matcher import Matcher


class DenseOpticalFlow:
    """What `cv2.DISOpticalFlow` is asked for: `calc(I0, I1, flow)`; I0 is the target, I1 the source.

    Attributes:
        matcher: that computes.
    """

    def __init__(self, matcher: Matcher) -> None:
        self.matcher = matcher

    def calc(self, I0: np.ndarray, I1: np.ndarray, flow: np.ndarray | None = None) -> np.ndarray:
        """H x W x 2 float32, pixels: I0's (x, y) is I1's (x, y) + flow[y, x].

        Args:
            I0, I1: H x W grey, or H x W x 3 in OpenCV's order of colours (BGR), uint8 or uint16.
            flow: is written to if it has the right shape and type, as OpenCV does. It is not a start.

        Raises:
            GlunetError: images of two sizes, which OpenCV's flow does not know, or that cannot be used.
        """
        if I0.shape[:2] != I1.shape[:2]:
            raise GlunetError(
                f"I0 is {I0.shape[1]} x {I0.shape[0]} and I1 is {I1.shape[1]} x {I1.shape[0]} pixels, but calc takes "
                "two frames of one size: use matcher.match for others."
            )
        target, source = (image[..., ::-1] if image.ndim == 3 else image for image in (I0, I1))
        found = self.matcher.match(source, target, confidence=False).flow
        if flow is not None and flow.shape == found.shape and flow.dtype == found.dtype:
            flow[...] = found
            return flow
        return found


def optical_flow(reference_image: np.ndarray, moving_image: np.ndarray, matcher: Matcher) -> np.ndarray:
    """As `skimage.registration.optical_flow_tvl1`: the target is the reference, rows come before columns.

    Args:
        reference_image, moving_image: as `Matcher.match` takes them, of one size or two.

    Returns:
        2 x H x W float32, on the reference's grid: `skimage.transform.warp(moving_image, grid + flow)` registers it.

    Raises:
        GlunetError: images that cannot be used.
    """
    flow = matcher.match(moving_image, reference_image, confidence=False).flow
    return np.ascontiguousarray(flow.transpose(2, 0, 1)[::-1])


class DenseMatcher(nn.Module):
    """A module to put where kornia's LoFTR stands: `forward({"image0": ..., "image1": ...})`.

    Args:
        matcher: that computes.
        points: most correspondences of a pair, spread over image0.
        least: the confidence below which there is none.
    """

    def __init__(self, matcher: Matcher, points: int = 2048, least: float = 0.5) -> None:
        super().__init__()
        self.matcher, self.points, self.least = matcher, points, least

    @torch.no_grad()
    def forward(self, data: dict[str, Tensor]) -> dict[str, Tensor]:
        """Correspondences of a batch of pairs.

        Args:
            data: "image0" and "image1", B x 1 or 3 x H x W each, RGB or grey, floats in 0..1.

        Returns:
            "keypoints0" and "keypoints1", N x 2, x and y in pixels of each image; "confidence", N; "batch_indexes", N:
            which pair each is of.

        Raises:
            GlunetError: batches of two lengths, or images that cannot be used.
        """
        ours, theirs = data["image0"], data["image1"]
        if len(ours) != len(theirs):
            raise GlunetError(f"{len(ours)} images image0 and {len(theirs)} image1 came, but pairs are expected.")
        found = [
            self.matcher.match(source, target).sample(self.points, self.least)
            for target, source in zip(ours, theirs, strict=True)
        ]
        numbers = np.concatenate([np.full(len(one.confidence), i) for i, one in enumerate(found)])
        parts = {
            "keypoints0": np.concatenate([one.target for one in found]),
            "keypoints1": np.concatenate([one.source for one in found]),
            "confidence": np.concatenate([one.confidence for one in found]),
            "batch_indexes": numbers,
        }
        return {name: torch.from_numpy(values).to(ours.device) for name, values in parts.items()}


def napari_layers(match: Match, every: int = 16) -> list[tuple[Any, dict[str, Any], str]]:
    """A match as napari's layer data: `for layer in napari_layers(match): viewer.add_layer(Layer.create(*layer))`.

    Args:
        match: one that `Matcher.match` made, which knows its images.
        every: pixels between the vectors.

    Returns:
        (data, settings, type) of the target, the source warped onto it, the confidence (where it is known), and the
        flow as vectors in napari's order: N x 2 x 2, (row, column) of where each begins and of its length.

    Raises:
        GlunetError: a match that does not know its images, or `every` below 1.
    """
    if every < 1:
        raise GlunetError(f"A vector every {every} pixels was asked for: ask for 1 or more.")
    if match.pictures is None:
        raise GlunetError("This match does not know its images: give one that matcher.match has made.")
    source, target = match.pictures
    y, x = np.mgrid[: match.target_size[0] : every, : match.target_size[1] : every]
    seen = match.in_view[y, x]
    begins = np.stack((y[seen], x[seen]), axis=-1).astype(np.float32)
    vectors = np.stack((begins, match.flow[y[seen], x[seen]][:, ::-1]), axis=1)
    layers: list[tuple[Any, dict[str, Any], str]] = [
        (target, {"name": "target", "rgb": True}, "image"),
        (match.warp(source), {"name": "source, warped", "rgb": True, "opacity": 0.5}, "image"),
    ]
    if match.confidence_kind != "in view":
        layers.append((match.confidence, {"name": "confidence", "colormap": "viridis", "visible": False}, "image"))
    return [*layers, (vectors, {"name": "flow", "edge_width": 0.5}, "vectors")]


def save_pretrained(matcher: Matcher, folder: str | Path) -> Path:
    """Writes a matcher's weights, settings and calibration as one file, to be put on the hub (`upload_folder`).

    Returns:
        FOLDER/model.safetensors, with the encoder; float16.

    Raises:
        GlunetError: if it cannot be written.
    """
    path = Path(folder) / HUB_FILE
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GlunetError(f"{folder} cannot be made ({error.strerror}): name another folder.") from error
    # What a file calls "confidence" is its calibration.
    metadata = {name: value for name, value in asdict(matcher.settings).items() if name != "confidence"}
    metadata["name"] = matcher.provenance.weights
    for name, calibration in (("confidence", matcher.calibration), ("learned", matcher.learned)):
        if calibration is not None:
            metadata[name] = asdict(calibration)
    save_weights(path, network_state(matcher.network, encoder=True), matcher.network.config, metadata)
    return path


def from_pretrained(name: str | Path, **settings: Any) -> Matcher:
    """A matcher from a folder that `save_pretrained` wrote, or from the hub: "OWNER/NAME".

    Args:
        settings: device and all else that `glunet.load` takes.

    Raises:
        GlunetError: as `glunet.load`.
    """
    path = Path(name)
    return load(path / HUB_FILE if path.is_dir() else f"{HUB}{name}", **settings)
