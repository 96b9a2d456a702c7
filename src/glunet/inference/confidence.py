"""How far a match can be trusted: there and back again, and what that says.

A pixel's *round trip* goes from the target into the source by one flow and back by the other; how far it ends from
where it began is the one measure here that needs no truth. `Calibration`, kept in the metadata of weights, says which
share of pixels with such a round trip is right; `python -m benchmarks.calibrate` fits it.
"""

from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor

from glunet.flow import geometry

# Of 450 pairs of different photographs one had a homography of 12 keypoints or more, of 37 (docs/matches.md).
SURE_POINTS = 50
# Of 200 pairs of different photographs none has more than 0.22 of what both show come back (docs/matches.md).
SURE_AGREEMENT = 0.6

ORDERED = 5e-4  # by how much a calibrated confidence falls over its table at least

Kind = Literal["calibrated", "consistency", "in view", "predicted"]
Confidence = Literal["auto", "learned", "roundtrip"]
CONFIDENCES = get_args(Confidence)


def tolerance(size: tuple[int, int]) -> float:
    """Up to which error a correspondence counts as right: 1 % of the longer side of (height, width), at least 1 px."""
    return max(1.0, 0.01 * max(size))


def round_trip(flow: Tensor, backward: Tensor) -> Tensor:
    """How far from its place a target pixel ends that follows `flow` into the source and `backward` back.

    Args:
        flow: B x 2 x H x W, target into source.
        backward: B x 2 x H_source x W_source, source into target.

    Returns:
        B x H x W, pixels of the target. Beyond the source's border the border's backward flow holds.
    """
    back = flow + geometry.sample(backward, geometry.flow_to_map(flow), padding="border")
    return torch.hypot(back[:, 0], back[:, 1])  # on a CPU tens of times as fast as a norm over so short an axis


def occluded(flow: Tensor, backward: Tensor, in_view: Tensor) -> Tensor:
    """Which pixels in view are covered by something else there: B x H x W, bool.

    The test of Sundaram, Brox and Keutzer (2010), "Dense point trajectories by GPU-accelerated large displacement
    optical flow": the round trip misses by more than a share of the way. In pixels of two images of one scale.
    """
    back = geometry.sample(backward, geometry.flow_to_map(flow), padding="border")
    length = flow.square().sum(dim=1) + back.square().sum(dim=1)
    return in_view & (round_trip(flow, backward).square() > 0.01 * length + 0.5)


@dataclass(frozen=True)
class Calibration:
    """Which share of pixels is right, by their round trip and by that of their pair.

    "Right" means visible in the source and found within `tolerance`. All round trips are in units of the tolerance;
    what a network has learned to say of its flow (`glunet.network.uncertainty.Mixture.deviation`) may stand in their
    place.

    Attributes:
        pair: P medians of the round trip over a pair's pixels in view, ascending.
        pixel: N round trips of a pixel, ascending.
        right: P x N shares, 0..1, falling along both.
        threshold: pairs whose score (`Match.verdict`) is below it are judged not to show the same thing.
        fitted: on what, and how good it was elsewhere.
    """

    pair: tuple[float, ...]
    pixel: tuple[float, ...]
    right: tuple[tuple[float, ...], ...]
    threshold: float
    fitted: dict[str, Any]

    @staticmethod
    def from_metadata(content: dict[str, Any]) -> "Calibration":
        """From what weights' metadata holds under "confidence".

        Raises:
            KeyError, TypeError: if it is something else.
        """
        right = tuple(tuple(float(share) for share in row) for row in content["right"])
        return Calibration(
            tuple(content["pair"]), tuple(content["pixel"]), right, float(content["threshold"]), content["fitted"]
        )

    def confidence(self, trip: np.ndarray, seen: np.ndarray) -> np.ndarray:
        """Shares for round trips in units of the tolerance (any shape), of a pair whose pixels in view are `seen`."""
        return self.with_median(trip, pair_median(trip, seen))

    def with_median(self, trip: np.ndarray, median: float) -> np.ndarray:
        """As `confidence`, of a pair whose median is known."""
        table = np.array(self.right)
        row = np.interp(_log(median), _log(np.array(self.pair)), np.arange(len(table)))
        low = min(int(row), len(table) - 2) if len(table) > 1 else 0
        part = row - low
        shares = table[low] * (1 - part) + table[min(low + 1, len(table) - 1)] * part
        # Where the fit does not separate two knots, the shorter round trip is the surer one all the same.
        shares = np.maximum(shares - np.linspace(0, ORDERED, len(shares)), 0)
        return np.interp(_log(trip), _log(np.array(self.pixel)), shares).astype(np.float32)


def pair_median(trip: np.ndarray, seen: np.ndarray) -> float:
    """The median round trip over the pixels in view; where hardly any is, infinitely bad (a large number)."""
    return float(np.median(trip[seen])) if seen.any() and seen.mean() > 0.01 else 1e3


@dataclass(frozen=True)
class Verdict:
    """Whether two images show the same thing.

    Attributes:
        same: True or False; None where the weights have no calibration, so that no threshold is known.
        score: mean confidence over the target, or over what the masks allow of it, 0..1.
        threshold: of the score; None without a calibration.
        points: keypoints that agree on one homography which the match follows, where a search asked them
            (`glunet.inference.search`): `SURE_POINTS` are enough, however small a part of the target they lie in.
        agreement: the share of what both images see that comes back, 0..1, where a search asked for the way back
            (`glunet.inference.search.agreement`): `SURE_AGREEMENT` is enough, however little both see.
    """

    same: bool | None
    score: float
    threshold: float | None
    points: int = 0
    agreement: float = 0.0

    def __str__(self) -> str:
        if self.same is None:
            return f"no verdict: these weights have no calibration (mean confidence {self.score:.2f})"
        what = "the two images show the same thing" if self.same else "these two do not show the same thing"
        points = f"; {self.points} keypoints on one plane" if self.points >= SURE_POINTS else ""
        back = f"; {self.agreement:.0%} of what both show comes back" if self.agreement >= SURE_AGREEMENT else ""
        return f"{what} (mean confidence {self.score:.2f}, threshold {self.threshold:.2f}{points}{back})"


def _log(values: Any) -> np.ndarray:
    return np.log(np.asarray(values, np.float32) + 0.01)
