"""The answer for one pair of images."""

import io
import os
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from glunet import __version__
from glunet.errors import GlunetError
from glunet.flow import geometry
from glunet.flow.files import write_flow
from glunet.geometry import estimation as models
from glunet.geometry.points import Correspondences, check_points, spread
from glunet.images import drawing
from glunet.images.reading import load_pixels
from glunet.inference.confidence import (
    SURE_AGREEMENT,
    SURE_POINTS,
    Calibration,
    Kind,
    Verdict,
    occluded,
    pair_median,
    round_trip,
    tolerance,
)
from glunet.inference.search import Found
from glunet.network.uncertainty import Mixture


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
        backward: (H_source, W_source, 2) float32, the flow from the source into the target; None where it was neither
            asked for nor needed by a search.
        calibration: what the weights know of their own errors, by the round trip; None for weights without.
        source_valid, target_valid: the masks that came with the images, H x W bool; None where all pixels count.
        pictures: source and target, H x W x 3 uint8, to be shown; None where they are not known.
        found: what the search did; None where there was none.
        mixture: (H_target, W_target, 4) float32, the network's own uncertainty: the natural logarithms of two variances
            (square pixels) and the logits of both components' weights, the small one's first
            (`glunet.network.uncertainty`). None for networks that do not predict it, and where it was not asked for.
        learned: as `calibration`, by the mixture.
    """

    flow: np.ndarray
    source_size: tuple[int, int]
    provenance: Provenance
    backward: np.ndarray | None = None
    calibration: Calibration | None = None
    source_valid: np.ndarray | None = None
    target_valid: np.ndarray | None = None
    pictures: tuple[np.ndarray, np.ndarray] | None = None
    found: Found | None = None
    mixture: np.ndarray | None = None
    learned: Calibration | None = None

    @property
    def target_size(self) -> tuple[int, int]:
        """(height, width) of the target."""
        return (self.flow.shape[0], self.flow.shape[1])

    @property
    def tolerance(self) -> float:
        """Up to which error, pixels, a correspondence counts as right: 1 % of the target's longer side, at least 1."""
        return tolerance(self.target_size)

    @cached_property
    def map(self) -> np.ndarray:
        """The correspondence map, (H_target, W_target, 2) float32: source coordinates (x, y) of each target pixel."""
        y, x = np.mgrid[: self.flow.shape[0], : self.flow.shape[1]].astype(np.float32)
        return self.flow + np.stack((x, y), axis=-1)

    @cached_property
    def in_view(self) -> np.ndarray:
        """Where the flow points into the source (and there to a valid pixel), (H_target, W_target) bool."""
        inside = geometry.in_view(self._flow_tensor(), self.source_size)[0].numpy()
        if self.source_valid is not None:
            x, y = (np.rint(self.map[..., i]).clip(0, self.source_size[1 - i] - 1).astype(np.int64) for i in range(2))
            inside = inside & self.source_valid[y, x]
        return inside

    @cached_property
    def round_trip(self) -> np.ndarray:
        """How far from its place a pixel ends that goes into the source and back, (H_target, W_target) float32, pixels.

        Raises:
            GlunetError: if the way back was not asked for.
        """
        return round_trip(self._flow_tensor(), geometry.as_tensor(self._backward()))[0].numpy()

    @cached_property
    def occluded(self) -> np.ndarray:
        """Where the flow points into the source but something else is seen there, (H_target, W_target) bool.

        Raises:
            GlunetError: if the way back was not asked for.
        """
        back = geometry.as_tensor(self._backward())
        return occluded(self._flow_tensor(), back, torch.from_numpy(self.in_view)[None])[0].numpy()

    @property
    def confidence_kind(self) -> Kind:
        """What `confidence` is.

        - "calibrated": the share of such pixels that are visible in the source and found within 1 px or 1 % of the
          longer side, whichever is more, as measured on synthetic scenes: by what the network says of itself where it
          has learned to, else by the round trip;
        - "consistency": 1 / (1 + round trip in pixels): an order, not a probability;
        - "in view": 1 where the flow points into the source, else 0; no way back was computed;
        - "predicted": P_1, the probability by the network's own mixture that the flow is right to within 1 px in x and
          in y (PDC-Net equation 8).
        """
        if self.mixture is not None:
            return "predicted" if self.learned is None else "calibrated"
        if self.backward is None:
            return "in view"
        return "consistency" if self.calibration is None else "calibrated"

    @cached_property
    def confidence(self) -> np.ndarray:
        """(H_target, W_target) float32, 0..1; 0 out of view and where not valid. `confidence_kind` says what it is."""
        known = self.in_view if self.target_valid is None else self.in_view & self.target_valid
        calibration = self.calibration if self.mixture is None else self.learned
        if self.mixture is None and self.backward is None:
            value: Any = 1
        elif calibration is not None:
            value = self._right(calibration, self._miss())
        else:
            value = 1 / (1 + self._miss()) if self.mixture is None else self.probability()
        return np.where(known, value, 0).astype(np.float32)

    def _right(self, calibration: Calibration, miss: np.ndarray) -> np.ndarray:
        """The share of pixels that is right of those that miss, or are expected to, by so many pixels; H x W."""
        counted, miss = self._counted, miss / self.tolerance
        return calibration.with_median(miss, pair_median(miss[counted], self.in_view[counted]))

    def _miss(self) -> np.ndarray:
        """What `Calibration` goes by, H x W, pixels: the deviation that the mixture expects, or the round trip."""
        return self.round_trip if self.mixture is None else self._mixture().deviation()[0].numpy()

    def probability(self, radius: float = 1.0) -> np.ndarray:
        """P_R: that the flow is right to within `radius` pixels in x and in y, (H_target, W_target) float32, 0..1.

        As the network predicts it (PDC-Net equation 8); polish, which moves the flow by fractions of a pixel, changes
        nothing of it, and where a search found another flow it is not known.

        Raises:
            GlunetError: for a network that predicts no mixture, or a radius that is not positive.
        """
        if not radius > 0:
            raise GlunetError(f"The probability of being within {radius} px was asked for: ask for more than 0 px.")
        return self._mixture().probability(radius)[0].numpy()

    @cached_property
    def variance(self) -> np.ndarray:
        """Of the flow's error in x, and as much in y, as the network predicts it, (H_target, W_target), square pixels.

        Raises:
            GlunetError: for a network that predicts no mixture.
        """
        return self._mixture().variance()[0].numpy()

    def _mixture(self) -> Mixture:
        if self.mixture is None:
            raise GlunetError("This network predicts no variance (PDC-Net does): its confidence is `match.confidence`.")
        return Mixture.unpacked(geometry.as_tensor(self.mixture))

    @cached_property
    def verdict(self) -> Verdict:
        """Whether the two images show the same thing at all: by the mean confidence over what both masks allow, by many
        keypoints on one plane, or by how much of what both show comes back.

        The network itself answers always. Where the way back is there, the confidence that counts is the round trip's:
        of pairs that show something else it is the better witness.
        """
        counted, confidence = self._counted, self.confidence
        calibration = self.calibration if self.mixture is None else self.learned
        if self.backward is not None and self.calibration is not None and calibration is not None:
            calibration = self.calibration
            confidence = np.where(self.confidence > 0, self._right(calibration, self.round_trip), 0)
        score = float(confidence[counted].mean()) if counted.any() else 0.0
        points, agreement = 0, 0.0
        if self.found is not None:
            points, agreement = self.found.points, self.found.after if self.found.way_back else 0.0
        if self.confidence_kind != "calibrated" or calibration is None:
            return Verdict(None, score, None, points, agreement)
        same = score >= calibration.threshold or points >= SURE_POINTS or agreement >= SURE_AGREEMENT
        return Verdict(same, score, calibration.threshold, points, agreement)

    @cached_property
    def _counted(self) -> np.ndarray:
        """The target pixels that say whether the images show the same: what both masks allow, H x W, bool."""
        counted = np.ones(self.target_size, bool) if self.target_valid is None else self.target_valid
        if self.source_valid is not None:  # what leads to an invalid pixel says nothing; out of view it does
            counted = counted & (self.in_view | ~geometry.in_view(self._flow_tensor(), self.source_size)[0].numpy())
        return counted

    @cached_property
    def reverse(self) -> "Match":
        """The same match seen from the source: for every pixel of the source, where it is in the target.

        Raises:
            GlunetError: if the way back was not asked for.
        """
        return Match(
            self._backward(),
            self.target_size,
            self.provenance,
            self.flow,
            self.calibration,
            source_valid=self.target_valid,
            target_valid=self.source_valid,
            pictures=None if self.pictures is None else (self.pictures[1], self.pictures[0]),
            found=self.found,
        )

    def at(self, points: np.ndarray, of: str = "target", least: float = 0.0) -> tuple[np.ndarray, np.ndarray]:
        """Where single points of one image are in the other.

        Args:
            points: (N, 2), x and y in pixels, whole or not; between pixel centres map and confidence are bilinear.
            of: "target", or "source" to ask the other way round.
            least: points below this confidence have no match.

        Returns:
            (N, 2) float32, x and y in pixels of the other image, and (N,) float32, the confidence (`confidence_kind`).
            No match is NaN and confidence 0: where the flow leads out of the other image, or a mask says so; points
            below `least` are NaN too, and keep their confidence.

        Raises:
            GlunetError: points of another shape, NaN, or outside the image (beyond the centres of its border pixels by
                more than half a pixel; up to there the border's flow holds); points of the source where the way back
                was not asked for.
        """
        if of not in ("target", "source"):
            raise GlunetError(f"Points are of the 'target' or of the 'source', but '{of}' came.")
        if of == "source":
            return self.reverse.at(check_points(points, self.source_size, "source"), least=least)
        points = check_points(points, self.target_size, "target")
        positions = torch.from_numpy(points.T.copy()).reshape(1, 2, 1, -1)
        planes = torch.cat((self._flow_tensor(), torch.from_numpy(self.confidence)[None, None]), dim=1)
        sampled = geometry.sample(planes, positions, padding="border").reshape(3, -1).T.numpy()
        found, confidence = points + sampled[:, :2], sampled[:, 2]
        height, width = self.source_size
        outside = ((found < -0.5) | (found > np.array((width, height)) - 0.5)).any(axis=1) | ~(confidence > 0)
        return (
            np.where((outside | (confidence < least))[:, None], np.float32(np.nan), found),
            np.where(outside, np.float32(0), confidence),
        )

    def sample(self, count: int, least: float = 0.5, seed: int = 0) -> Correspondences:
        """Confident correspondences, spread over the target: the best of each cell of a grid, not the `count` best.

        Args:
            count: how many; fewer where fewer pixels are confident.
            least: the confidence below which a pixel is not taken. Of the kind "consistency", 0.5 is a round trip of
                one pixel.
            seed: of what is left out where a grid has cells too many.

        Raises:
            GlunetError: if `count` is not positive.
        """
        if count < 1:
            raise GlunetError(f"{count} correspondences were asked for: ask for 1 or more.")
        pixels = spread(self.confidence, (self.confidence >= least) & (self.confidence > 0), count, seed)
        x, y = pixels.T
        return Correspondences(pixels.astype(np.float32), self.map[y, x], self.confidence[y, x])

    def homography(self, **settings: Any) -> np.ndarray:
        """The 3 x 3 homography, target -> source in pixels, [2, 2] = 1; `settings` and errors as for `model`.

        One that mirrors or folds what it was found on is none.
        """
        return self.model("homography", **settings).matrix

    def fundamental(self, **settings: Any) -> np.ndarray:
        """The 3 x 3 fundamental matrix F: source^T F target = 0 in pixels; `settings` and errors as for `model`."""
        return self.model("fundamental", **settings).matrix

    def essential(self, K1: np.ndarray, K2: np.ndarray, **settings: Any) -> np.ndarray:
        """The 3 x 3 essential matrix for the camera matrices of target (K1) and source (K2); else as for `model`."""
        return self.model("essential", cameras=(K1, K2), **settings).matrix

    def model(
        self,
        name: models.Name,
        *,
        threshold: float = 1.0,
        count: int = 5000,
        least: float = 0.5,
        cameras: tuple[np.ndarray, np.ndarray] | None = None,
        insist: bool = False,
    ) -> models.Model:
        """A robust model of the match with its inliers, by OpenCV's USAC and MAGSAC++.

        Args:
            name: "homography", "fundamental" or "essential".
            threshold: largest error of an inlier, pixels of the source.
            count, least: of the correspondences that are asked (`sample`).
            cameras: for "essential", the 3 x 3 camera matrices of target and source.
            insist: also where the verdict says that the images do not show the same thing.

        Raises:
            GlunetError: if the verdict says no, too few correspondences are confident, or no model explains them.
        """
        if not insist and self.verdict.same is False:
            raise GlunetError(f"There is no {name} of this match: {self.verdict}. Give insist=True to have one anyway.")
        return models.estimate(name, self.sample(count, least), threshold, cameras)

    def warp(
        self, image: "str | os.PathLike[str] | Image.Image | np.ndarray", nearest: bool | None = None
    ) -> np.ndarray:
        """An image on the source's grid, seen from the target; black (zero) where the flow points outside of it.

        Args:
            nearest: take the nearest pixel's value as it is, instead of one in between (bilinear): for label maps. None
                does so for bool and for integers of more than 16 bits; label maps of 8 or 16 bits, which look like
                photographs, need True.
            image: an array of the source's height and width, H x W or H x W x C with any C: the source itself, a mask,
                a depth map. Or a path or Pillow image, which become H x W x 3 uint8, RGB.

        Returns:
            An array of the target's height and width, channels and type as they came (what lies between whole numbers
            is rounded).

        Raises:
            GlunetError: an image of another size than the source's, or of a type that has no values in between.
        """
        if not isinstance(image, np.ndarray):
            image = load_pixels(image, "source")
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
        if nearest is None:
            nearest = image.dtype.kind == "b" or (image.dtype.kind in "iu" and image.itemsize > 2)
        if nearest:
            x, y = (np.rint(self.map[..., i]).clip(0, self.source_size[1 - i] - 1).astype(np.int64) for i in range(2))
            seen = self.in_view if image.ndim == 2 else self.in_view[..., None]
            return np.where(seen, image[y, x], np.zeros((), image.dtype))
        large = image.itemsize > (4 if image.dtype.kind == "f" else 2)
        precise = np.float64 if large else np.float32
        planes = image.reshape(*image.shape[:2], -1).transpose(2, 0, 1).astype(precise, order="C")
        warped = geometry.warp(torch.from_numpy(planes)[None], self._flow_tensor(), padding="border")[0].numpy()
        warped = np.where(self.in_view, warped, 0).transpose(1, 2, 0)
        if image.dtype.kind != "f":
            warped = np.rint(warped)
        return np.ascontiguousarray(warped, image.dtype).reshape(*self.target_size, *image.shape[2:])

    def show(self) -> Image.Image:
        """A picture of the match: both images, the warped source, the flow, and how well it fits."""
        return drawing.show(self)

    def draw(self, count: int = 50, least: float = 0.5, seed: int = 0) -> Image.Image:
        """The target and the source, with lines between `count` correspondences (`sample`).

        Raises:
            GlunetError: if the match does not know its images.
        """
        return drawing.draw(self, count, least, seed)

    def _repr_png_(self) -> bytes:
        """How a notebook shows a match."""
        buffer = io.BytesIO()
        self.show().save(buffer, "PNG")
        return buffer.getvalue()

    def save(self, path: str | os.PathLike[str]) -> list[Path]:
        """Writes the flow, with its provenance: .flo, .png (KITTI's 16 bits, +-512 px at most), .npz or .flo5.

        Or, as .html, a page to look at and point into, in one file (`glunet.images.page`).

        Returns:
            The files written (a .flo has its provenance in a second one beside it).

        Raises:
            GlunetError: another suffix, flow beyond what KITTI's PNG holds, a place that cannot be written to; a page
                of a match that does not know its images.
        """
        if Path(path).suffix.lower() in (".html", ".htm"):
            from glunet.images.page import write_page

            write_page(path, self)
            return [Path(path)]
        return write_flow(path, self.flow, self.metadata())

    def metadata(self) -> dict[str, Any]:
        """What is written with every file: provenance and sizes (height, width)."""
        return {
            **self.provenance.as_dict(),
            "target_size": list(self.target_size),
            "source_size": list(self.source_size),
            **({} if self.found is None else {"search": self.found.as_dict()}),
        }

    def _flow_tensor(self) -> torch.Tensor:
        return geometry.as_tensor(self.flow)

    def _backward(self) -> np.ndarray:
        if self.backward is None:
            raise GlunetError(
                "This match has no flow from source to target: make it with matcher.match(..., backward=True)."
            )
        return self.backward
