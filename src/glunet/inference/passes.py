"""What a search asks of the network: the source through homographies, and the global level's scores of them."""

import math
from collections.abc import Callable, Sequence
from functools import cache, partial
from typing import Any, NamedTuple

import cv2
import numpy as np
import torch
from torch import Tensor

from glunet.flow import geometry
from glunet.flow.geometry import Size
from glunet.geometry.estimation import apply_homography, resizing
from glunet.inference.computation import Computation
from glunet.inference.encoded import Encoded
from glunet.inference.features import feature_points
from glunet.inference.hypotheses import Hypothesis, PointSource
from glunet.inference.likeness import Views, grid, views
from glunet.inference.polish import Polish
from glunet.inference.search import GlobalLevel, Search, Searcher, TwoWay
from glunet.inference.stages import Stages, Ways, homography_stage, multi_scale
from glunet.network.glunet import LNET_SIZE

_LNET, _GLOBAL = (LNET_SIZE, LNET_SIZE), ("level4", "level3")  # the frame of the global level, and what it reads
_CELLS = 32  # of the side of level 3's grid
REDUCED = 320  # px of the longer side of the copies that hypotheses are tried on
WORTH = 0.3  # share of the pixels above which copies are not worth it: they are encoded anew, the target is not
COMES_BACK = 6.0  # px of the 256 frame within which a position of level 3 counts as found
_AT_ONCE = 9  # copies that are encoded in one batch on a GPU


class Wish(NamedTuple):
    """What is asked of a match, as `Matcher.matches` takes it."""

    confidence: bool
    backward: bool
    tile: int | None
    search: Search
    polish: Polish


def views_of(source: Encoded, target: Encoded) -> Views:
    """The images of a pair as search and polish look at them."""
    pixels = [geometry.as_array(image.pixels[0].float()) for image in (source, target)]
    return views(pixels[0], pixels[1], source.valid, target.valid)


def searcher(
    computation: Computation,
    pair: tuple[Encoded, Encoded],
    seen: Views,
    ask: Callable[..., Ways],
    how: Search,
    points: Sequence[PointSource],
    plane: bool,
    near: np.ndarray | None = None,
) -> Searcher:
    """A search on a pair of source and target; `ask` passes once more, both ways, of two other images in a `frame`."""
    source, target = pair
    coarse = None
    if computation.framing.lnet:
        coarse = GlobalLevel(
            partial(global_scores, computation, source, target), partial(feature_points, computation, source, target)
        )
    frame, size = computation.frame(target.size), reduced_size(target.size)
    quick = computation.framing.size(*size)

    @cache
    def small() -> Encoded:  # only made for a pair that is lost
        return Encoded(geometry.resize_area(target.pixels, size), None, target.settings)

    def reduced(matrix: np.ndarray) -> TwoWay:
        return _through(source, small(), target.size, partial(ask, frame=quick), matrix)

    again = partial(_through, source, target, target.size, partial(ask, frame=frame))
    worth = math.prod(quick) <= WORTH * math.prod(frame)
    quicker = reduced if worth else None
    guess = None if near is None else Hypothesis(near, "the global level")
    return Searcher(seen, again, coarse, (source.picture, target.picture), how, points, quicker, plane, guess)


def reduced_size(full: Size) -> Size:
    """(height, width) of the copy of a target that hypotheses are tried on."""
    scale = min(1.0, REDUCED / max(full))
    return (max(LNET_SIZE // 2, round(scale * full[0])), max(LNET_SIZE // 2, round(scale * full[1])))


def _through(
    source: Encoded, target: Encoded, size: Size, ask: Callable[[Encoded, Encoded], Ways], matrix: np.ndarray
) -> TwoWay:
    """A pass, both ways, with the source warped by `matrix`, which leads from a grid of `size` into it.

    Returns:
        Flows on that grid, into itself; the target may be a smaller copy.
    """
    way = ask(warped(source, matrix @ resizing(target.size, size), target.size), target)
    assert way.backward is not None
    if target.size == size:
        return TwoWay(way.flow, way.backward)
    factor = np.array((size[1] / target.size[1], size[0] / target.size[0]), np.float32)
    return TwoWay(*(cv2.resize(flow, size[::-1], interpolation=cv2.INTER_LINEAR) * factor for flow in way[:2]))


def warped(source: Encoded, matrix: np.ndarray, size: Size) -> Encoded:
    """The source on a grid of (height, width), through a homography that leads from there into it.

    Where it shows nothing it is of its mean colour, and not valid.
    """
    there = apply_homography(matrix, grid(size))
    height, width = source.size
    inside = np.isfinite(there).all(-1) & (there >= -0.5).all(-1) & (there <= (width - 0.5, height - 0.5)).all(-1)
    there = np.nan_to_num(there, nan=-1e6)
    pixels, device = source.pixels, source.pixels.device
    # What becomes much smaller is averaged first, or fine texture would flicker.
    shrink = _shrinking(there, inside)
    if shrink > 1:
        pixels = geometry.resize_area(pixels, (max(32, height // shrink), max(32, width // shrink)))
    factor = np.array((pixels.shape[-1] / width, pixels.shape[-2] / height))
    there = ((there + 0.5) * factor - 0.5).astype(np.float32)
    positions = geometry.as_tensor(there).to(device)
    seen = geometry.sample(pixels, positions, "border")
    valid = inside
    if source.valid is not None:
        mask = geometry.resize_area(torch.from_numpy(source.valid)[None, None].float().to(device), pixels.shape[-2:])
        valid = inside & (geometry.sample(mask, positions, "border")[0, 0] > 0.5).cpu().numpy()
    mean = source.pixels.mean(dim=(2, 3), keepdim=True)
    return Encoded(torch.where(torch.from_numpy(valid).to(device), seen, mean), valid, source.settings)


def _shrinking(there: np.ndarray, inside: np.ndarray) -> int:
    """How many source pixels lie between neighbours of the grid, in the middle of what is seen; at least 1."""
    there, inside = there[::4], inside[::4]
    steps = np.linalg.norm(np.diff(there, axis=1), axis=-1)[inside[:, 1:] & inside[:, :-1]]
    return max(1, int(np.median(steps))) if len(steps) else 1


def global_scores(
    computation: Computation, source: Encoded, target: Encoded, guesses: Sequence[Hypothesis]
) -> list[float]:
    """How much of the target comes back, as shares of level 3's cells, 0..1: as `global_flows`."""
    return global_flows(computation, source, target, guesses)[1].float().mean(dim=(1, 2)).tolist()


@torch.inference_mode()
def global_flows(
    computation: Computation, source: Encoded, target: Encoded, guesses: Sequence[Hypothesis]
) -> tuple[Tensor, Tensor]:
    """flow3 by levels 4 and 3 alone, of the source as it lies, then of the source warped by each hypothesis.

    Returns:
        (1 + guesses) x 2 x 32 x 32, pixels of the 256 frame; and which of level 3's cells are in view and return to
        within `COMES_BACK`, bool.
    """
    frame = resizing(_LNET, target.size)  # which shows the target whole
    copies = [warped(source, guess.matrix @ frame, _LNET) for guess in guesses]
    at_once = 1 if computation.device.type == "cpu" else _AT_ONCE
    encoded = [
        computation.encode(torch.cat([copy.pixels for copy in copies[i : i + at_once]]), _LNET, ensemble=False)
        for i in range(0, len(copies), at_once)
    ]
    known, plain = (_global_features(computation, image) for image in (target, source))
    if encoded:  # an ensemble would double the time, most of which goes into encoding them
        own = encoded[0].level4.shape[1]
        known, plain = (image._replace(level4=image.level4[:, :own]) for image in (known, plain))
    ours = known._replace(**{name: getattr(known, name).expand(1 + len(copies), -1, -1, -1) for name in _GLOBAL})
    theirs = plain._replace(**{name: torch.cat([getattr(f, name) for f in (plain, *encoded)]) for name in _GLOBAL})
    network: Any = computation.inference
    flow, back = (network.coarse(*pair)[1].float() for pair in ((ours, theirs), (theirs, ours)))
    all_of_it = np.ones(source.size, bool) if source.valid is None else source.valid
    shown = torch.stack([_cells(valid, flow.device) for valid in (all_of_it, *(copy.valid for copy in copies))])
    there = geometry.scale_flow(flow, _CELLS / LNET_SIZE, _CELLS / LNET_SIZE)
    seen = geometry.in_view(there, (_CELLS, _CELLS)) & (geometry.warp(shown, there)[:, 0] > 0.5)
    return flow, seen & returning(flow, back)


def returning(there: Tensor, back: Tensor) -> Tensor:
    """Which of level 3's positions come back to within `COMES_BACK`, B x 32 x 32, bool.

    Args:
        there, back: flow3 in both directions, B x 2 x 32 x 32, pixels of the 256 frame.
    """
    scale = there.shape[-1] / LNET_SIZE
    away = there + geometry.warp(back, geometry.scale_flow(there, scale, scale))
    return away.square().sum(dim=1) < COMES_BACK**2


def _global_features(computation: Computation, image: Encoded) -> Any:
    """Features whose levels 4 and 3 are those of the image's copy of 256 px, as in every frame."""
    known = image.known()
    return computation.features([image], _LNET) if known is None else known


def _cells(valid: np.ndarray | None, device: torch.device) -> Tensor:
    """1 x 32 x 32: which share of each of level 3's cells is valid."""
    assert valid is not None
    return geometry.resize_area(torch.from_numpy(valid)[None, None].float().to(device), (_CELLS, _CELLS))[0]


def staged(how: Stages, source: Encoded, target: Encoded, first: Ways, ask: Callable[[Encoded, Encoded], Ways]) -> Ways:
    """What PDC-Net's later stages make of its first pass; `ask` passes once more, source and target given."""

    def again(matrix: np.ndarray) -> tuple[Ways, np.ndarray]:
        seen = warped(source, matrix, target.size)
        assert seen.valid is not None
        return ask(seen, target), seen.valid

    def resized(target_size: Size, source_size: Size) -> Ways:
        copies = (
            image if image.size == size else Encoded(geometry.resize_area(image.pixels, size), None, image.settings)
            for image, size in ((source, source_size), (target, target_size))
        )
        return ask(*copies)

    if how == "H":
        return homography_stage(first, again)
    return multi_scale(first, target.size, source.size, resized, again)
