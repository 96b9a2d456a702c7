"""The pictures of docs/gallery.md: panels beside each other, with stripes where there is no match."""

from pathlib import Path

import numpy as np
from benchmarks.gallery_pairs import Pair
from PIL import Image, ImageDraw, ImageFont

from glunet.flow.picture import flow_to_rgb
from glunet.match import Match

WIDTH, GAP, TITLE = 1200, 8, 24
LEAST = 0.5  # confidence below which the pictures say "no match"
QUALITY = 82
LARGEST = 150_000  # bytes of a picture

Panel = tuple[str, np.ndarray]


def panels(pair: Pair, match: Match, veil: bool) -> list[Panel]:
    target, source, warped = pair.target, pair.source, match.warp(pair.source)
    if pair.points is not None:
        here, there = pair.points
        x, y = here.T
        target, source = dotted(target, here, None), dotted(source, match.map[y, x], there)
    return [
        ("target", target),
        ("source", source),
        ("source, warped onto the target", veiled(warped, match) if veil else warped),
        ("flow", coloured(match)),
    ]


def veiled(image: np.ndarray, match: Match) -> np.ndarray:
    """Striped where there is no match, as on the HTML page."""
    y, x = np.mgrid[: image.shape[0], : image.shape[1]]
    period = max(6, image.shape[1] // 60)
    stripes = np.where(((x + y) % period < period / 3)[..., None], (134, 141, 149), (38, 42, 48))
    return np.where((match.confidence < LEAST)[..., None], 0.3 * image + 0.7 * stripes, image).astype(np.uint8)


def coloured(match: Match) -> np.ndarray:
    sure = match.confidence >= min(LEAST, float(match.confidence.max()))
    return flow_to_rgb(match.flow, float(np.hypot(*match.flow[sure].T).max()) or 1.0, match.in_view)


def dotted(image: np.ndarray, dots: np.ndarray, rings: np.ndarray | None) -> np.ndarray:
    picture = Image.fromarray(image)
    pen = ImageDraw.Draw(picture)
    radius = max(image.shape) / 90
    for number, (x, y) in enumerate(dots):
        colour = tuple(int(c) for c in flow_to_rgb(np.array([[_around(number, len(dots))]]), 1.0)[0, 0])
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour, outline="white")
        if rings is not None:
            u, v = rings[number]
            pen.line((x, y, u, v), fill=colour, width=2)
            pen.ellipse((u - 2 * radius, v - 2 * radius, u + 2 * radius, v + 2 * radius), outline=colour, width=2)
    return np.asarray(picture)


def _around(number: int, count: int) -> tuple[float, float]:
    return float(np.cos(2 * np.pi * number / count)), float(np.sin(2 * np.pi * number / count))


def row(shown: list[Panel]) -> Image.Image:
    """Panels beside each other, of one height, WIDTH wide together."""
    ratios = [image.shape[1] / image.shape[0] for _, image in shown]
    height = round((WIDTH - GAP * (len(shown) - 1)) / sum(ratios))
    page = Image.new("RGB", (WIDTH, height + TITLE), "white")
    pen = ImageDraw.Draw(page)
    left = 0
    for (title, image), ratio in zip(shown, ratios, strict=True):
        width = round(height * ratio)
        picture = Image.fromarray(np.ascontiguousarray(image)).resize((width, height), Image.Resampling.LANCZOS)
        page.paste(picture, (left, TITLE))
        sizes = (ImageFont.load_default(size) for size in range(15, 8, -1))
        font = next((font for font in sizes if font.getlength(title) <= width), ImageFont.load_default(9))
        pen.text((left, 3), title, (60, 60, 60), font=font)
        left += width + GAP
    return page


def stacked(rows: list[Image.Image]) -> Image.Image:
    page = Image.new("RGB", (WIDTH, sum(one.height for one in rows) + GAP * (len(rows) - 1)), "white")
    top = 0
    for one in rows:
        page.paste(one, (0, top))
        top += one.height + GAP
    return page


def save(picture: Image.Image, path: Path) -> None:
    """As WebP of at most LARGEST bytes."""
    path.parent.mkdir(parents=True, exist_ok=True)
    for quality in range(QUALITY, 20, -8):
        picture.save(path, "WEBP", quality=quality, method=4)
        if path.stat().st_size <= LARGEST:
            break


def mean_of(images: list[np.ndarray]) -> np.ndarray:
    """Each counts where it is not black: sharp where all agree."""
    seen = [image.any(axis=-1, keepdims=True) for image in images]
    return (np.sum(images, axis=0) / np.maximum(np.sum(seen, axis=0), 1)).astype(np.uint8)
