"""The answer for one pair of images."""

import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from glunet._version import __version__
from glunet.errors import GlunetError
from glunet.flow import geometry
from glunet.flow.files import write_flow
from glunet.images import load_image


@dataclass(frozen=True)
class Provenance:
    """Where a flow comes from.

    Attributes:
        weights: name of the weights.
        sha256: of their file or files, hexadecimal; "" where there is no file.
        settings: what else decides about the result, for example {"uint8_truncation": False}.
    """

    weights: str
    sha256: str = ""
    settings: dict[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For JSON, with this package's version."""
        return {"glunet": __version__, "weights": self.weights, "sha256": self.sha256, "settings": self.settings}

    def line(self) -> str:
        """For people, on pictures."""
        words = {True: "on", False: "off"}
        settings = "".join(f", {k.replace('_', ' ')} {words.get(v, v)}" for k, v in self.settings.items())
        return f"glunet {__version__}, weights {self.weights} {self.sha256[:8]}".rstrip() + settings


@dataclass(frozen=True, eq=False)
class Match:
    """For every pixel of the target, where it is in the source.

    Attributes:
        flow: (H_target, W_target, 2) float32, pixels: target (x, y) is source (x, y) + flow[y, x].
        source_size: (height, width) of the source.
        provenance: which weights and settings made it.
    """

    flow: np.ndarray
    source_size: tuple[int, int]
    provenance: Provenance

    @property
    def target_size(self) -> tuple[int, int]:
        """(height, width) of the target."""
        return (self.flow.shape[0], self.flow.shape[1])

    @cached_property
    def map(self) -> np.ndarray:
        """The correspondence map, (H_target, W_target, 2) float32: source coordinates (x, y) of each target pixel."""
        y, x = np.mgrid[: self.flow.shape[0], : self.flow.shape[1]].astype(np.float32)
        return self.flow + np.stack((x, y), axis=-1)

    @cached_property
    def in_view(self) -> np.ndarray:
        """Where the flow points into the source, (H_target, W_target) bool."""
        return geometry.in_view(self._flow_tensor(), self.source_size)[0].numpy()

    def at(self, points: np.ndarray) -> np.ndarray:
        """Where single points of the target are in the source.

        Args:
            points: (N, 2), x and y in target pixels, whole or not; between pixel centres the map is bilinear.

        Returns:
            (N, 2) float32, x and y in source pixels; some may lie outside the source.

        Raises:
            GlunetError: points of another shape, NaN, or outside the target (beyond the centres of its border pixels by
                more than half a pixel; up to there the border's flow holds).
        """
        points = np.asarray(points)
        if points.ndim != 2 or points.shape[1] != 2 or points.dtype.kind not in "iuf":
            raise GlunetError(
                f"Points are an array of numbers, N x 2 (x and y), but {points.dtype} of shape {points.shape} came."
            )
        points = points.astype(np.float32)
        height, width = self.target_size
        inside = (points >= -0.5) & (points <= np.array((width, height), np.float32) - 0.5)
        if not inside.all():
            x, y = points[int(np.argmin(inside.all(axis=1)))]
            raise GlunetError(
                f"Point ({x:g}, {y:g}) is outside the target of {width} x {height} pixels: points are (x, y), x from 0 "
                f"to {width - 1} and y from 0 to {height - 1}."
            )
        positions = torch.from_numpy(points.T.copy()).reshape(1, 2, 1, -1)
        flow = geometry.sample(self._flow_tensor(), positions, padding="border")
        return points + flow.reshape(2, -1).T.numpy()

    def warp(self, image: "str | os.PathLike[str] | Image.Image | np.ndarray") -> np.ndarray:
        """An image on the source's grid, seen from the target; black (zero) where the flow points outside of it.

        Args:
            image: an array of the source's height and width, H x W or H x W x C with any C: the source itself, a mask,
                a depth map. Or a path or Pillow image, which become H x W x 3 uint8, RGB.

        Returns:
            An array of the target's height and width, channels and type as they came (whole numbers are rounded).

        Raises:
            GlunetError: an image of another size than the source's, or of a type that has no values in between.
        """
        if not isinstance(image, np.ndarray):
            image = load_image(image, "source").round().byte().permute(1, 2, 0).numpy()
        if image.ndim not in (2, 3) or image.dtype.kind not in "iufb":
            raise GlunetError(
                "An image to warp is an array of numbers, H x W or H x W x C, but "
                f"{image.dtype} of shape {image.shape} came."
            )
        if image.shape[:2] != tuple(self.source_size):
            height, width = self.source_size
            raise GlunetError(
                f"The image to warp is {image.shape[1]} x {image.shape[0]} pixels, but the source was "
                f"{width} x {height}: bring it to the source's size first."
            )
        planes = image.reshape(*image.shape[:2], -1).transpose(2, 0, 1).astype(np.float32, order="C")
        warped = geometry.warp(torch.from_numpy(planes)[None], self._flow_tensor(), padding="border")[0].numpy()
        warped = np.where(self.in_view, warped, 0).transpose(1, 2, 0)
        if image.dtype.kind != "f":
            warped = np.rint(warped)
        return np.ascontiguousarray(warped, image.dtype).reshape(*self.target_size, *image.shape[2:])

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Writes the flow, with its provenance: .flo, .png (KITTI's 16 bits, +-512 px at most) or .npz, by the suffix.

        Returns:
            The files written (a .flo has its provenance in a second one beside it).

        Raises:
            GlunetError: another suffix, flow beyond what KITTI's PNG holds, a place that cannot be written to.
        """
        return write_flow(path, self.flow, self.metadata())

    def metadata(self) -> dict[str, Any]:
        """What is written with every file: provenance and sizes (height, width)."""
        return {
            **self.provenance.as_dict(),
            "target_size": list(self.target_size),
            "source_size": list(self.source_size),
        }

    def _flow_tensor(self) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(self.flow.transpose(2, 0, 1)))[None]
