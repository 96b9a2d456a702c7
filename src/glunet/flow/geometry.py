"""Geometry of flow fields.

A flow lives on the target's grid and points into the source, in pixels, x to the right, y down, pixel centres at
integers: target (x, y) is source (x, y) + flow[:, y, x]. Tensors are B x 2 x H x W, channel 0 is x.
"""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

Size = tuple[int, int]  # (height, width)


def pixel_grid(height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """Coordinates of the pixel centres, 2 x height x width, float32, channel 0 is x (0..width-1)."""
    y, x = torch.meshgrid(
        torch.arange(height, dtype=torch.float32, device=device),
        torch.arange(width, dtype=torch.float32, device=device),
        indexing="ij",
    )
    return torch.stack((x, y))


def as_tensor(field: np.ndarray) -> Tensor:
    """H x W x C -> 1 x C x H x W."""
    return torch.from_numpy(np.ascontiguousarray(field.transpose(2, 0, 1)))[None]


def as_array(field: Tensor) -> np.ndarray:
    """C x H x W, on any device -> H x W x C."""
    return np.ascontiguousarray(field.permute(1, 2, 0).cpu().numpy())


def flow_to_map(flow: Tensor) -> Tensor:
    """The correspondence map of a flow: pixel grid + flow, same shape."""
    return flow + pixel_grid(flow.shape[-2], flow.shape[-1], flow.device).to(flow.dtype)


def map_to_flow(mapping: Tensor) -> Tensor:
    """The flow of a correspondence map: map - pixel grid, same shape."""
    return mapping - pixel_grid(mapping.shape[-2], mapping.shape[-1], mapping.device).to(mapping.dtype)


def sample(image: Tensor, points: Tensor, padding: str = "zeros") -> Tensor:
    """Bilinear samples of `image` at pixel coordinates.

    Args:
        image: B x C x H x W, floating point.
        points: B x 2 x h x w, pixels of the image's grid, channel 0 is x.
        padding: "zeros" outside the image (the network's warping, SPEC 4.3), or "border".

    Returns:
        B x C x h x w in the image's dtype (positions are in float32, or in float64 for an image of that).
    """
    height, width = image.shape[-2:]
    precise = torch.float64 if image.dtype == torch.float64 else torch.float32
    points = points.to(precise)
    grid = torch.stack(
        (points[:, 0] * (2 / max(width - 1, 1)) - 1, points[:, 1] * (2 / max(height - 1, 1)) - 1), dim=-1
    )
    # bfloat16 positions would be off by half a pixel at 256, so that low-precision features are sampled in float32.
    out = F.grid_sample(image.to(precise), grid, mode="bilinear", padding_mode=padding, align_corners=True)
    return out.to(image.dtype)


def warp(image: Tensor, flow: Tensor, padding: str = "zeros") -> Tensor:
    """An image on the source's grid, seen from the target: out(x) = image(x + flow(x)).

    Args:
        image: B x C x H x W on the source's grid, floating point.
        flow: B x 2 x h x w on the target's grid, in pixels of the image's grid.
        padding: "zeros" or "border", what lies outside the image.

    Returns:
        B x C x h x w. No validity mask is multiplied; see `in_view` for one.
    """
    return sample(image, flow_to_map(flow.float()), padding)


def in_view(flow: Tensor, source_size: tuple[int, int]) -> Tensor:
    """Where the flow points into the source: B x H x W, bool, for a source of (height, width)."""
    mapping = flow_to_map(flow)
    height, width = source_size
    x, y = mapping[:, 0], mapping[:, 1]
    return (x >= 0) & (x <= width - 1) & (y >= 0) & (y <= height - 1)


def resize_bilinear(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Bilinear resize with pixel areas aligned, no antialias (SPEC 1). Values, also of a flow, are not changed."""
    if tensor.shape[-2:] == tuple(size):
        return tensor
    return F.interpolate(tensor, size=tuple(size), mode="bilinear", align_corners=False)


def resize_area(tensor: Tensor, size: Sequence[int]) -> Tensor:
    """Area resize: each output is the plain mean of the input pixels it touches (SPEC 1)."""
    if tensor.shape[-2:] == tuple(size):
        return tensor
    return F.interpolate(tensor, size=tuple(size), mode="area")


def scale_flow(flow: Tensor, x: float, y: float) -> Tensor:
    """The flow with its x channel multiplied by `x` and its y channel by `y`."""
    return flow * flow.new_tensor((x, y)).view(1, 2, 1, 1)


def mirror_flow(flow: Tensor) -> Tensor:
    """The flow of the pair with both images mirrored from left to right, of the same size."""
    return scale_flow(flow.flip(-1), -1, 1)


def frame_flow_to_source(flow: Tensor, source_size: tuple[int, int]) -> Tensor:
    """From a flow whose frame is the target's size to one in the source's own pixels.

    Both images of a pair are brought to one frame of the target's size; a source of another size was resized by
    areas, so that x_source = (x_target + flow_x + 0.5) * w_source / w_target - 0.5, and y likewise. The result is that
    minus x_target. For a source of the target's size the flow comes back unchanged, bit for bit.

    Args:
        flow: B x 2 x H_target x W_target in target-frame pixels.
        source_size: (height, width) of the source.
    """
    height, width = flow.shape[-2:]
    if (height, width) == tuple(source_size):
        return flow
    scale = flow.new_tensor((source_size[1] / width, source_size[0] / height)).view(1, 2, 1, 1)
    return map_to_flow((flow_to_map(flow) + 0.5) * scale - 0.5)
