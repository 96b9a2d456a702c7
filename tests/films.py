"""Films of a window that moves over a texture, written by PyAV, and a matcher that knows how far it moved."""

import weakref
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
import torch
from PIL import Image

from glunet.inference.encoded import Encoded
from glunet.match import Match, Provenance
from untrained import matcher as untrained

SIZE = (48, 64)
PAN = (3, 2)  # from frame to frame, pixels
TEXTURE = cv2.GaussianBlur(np.random.default_rng(0).uniform(0, 255, (200, 260, 3)), (0, 0), 2)
TEXTURE = ((TEXTURE - TEXTURE.min()) / np.ptp(TEXTURE) * 255).astype(np.uint8)


def picture(number: int, size: tuple[int, int] = SIZE) -> np.ndarray:
    """A window that moves over a texture; its blue tells the number."""
    x, y = PAN[0] * number, PAN[1] * number
    pixels = TEXTURE[y : y + size[0], x : x + size[1]].copy()
    pixels[..., 2] = 8 * number
    return pixels


def number_of(pixels: np.ndarray) -> int:
    return round(float(pixels[..., 2].mean()) / 8)


def write_video(path: Path, pictures, times=None, codec: str = "png", rotation: int | None = None, **options) -> Path:
    with av.open(str(path), "w", options=options) as container:
        stream = container.add_stream(codec, rate=10)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt = {"png": "rgb24", "ffv1": "bgr0"}.get(codec, "yuv420p")
        stream.codec_context.time_base = Fraction(1, 1000)
        if rotation is not None:
            stream.set_display_rotation(rotation)
        for number, pixels in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(pixels, format="rgb24")
            frame.pts = round(1000 * (times[number] if times else number / 10))
            frame.time_base = Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def frames_of(path: Path) -> list[tuple[float, np.ndarray]]:
    with av.open(str(path)) as container:
        return [(frame.time, frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)]


class Pan:
    """A matcher that knows how far the window moved; it counts what it encodes, and what of it is still alive."""

    device = torch.device("cpu")
    provenance = Provenance("pan", "cd" * 32, {"x": 1})

    def __init__(self) -> None:
        self.encoded: list[int] = []
        self.alive: weakref.WeakSet[Encoded] = weakref.WeakSet()
        self.most = 0

    def encode(self, pixels: np.ndarray) -> Encoded:
        encoded = untrained().open(pixels)
        self.encoded.append(number_of(pixels))
        self.alive.add(encoded)
        self.most = max(self.most, len(self.alive))
        return encoded

    def match(self, source: Encoded, target: Encoded, confidence: bool, search: str | None = None) -> Match:
        assert source.size == target.size
        apart = number_of(target.picture) - number_of(source.picture)  # what is at x is at x - PAN one frame later
        scale = target.size[1] / SIZE[1] if target.size[1] < SIZE[1] else 1
        flow = np.broadcast_to(np.float32([PAN[0] * apart, PAN[1] * apart]) * scale, (*target.size, 2)).copy()
        return Match(
            flow, source.size, self.provenance, -flow if confidence else None, pictures=(source.picture, target.picture)
        )


def write_frames(folder: Path, count: int, name: str = "{}.png") -> Path:
    """A folder of so many pictures."""
    folder.mkdir()
    for number in range(count):
        Image.fromarray(picture(number)).save(folder / name.format(number))
    return folder
