"""Pictures become an mp4: H.264 where there is an encoder for it, at the times that the frames had."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np

from glunet.errors import GlunetError
from glunet.flow.files import writing
from glunet.video.reader import library

ENCODERS = {"libx264": {"crf": "18", "preset": "fast"}, "libopenh264": {}, "mpeg4": {"q": "3"}}
_TICKS = 60_000  # a second: whole numbers of them for all usual rates, and as many as MPEG-4 takes

Add = Callable[[np.ndarray, float], None]


@contextmanager
def film(path: Path, rate: Fraction) -> Iterator[Add]:
    """An mp4 that appears whole or not at all: yields what takes a picture (H x W x 3 uint8) and its time in seconds.

    Pictures are shown until the next one's time. Sides must be even (yuv420p, what every player shows): the last row or
    column is repeated where one is odd.

    Args:
        rate: frames a second, as a hint for the encoder; the times decide.

    Raises:
        GlunetError: no picture, pictures of several sizes, no encoder, or a place that cannot be written to.
    """
    av = library()
    with writing(path) as part:
        try:
            container = av.open(str(part), "w", format="mp4")
        except av.FFmpegError as error:
            reason = error.strerror or error
            raise GlunetError(
                f"The film '{path}' cannot be written ({reason}): free or choose another place."
            ) from error
        try:
            with container:
                writer = _Writer(container, path, rate, av)
                yield writer.add
                writer.finish()
        except av.FFmpegError as error:
            reason = error.strerror or error
            raise GlunetError(
                f"The film '{path}' cannot be written ({reason}): free or choose another place."
            ) from error


def padded(pixels: np.ndarray) -> np.ndarray:
    """H x W x 3 with even sides: the last row or column once more where one is odd."""
    height, width = pixels.shape[:2]
    return np.pad(pixels, ((0, height % 2), (0, width % 2), (0, 0)), mode="edge") if height % 2 or width % 2 else pixels


class _Writer:
    def __init__(self, container: Any, path: Path, rate: Fraction, av: Any) -> None:
        self.container, self.path, self.rate, self.av = container, path, rate, av
        self.stream: Any = None
        self.size = (0, 0)
        self.last = -1

    def add(self, pixels: np.ndarray, time: float) -> None:
        if self.stream is None:
            self.size = (pixels.shape[0], pixels.shape[1])
            self.stream = self._stream(padded(pixels))
        if pixels.shape[:2] != self.size:
            height, width = self.size
            raise GlunetError(
                f"'{self.path.name}' began with pictures of {width} x {height} pixels, but one of {pixels.shape[1]} x "
                f"{pixels.shape[0]} came: a film needs frames of one size."
            )
        frame = self.av.VideoFrame.from_ndarray(np.ascontiguousarray(padded(pixels)), format="rgb24")
        self.last = max(self.last + 1, round(time * _TICKS))
        frame.pts, frame.time_base = self.last, Fraction(1, _TICKS)
        for packet in self.stream.encode(frame):
            self.container.mux(packet)

    def finish(self) -> None:
        if self.stream is None:
            raise GlunetError(f"'{self.path.name}' would have no picture: no pair of frames was matched.")
        for packet in self.stream.encode(None):
            self.container.mux(packet)

    def _stream(self, first: np.ndarray) -> Any:
        for name, options in ENCODERS.items():
            try:
                self.av.Codec(name, "w")
            except ValueError:  # av.error.UnknownCodecError
                continue
            stream = self.container.add_stream(name, rate=self.rate, options=options)
            stream.height, stream.width = first.shape[:2]
            stream.pix_fmt = "yuv420p"
            stream.codec_context.time_base = Fraction(1, _TICKS)
            return stream
        raise GlunetError(f"This PyAV has no encoder for mp4 (looked for {', '.join(ENCODERS)}): install PyAV's wheel.")
