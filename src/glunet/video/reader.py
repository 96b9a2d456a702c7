"""Frames of a video file, or of a folder of images, one at a time: with their numbers, their times, and what is wrong.

A frame's number counts from 0 in the order in which frames are shown. Its picture is upright (a rotation that the file
asks for is applied), RGB, in pixels as stored: a pixel that is to be shown wider than high is not stretched.
"""

import hashlib
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glunet.errors import GlunetError, needed
from glunet.images.folders import IMAGES, natural
from glunet.images.reading import load_pixels

_SAMPLE = 1 << 16  # bytes
RATE = 25  # frames a second where nothing says how many


class Frame(NamedTuple):
    """One frame.

    Attributes:
        number: from 0, in the order shown.
        time: seconds after frame 0.
        pixels: H x W x 3 uint8; None for a frame without a picture.
        problem: why there is none; "" where there is one.
    """

    number: int
    time: float
    pixels: np.ndarray | None
    problem: str = ""


@dataclass(frozen=True)
class Video:
    """A video file.

    Attributes:
        path: of the file.
        count: number of frames.
        rate: frames a second, on average.
        times: of each frame, seconds after the first; frames need not come evenly.
        numbers: from the container's time stamps to numbers; empty where it has none.
        stored: how many frames there are in the file; less than `count` where it was cut off.
    """

    path: Path
    count: int
    rate: Fraction
    times: tuple[float, ...]
    numbers: dict[int, int]
    stored: int

    def read(self, wanted: range) -> Iterator[Frame]:
        """The frames whose numbers are wanted, broken ones included. One is in memory at a time.

        Raises:
            GlunetError: if the file cannot be opened any more.
        """
        av = library()
        after = 0  # the number that comes next
        problems: dict[int, str] = {}
        with _opened(self.path) as container:
            for packet in _packets(container, av):
                try:
                    frames = packet.decode()
                except av.FFmpegError as error:
                    frames = []
                    number = self.numbers.get(packet.pts, after)
                    problems[number] = _reason(error)
                    if not self.numbers and number in wanted:
                        yield self._broken(number, problems)
                    after += not self.numbers
                for frame in frames:
                    number = self.numbers.get(frame.pts, after)
                    for missing in range(after, number):
                        if missing in wanted:
                            yield self._broken(missing, problems)
                    if number < after:
                        continue  # one time stamp, two frames
                    after = number + 1
                    if after > wanted.stop:
                        return
                    if number not in wanted:
                        continue
                    if frame.is_corrupt:
                        problems[number] = "its picture is damaged"
                        yield self._broken(number, problems)
                    else:
                        yield Frame(number, self.time(number), _upright(frame))
        for missing in range(after, self.count):
            if missing in wanted:
                yield self._broken(missing, problems)

    def time(self, number: int) -> float:
        """Of a frame, seconds after frame 0."""
        return self.times[number] if number < len(self.times) else float(number / self.rate)

    def fingerprint(self) -> str:
        """Of the file's name and content; another after it has been exchanged."""
        return _fingerprint((self.path,))

    def _broken(self, number: int, problems: dict[int, str]) -> Frame:
        ended = "the file ends before it" if number >= self.stored else "no picture came of it"
        return Frame(number, self.time(number), None, problems.pop(number, ended))


@dataclass(frozen=True)
class Folder:
    """A folder of images, as a video: sorted by name, numbers in names by their value.

    Attributes:
        path: of the folder.
        count: number of images.
        rate: frames a second.
        files: of the images.
    """

    path: Path
    count: int
    rate: Fraction
    files: tuple[Path, ...]

    def read(self, wanted: range) -> Iterator[Frame]:
        """The frames whose numbers are wanted; one is in memory at a time."""
        for number in wanted:
            if number >= self.count:
                return
            file = self.files[number]
            try:
                pixels = load_pixels(file, "frame")
            except GlunetError as error:
                yield Frame(number, self.time(number), None, str(error).rstrip("."))
            else:
                yield Frame(number, self.time(number), np.ascontiguousarray(pixels))

    def time(self, number: int) -> float:
        """Of a frame, seconds after frame 0."""
        return float(number / self.rate)

    def fingerprint(self) -> str:
        """Of the files' names and content; another after one of them has been exchanged."""
        return _fingerprint(self.files)


Frames = Video | Folder


def _fingerprint(files: Iterable[Path]) -> str:
    """Of names, sizes, and the first and last 64 kB of each: quick also for hours of film."""
    digest = hashlib.blake2b(digest_size=16)
    for path in files:
        with path.open("rb") as file:
            size = file.seek(0, os.SEEK_END)
            digest.update(f"{path.name} {size}".encode())
            for start in (0, max(0, size - _SAMPLE)):
                file.seek(start)
                digest.update(file.read(_SAMPLE))
    return digest.hexdigest()


def open_frames(path: str | Path, fps: float | None = None) -> Frames:
    """A video file, or a folder of images.

    Args:
        fps: frames a second of a folder; None for 25. A video file says itself when each frame is shown.

    Raises:
        GlunetError: no such file, one that is no video, one without pictures, or PyAV missing.
    """
    path = Path(path)
    if fps is not None and not 0 < fps <= 1000:
        raise GlunetError(f"{fps:g} frames a second were asked for: a rate is more than 0 and at most 1000.")
    if path.is_dir():
        files = sorted((f for f in path.iterdir() if f.suffix.lower() in IMAGES and f.name[0] != "."), key=natural)
        if not files:
            raise GlunetError(f"The folder '{path}' holds no images ({', '.join(sorted(IMAGES))}): name another.")
        return Folder(path, len(files), Fraction(fps or RATE).limit_denominator(1001), tuple(files))
    if fps is not None:
        raise GlunetError(f"'{path}' is no folder: its frames have their own times, so that --fps does not apply.")
    if not path.exists():
        raise GlunetError(f"The video '{path}' does not exist: check the path.")
    av = library()
    with _opened(path) as container:
        stream = container.streams.video[0]
        stamps, dropped = [], 0
        for packet in _packets(container, av):
            if packet.size and packet.is_discard:
                dropped += 1  # an edit list leaves it out
            elif packet.size:
                stamps.append(packet.pts)
        rate = stream.average_rate or stream.guessed_rate or Fraction(RATE)
        # An mp4's index knows of frames that a cut-off file lacks; what other containers announce is a guess.
        announced = stream.frames - dropped if "mp4" in container.format.name else 0
        if not announced:
            announced = len(stamps) + _cut_off(path, av, rate)
        count = max(len(stamps), announced)
        if None in stamps or not stamps:
            return Video(path, count, rate, (), {}, len(stamps))
        stamps.sort()
        times = tuple(float((stamp - stamps[0]) * stream.time_base) for stamp in stamps)
        return Video(path, count, rate, times, {stamp: n for n, stamp in enumerate(stamps)}, len(stamps))


def library() -> Any:
    """The module av.

    Raises:
        GlunetError: if PyAV is not installed.
    """
    with needed("Video needs PyAV", "video"):
        import av
    return av


def _opened(path: Path) -> Any:
    av = library()
    try:
        # Odd bytes in a title are no reason not to read the pictures.
        container = av.open(str(path), metadata_errors="ignore")
    except (av.FFmpegError, OSError) as error:
        raise GlunetError(f"'{path}' cannot be read as a video ({_reason(error)}): check or convert it.") from error
    if not container.streams.video:
        kinds = sorted({stream.type for stream in container.streams}) or ["nothing"]
        container.close()
        raise GlunetError(f"'{path}' has no video stream, only {' and '.join(kinds)}: name a file with pictures.")
    return container


def _packets(container: Any, av: Any) -> Iterator[Any]:
    """What the container holds of its first video stream; less where it is cut off."""
    packets = container.demux(container.streams.video[0])
    while True:
        try:
            packet = next(packets, None)
        except av.FFmpegError:
            return
        if packet is None:
            return
        yield packet


def _cut_off(path: Path, av: Any, rate: Fraction) -> int:
    """How many frames a file lacks whose streams all end before the duration that its head announces (Matroska)."""
    with _opened(path) as container:
        if not container.duration:
            return 0
        last, packets = Fraction(0), container.demux()
        while True:
            try:
                packet = next(packets, None)
            except av.FFmpegError:
                break
            if packet is None:
                break
            if packet.size and packet.pts is not None:
                last = max(last, (packet.pts + (packet.duration or 0)) * packet.time_base)
        missing = Fraction(container.duration, av.time_base) + Fraction(container.start_time or 0, av.time_base) - last
        return round(missing * rate) if missing > max(Fraction(1, 4), 2 / rate) else 0


def _upright(frame: Any) -> np.ndarray:
    pixels = frame.to_ndarray(format="rgb24")
    turns = round(getattr(frame, "rotation", 0) / 90) % 4  # against the clock, as np.rot90 turns
    return np.ascontiguousarray(np.rot90(pixels, turns)) if turns else pixels


def _reason(error: Exception) -> str:
    return (getattr(error, "strerror", None) or str(error)).rstrip(".")
