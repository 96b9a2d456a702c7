"""Mirrored pairs: two objects of one kind may look to opposite sides, which no smooth flow can match (SPEC 6).

The global level is asked which of the target and its mirror image needs the smaller horizontal motion; a yes is asked
again with the images' roles exchanged.
"""

from typing import Any

import torch
from torch import Tensor

from glunet.flow.geometry import flow_to_map, map_to_flow
from glunet.network.family import Network


def mirrored(network: Network, target: Tensor, source: Tensor) -> Tensor:
    """Which pairs match better with the target mirrored from left to right.

    Args:
        network: any with a global level.
        target, source: B x 3 x 256 x 256, normalised (`glunet.inference.frames.prepare`).

    Returns:
        B, bool.
    """

    def encode(image: Tensor) -> Any:  # features of the network's own kind
        return network.encode(image, image)

    def motion(target_features: Any, source_features: Any) -> Tensor:
        return network.level4(target_features, source_features)[:, 0].abs().mean(dim=(1, 2))

    plain_target, plain_source = encode(target), encode(source)
    found = motion(encode(target.flip(-1)), plain_source) < motion(plain_target, plain_source)
    if found.any():
        found = found & (motion(encode(source.flip(-1)), plain_target) < motion(plain_source, plain_target))
    return found


def mirror_where(images: Tensor, which: Tensor) -> Tensor:
    """Images (B x C x H x W) with those that `which` (B, bool) names mirrored from left to right."""
    return torch.where(which[:, None, None, None], images.flip(-1), images)


def unmirror_flow(flow: Tensor, which: Tensor) -> Tensor:
    """From the flow of mirrored targets, where `which` says so, to that of the targets as they came: B x 2 x H x W.

    The source was not mirrored: where a pixel leads stays, and only the pixel's own place changes.
    """
    return torch.where(which[:, None, None, None], map_to_flow(flow_to_map(flow).flip(-1)), flow)


def unmirror_backward(flow: Tensor, which: Tensor, width: int) -> Tensor:
    """From a flow into mirrored images of this width, where `which` says so, to that into the images as they came."""
    mapping = flow_to_map(flow)
    back = map_to_flow(torch.stack((width - 1 - mapping[:, 0], mapping[:, 1]), dim=1))
    return torch.where(which[:, None, None, None], back, flow)
