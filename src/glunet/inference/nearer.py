"""A pair's network pass, with the source brought near where the global level finds it turned, tilted or much nearer.

Not in the paper, whose network sees the images as they lie. Where the global level's two directions do not agree, but
what returns mostly lies on one plane, the whole network sees the source through that plane's homography, and its flow
goes on through it: stage "H" of Truong et al.'s PDC-Net (section 3.5), with what comes back as the witness. Where next
to nothing returns, the encoder's features say where to look. Two things of one kind lie on no plane and stay as they
are.
"""

import logging
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor

from glunet.flow.geometry import Size, as_array, as_tensor
from glunet.geometry.estimation import apply_homography, resizing, robust_homography
from glunet.inference.computation import Computation
from glunet.inference.encoded import Encoded, together
from glunet.inference.features import feature_points
from glunet.inference.hypotheses import FEWEST, Hypothesis, from_features, oriented
from glunet.inference.likeness import grid
from glunet.inference.passes import global_flows, returning, views_of, warped
from glunet.inference.speed import full_precision
from glunet.inference.stages import Ways
from glunet.network.glunet import LNET_SIZE, Coarse

logger = logging.getLogger(__name__)

SURE = 0.9  # share of the positions that come back from which on a pair is matched as it lies
LOST = 0.1  # and below which the flow says nothing of a plane
ON_PLANE = 0.65  # share of those that return which must lie on a plane for the source to be seen through it
NEAR = 4.0  # px of the 256 frame within which they do
LARGE = 768 * 768  # pixels of a frame from which on the two directions are decoded one after the other
_LNET = (LNET_SIZE, LNET_SIZE)


class Asked(NamedTuple):
    """What is asked of the network.

    Attributes:
        sources, targets: a batch of pairs, all sources of one size, all targets of one size.
        both: the way back as well.
        tile, mixture: as for `Computation.flow`.
        frame: match the images as they lie, in this frame.
    """

    sources: list[Encoded]
    targets: list[Encoded]
    both: bool = False
    tile: int | None = None
    mixture: bool = False
    frame: Size | None = None


class Answer(NamedTuple):
    """What the network says of a batch of pairs.

    Attributes:
        flow: B x 2 x H x W, target into source, pixels; of networks that predict it, the mixture as 4 more channels.
        backward: B x 2 x H_source x W_source, the way back; None where it was not asked for.
        planes: of each pair the target -> source homography that the network saw the source through, 3 x 3; or None.
        coarse: of each pair that was matched as it lies, flow4 and flow3 of the way back, where they are; or None.
    """

    flow: Tensor
    backward: Tensor | None
    planes: Sequence[np.ndarray | None]
    coarse: Sequence[Coarse | None] = ()

    def ways(self) -> list[Ways]:
        """The same pair by pair, as arrays."""
        none: list[None] = [None] * len(self.planes)
        back = none if self.backward is None else map(as_array, self.backward)
        mixed = map(as_array, self.flow[:, 2:]) if self.flow.shape[1] > 2 else none
        flows = map(as_array, self.flow[:, :2])
        return [Ways(*way) for way in zip(flows, back, mixed, self.planes, self.coarse or none, strict=True)]


def answer(computation: Computation, asked: Asked) -> Answer:
    """The network's answer for a batch of pairs."""
    if asked.frame is not None or computation.settings.looks == 1:
        return _direct(computation, asked)
    there, back = _coarse(computation, asked)
    coarse = there[1].split(1), back[1].split(1)
    planes = [_plane(computation, *pair) for pair in zip(asked.sources, asked.targets, *coarse, strict=True)]
    flows: dict[int, Tensor] = {}
    backwards: dict[int, Tensor] = {}
    plain = [i for i, plane in enumerate(planes) if plane is None]
    if plain:
        known = tuple((flow4[plain], flow3[plain]) for flow4, flow3 in (there, back))
        sources, targets = ([images[i] for i in plain] for images in (asked.sources, asked.targets))
        made = _direct(computation, asked._replace(sources=sources, targets=targets), known)
        flows.update(zip(plain, made.flow.split(1), strict=True))
        backwards.update(zip(plain, () if made.backward is None else made.backward.split(1), strict=asked.both))
    for i, plane in enumerate(planes):
        if plane is not None:
            pair = asked.sources[i], asked.targets[i]
            flows[i] = through(computation, *pair, plane, asked.tile, asked.mixture)
            if asked.both:
                backwards[i] = way_back(computation, *pair, plane, asked.tile)
    every = range(len(planes))
    backward = torch.cat([backwards[i] for i in every]) if asked.both else None
    ways_back = zip(back[0].split(1), back[1].split(1), strict=True)
    known_back = [way if plane is None else None for plane, way in zip(planes, ways_back, strict=True)]
    return Answer(torch.cat([flows[i] for i in every]), backward, planes, known_back)


def way_back(
    computation: Computation,
    source: Encoded,
    target: Encoded,
    plane: np.ndarray | None,
    tile: int | None = None,
    coarse: Coarse | None = None,
) -> Tensor:
    """The flow of the source into the target, 1 x 2 x H_source x W_source, of a pair whose way there is known.

    Args:
        plane, coarse: as `Ways` has them of the way there.
    """
    if plane is not None:
        return through(computation, target, source, np.linalg.inv(plane), tile)
    asked = Asked([target], [source], tile=tile, frame=computation.frame(target.size))
    return _direct(computation, asked, (coarse, None)).flow


def through(
    computation: Computation,
    source: Encoded,
    target: Encoded,
    plane: np.ndarray,
    tile: int | None = None,
    mixture: bool = False,
) -> Tensor:
    """The flow, 1 x 2 x H x W, by the network with the source seen through a target -> source homography.

    What is beyond the plane's horizon leads out of the source's view.
    """
    seen = warped(source, plane, target.size)
    made = _direct(computation, Asked([seen], [target], False, tile, mixture)).flow
    at = grid(target.size).astype(np.float64)
    there = at + as_array(made[0, :2].double())
    longest = max(source.size)
    ends = np.nan_to_num(apply_homography(plane, there), nan=-longest).clip(-longest, 2 * longest)
    flow = as_tensor((ends - at).astype(np.float32)).to(made)
    if made.shape[1] == 2:
        return flow
    # The log-variances are of errors in the pixels of what was seen: one of those is so many of the source's.
    depth = np.maximum(there @ plane[2, :2] + plane[2, 2], 1e-9)
    area = torch.from_numpy(np.log(np.abs(np.linalg.det(plane)) / depth**3).astype(np.float32)).to(made)
    return torch.cat((flow, made[:, 2:4] + area, made[:, 4:]), dim=1)


def _coarse(computation: Computation, asked: Asked) -> tuple[Coarse, Coarse]:
    """flow4 and flow3 of a batch, there and back."""
    settings: Any = computation.settings
    coarsest = computation.frames(computation.frame(asked.targets[0].size))[0]
    ours, theirs = (computation.features(images, coarsest, asked.tile) for images in (asked.targets, asked.sources))
    network: Any = computation.inference
    with full_precision(computation.device, settings.speed):
        flows = [network.coarse(*pair, passes=settings.first_passes) for pair in ((ours, theirs), (theirs, ours))]
    return flows[0], flows[1]


def _plane(
    computation: Computation, source: Encoded, target: Encoded, there: Tensor, back: Tensor
) -> np.ndarray | None:
    """The homography through which the network is to see the source of a pair with these flow3; None for none."""
    returned = returning(there, back)
    share = float(returned.float().mean())
    if share >= SURE:
        return None
    if share < LOST:
        return _by_features(computation, source, target)
    rest = _agreed(there.float(), returned, ON_PLANE)
    return None if rest is None else _continued(resizing(target.size, source.size), rest, target.size)


def _by_features(computation: Computation, source: Encoded, target: Encoded) -> np.ndarray | None:
    """As `_plane`, of what the encoder's features agree on, if enough of it comes back; looked at twice."""
    guesses = from_features(feature_points(computation, source, target), views_of(source, target))
    found = None
    for _ in range(2):
        flows, returned = global_flows(computation, source, target, guesses)
        shares = returned[1:].float().mean(dim=(1, 2)).tolist()
        logger.debug("by the encoder's features %s come back", shares)
        if max(shares, default=0) < LOST:
            break
        best = int(np.argmax(shares))
        rest = _agreed(flows[best + 1 :][:1], returned[best + 1 :][:1], 0)
        found = guesses[best].matrix if rest is None else _continued(guesses[best].matrix, rest, target.size)
        guesses = [Hypothesis(found, guesses[best].origin)]
    return found


def _continued(matrix: np.ndarray, rest: np.ndarray, size: Size) -> np.ndarray:
    """The homography that goes on by `matrix` where `rest`, of the target's 256 frame, ends."""
    return matrix @ resizing(_LNET, size) @ rest @ resizing(size, _LNET)


def _agreed(flow: Tensor, returned: Tensor, share: float) -> np.ndarray | None:
    """The homography of the 256 frame on which the most lies of what returns, 3 x 3; None if less than `share` does.

    Args:
        flow: 1 x 2 x 32 x 32, pixels of the 256 frame.
        returned: 1 x 32 x 32, bool.
    """
    y, x = np.nonzero(returned[0].cpu().numpy())
    target = (np.stack((x, y), axis=-1) + 0.5) * (LNET_SIZE / flow.shape[-1]) - 0.5
    source = target + as_array(flow[0].double())[y, x]
    model = robust_homography(target, source, NEAR) if len(target) >= FEWEST else None
    if model is None or model[1].sum() < max(FEWEST, share * len(target)):
        return None
    return oriented(model[0], target[model[1]], _LNET, _LNET)


def _direct(computation: Computation, asked: Asked, known: Any = None) -> Answer:
    """The answer with the images as they lie; `known`: flow4 and flow3, there and back, where they are."""
    sources, targets, both, tile, mixture, frame = asked
    size, other = targets[0].size, sources[0].size
    frame = frame or computation.frame(size)

    def pair(at: Size) -> list[Any]:
        there, here = (computation.features(images, at, tile) for images in (sources, targets))
        return [here, there]

    def there_and_back(at: Size) -> list[Any]:
        here, there = pair(at)
        return [together([here, there]), together([there, here])]

    none: list[None] = [None] * len(targets)
    if both and not mixture and frame[0] * frame[1] <= LARGE and tile is None:
        start = known and tuple(torch.cat(level) for level in zip(*known, strict=True))
        flow, backward = computation.flow_both(there_and_back, size, other, frame, start)
        return Answer(flow, backward, none)
    there, back = known or (None, None)
    flow = computation.flow(pair, size, other, frame, tile, mixture, there)
    if not both:
        return Answer(flow, None, none)
    backward = computation.flow(lambda at: pair(at)[::-1], other, size, frame, tile, known=back)
    return Answer(flow, backward, none)
