"""A match as one HTML file that answers: point at the target, and see where that is in the source.

The file holds all it shows (`page.html`, `page.css` and the scripts beside this module, three pictures, the flow) and
asks for nothing else: a Content-Security-Policy, with the hashes of its own scripts, lets it reach no network. The flow
is kept in steps of 1/8 px, as differences, which deflate well; a hover is a look-up in it.
"""

import base64
import hashlib
import html
import io
import json
import os
import zlib
from importlib import resources
from typing import Any

import numpy as np
from PIL import Image, features

from glunet.errors import GlunetError
from glunet.flow.files import writing
from glunet.flow.picture import flow_to_rgb, wheel_picture
from glunet.images.drawing import Drawable

LONGEST = 1280  # pixels of the longer side, of what a page shows
STEP = 1 / 8  # px
UNKNOWN = -32768  # in the place of a flow that 16 bits do not hold
LEAST = 0.5  # confidence below which a page says "no match", until its slider is moved
_QUALITY = 88

Sizes = tuple[tuple[int, int], tuple[int, int]]


def page(
    match: Drawable, names: tuple[str, str] = ("source", "target"), sizes: Sizes | None = None, longest: int = LONGEST
) -> str:
    """The page of a match, HTML; arguments and errors as for `payload`."""
    shown = payload(match, names, sizes, longest)
    return build(f"{names[1]} in {names[0]}", shown)


def write_page(path: str | os.PathLike[str], match: Drawable, names: tuple[str, str] = ("source", "target")) -> None:
    """Writes `page`, whole or not at all.

    Raises:
        GlunetError: as `page`; a place that cannot be written to.
    """
    content = page(match, names)
    with writing(path) as part:
        part.write_text(content, encoding="utf-8")


def payload(
    match: Drawable, names: tuple[str, str] = ("source", "target"), sizes: Sizes | None = None, longest: int = LONGEST
) -> dict[str, Any]:
    """What a page knows of a match, for JSON. All coordinates are pixels of the original images.

    Args:
        match: with its pictures.
        names: how the page calls source and target.
        sizes: (height, width) of the original source and target, where the match was made of smaller copies.
        longest: pixels of the longer side from which on an image is shown reduced; of a reduced target the page knows
            the flow of one pixel for each that it shows, not a mean.

    Raises:
        GlunetError: if the match does not know its pictures.
    """
    if match.pictures is None:
        raise GlunetError("This match does not know its images: make a page of one that matcher.match has made.")
    source, target = match.pictures
    original = sizes or (match.source_size, match.target_size)
    width, height = _shown(match.target_size, longest)
    columns, rows = _picked(match.target_size[1], width), _picked(match.target_size[0], height)
    here, there = np.meshgrid(columns, rows), match.map[np.ix_(rows, columns)]
    xs, ys = (
        _original(picked, own, whole)
        for picked, own, whole in zip((columns, rows), match.target_size[::-1], original[1][::-1], strict=True)
    )
    flow = np.stack(
        [
            _original(there[..., i].astype(np.float64), match.source_size[1 - i], original[0][1 - i])
            - (xs[None] if i == 0 else ys[:, None])
            for i in range(2)
        ],
        axis=-1,
    )
    confidence = match.confidence[here[1], here[0]]
    steps, step = quantise(flow, confidence > 0)
    known = np.asarray((steps != UNKNOWN).all(-1))
    # Colours are stretched over what counts; wild guesses elsewhere would make it pale.
    length = np.hypot(*flow[known & (confidence >= min(LEAST, confidence.max()))].T)
    rim = float(length.max(initial=0)) or 1.0
    in_view = match.confidence_kind == "in view"
    return {
        "names": {"source": names[0], "target": names[1]},
        "sizes": {"source": original[0][::-1], "target": original[1][::-1]},
        "matched": {"source": match.source_size[::-1], "target": match.target_size[::-1]},
        "shown": {"source": _shown(match.source_size, longest), "target": (width, height)},
        "xs": xs.round(2).tolist(),
        "ys": ys.round(2).tolist(),
        "images": {
            "source": _picture(source, _shown(match.source_size, longest)),
            "target": _picture(target, (width, height)),
            "warped": _picture(match.warp(source), (width, height)),
            "flow": _picture(flow_to_rgb(flow, rim, known), (width, height)),
            "wheel": _address(wheel_picture(96), "PNG"),
        },
        "field": base64.b64encode(pack(steps, percent(confidence))).decode(),
        "step": step,
        "rim": round(rim, 1),
        "confidence": {
            "kind": match.confidence_kind,
            "within": round(match.tolerance * original[1][1] / match.target_size[1], 1),
            "least": 0 if in_view else round(100 * LEAST),
        },
        "verdict": {"same": None if in_view else match.verdict.same, "text": _verdict(match)},
        "made": match.provenance.line(),
    }


def quantise(flow: np.ndarray, matched: np.ndarray) -> tuple[np.ndarray, float]:
    """A flow as whole steps of 16 bits.

    Args:
        flow: H x W x 2, pixels.
        matched: H x W bool, where there is a match; these all fit.

    Returns:
        H x W x 2 int16, `UNKNOWN` where a flow that is no match does not fit or is not finite; and the step in pixels:
        1/8, which reaches to 4095 px, or as many times twice that as it takes to hold all matches.
    """
    finite = np.isfinite(flow).all(-1)
    furthest = float(np.abs(flow[finite & matched]).max(initial=0))
    step = STEP
    while furthest / step > 32767:
        step *= 2
    steps = np.rint(np.where(finite[..., None], flow, 0) / step)
    fits = finite & (np.abs(steps) <= 32767).all(-1)
    return np.where(fits[..., None], steps, UNKNOWN).astype(np.int16), step


def percent(confidence: np.ndarray) -> np.ndarray:
    """Confidence 0..1 as uint8 percent, rounded down: what is below a whole percent stays below. 0 only for 0."""
    whole = np.floor(confidence.astype(np.float64) * 100 + 1e-6)
    return np.where(confidence > 0, np.maximum(whole, 1), 0).astype(np.uint8)


def pack(steps: np.ndarray, confidence: np.ndarray) -> bytes:
    """Deflated planes: low and high bytes of x, of y, then confidence, each as differences from its neighbours.

    The differences are of whole values, modulo their range: first from the left, of these from above.
    """
    parts = []
    for plane in (steps[..., 0], steps[..., 1]):
        change = _differences(plane.view(np.uint16))
        parts += [(change & 255).astype(np.uint8), (change >> 8).astype(np.uint8)]
    parts.append(_differences(confidence))
    return zlib.compress(b"".join(part.tobytes() for part in parts), 9)


def build(title: str, shown: dict[str, Any] | None, served: dict[str, Any] | None = None) -> str:
    """The page as text, from its parts.

    Args:
        shown: a `payload`; None for a page that has none yet.
        served: settings for a page from the server, which takes uploads; None for one that stands alone.
    """
    parts = resources.files("glunet.images")
    style = (parts / "page.css").read_text(encoding="utf-8")
    names = ("page.js", *(("upload.js",) if served is not None else ()))
    scripts = [(parts / name).read_text(encoding="utf-8") for name in names]
    allowed = " ".join(_hash(script) for script in scripts)
    policy = [
        "default-src 'none'",
        f"script-src {allowed}",
        f"style-src {_hash(style)}",
        "img-src data: blob:",
        "base-uri 'none'",
        "form-action 'none'",
        *(["connect-src 'self'"] if served is not None else []),
    ]
    content = {
        "policy": "; ".join(policy),
        "title": html.escape(title),
        "style": style,
        "match": _json(shown),
        "served": _json(served),
        "scripts": "\n".join(f"<script>{script}</script>" for script in scripts),
    }
    # One after the other, and what was put in is not looked at again: it may hold anything.
    whole, rest = "", (parts / "page.html").read_text(encoding="utf-8")
    for name, value in content.items():
        before, rest = rest.split("{{" + name + "}}")
        whole += before + value
    return whole + rest


def _json(content: object) -> str:
    """JSON that may stand inside a script element: nothing in it looks like an end of one."""
    return json.dumps(content, separators=(",", ":")).replace("<", "\\u003c")


def _hash(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _shown(size: tuple[int, int], longest: int) -> tuple[int, int]:
    """(width, height) of an image of (height, width) on the page."""
    scale = min(1.0, longest / max(size))
    return max(1, round(size[1] * scale)), max(1, round(size[0] * scale))


def _picked(length: int, shown: int) -> np.ndarray:
    """Which of `length` pixels stand for the `shown` ones: those in their middles."""
    return ((np.arange(shown) + 0.5) * length / shown).astype(np.int64)


def _original(positions: np.ndarray, own: int, whole: int) -> np.ndarray:
    """Positions along a side of `own` pixels, on the original's side of `whole`."""
    return positions.astype(np.float64) if own == whole else (positions + 0.5) * (whole / own) - 0.5


def _differences(plane: np.ndarray) -> np.ndarray:
    change = plane.copy()
    change[:, 1:] -= plane[:, :-1]
    above = change.copy()
    change[1:] -= above[:-1]
    return change


def _picture(image: np.ndarray, size: tuple[int, int]) -> str:
    picture = Image.fromarray(np.ascontiguousarray(image))
    if picture.size != size:
        picture = picture.resize(size, Image.Resampling.LANCZOS)
    return _address(picture, "WEBP" if features.check("webp") else "JPEG")


def _address(picture: Image.Image, kind: str) -> str:
    """A data: address that holds the picture."""
    buffer = io.BytesIO()
    picture.save(buffer, kind, quality=_QUALITY)
    return f"data:image/{kind.lower()};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _verdict(match: Drawable) -> str:
    if match.confidence_kind == "in view":
        return "no verdict: matched in one direction only"
    return str(match.verdict)
