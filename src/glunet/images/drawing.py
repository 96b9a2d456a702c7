"""Pictures of a match for people, in a notebook or a document."""

from typing import Any, Protocol

import numpy as np
from PIL import Image, ImageDraw

from glunet.errors import GlunetError
from glunet.flow.picture import WHEEL, flow_to_rgb, sheet

LARGEST = 1600  # pixels of a picture's longer side
_GAP = 12


class Drawable(Protocol):
    """What pictures and the page need of a `glunet.Match`, which says what each is."""

    @property
    def pictures(self) -> tuple[np.ndarray, np.ndarray] | None: ...
    @property
    def flow(self) -> np.ndarray: ...
    @property
    def map(self) -> np.ndarray: ...
    @property
    def source_size(self) -> tuple[int, int]: ...
    @property
    def target_size(self) -> tuple[int, int]: ...
    @property
    def in_view(self) -> np.ndarray: ...
    @property
    def confidence(self) -> np.ndarray: ...
    @property
    def confidence_kind(self) -> str: ...
    @property
    def tolerance(self) -> float: ...
    @property
    def verdict(self) -> Any: ...
    @property
    def provenance(self) -> Any: ...
    def warp(self, image: np.ndarray) -> np.ndarray: ...
    def sample(self, count: int, least: float, seed: int) -> Any: ...


def show(match: Drawable) -> Image.Image:
    """All at a glance (`glunet.flow.picture.sheet`); the flow's colours alone, where the images are not known."""
    if match.pictures is None:
        picture = Image.fromarray(flow_to_rgb(match.flow))
        picture.thumbnail((LARGEST, LARGEST))
        return picture
    source, target = match.pictures
    note = match.provenance.line()
    if match.confidence_kind != "in view":
        note = f"{match.verdict}; {note}"
    return sheet(source, target, match.warp(source), match.flow, match.in_view, note)


def draw(match: Drawable, count: int, least: float, seed: int) -> Image.Image:
    """Target and source side by side (the wider pair below each other), with lines between what belongs together."""
    if match.pictures is None:
        raise GlunetError("This match does not know its images: draw one that matcher.match has made.")
    source, target = match.pictures
    points = match.sample(count, least, seed)
    height, width = target.shape[:2]
    other_height, other_width = source.shape[:2]
    below = width + other_width > 1.8 * (height + other_height)
    corner = (0, height + _GAP) if below else (width + _GAP, 0)
    whole = (
        (max(width, other_width), corner[1] + other_height)
        if below
        else (
            corner[0] + other_width,
            max(height, other_height),
        )
    )
    scale = min(1.0, LARGEST / max(whole))
    page = Image.new("RGB", (max(1, round(whole[0] * scale)), max(1, round(whole[1] * scale))), "white")
    for image, (left, top) in ((target, (0, 0)), (source, corner)):
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        page.paste(
            Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), (round(left * scale), round(top * scale))
        )
    pen = ImageDraw.Draw(page)
    # The colour goes with the place in the target, so that what strays stands out from its neighbours.
    for place, other in zip(points.target, points.source, strict=True):
        colour = tuple(int(c) for c in WHEEL[int((place[0] / width + place[1] / height) / 2 * (len(WHEEL) - 1))])
        start, end = (place + 0.5) * scale, (other + np.array(corner) + 0.5) * scale
        pen.line((*start, *end), fill=colour, width=1)
        for x, y in (start, end):
            pen.ellipse((x - 2, y - 2, x + 2, y + 2), outline=colour, width=2)
    return page
