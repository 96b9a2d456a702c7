"""Memory of `glunet video`, frame by frame, and how much of a shake it takes out: 640 x 360, all films.

python -m benchmarks.video [--frames 300] [--speed fast]
"""

import argparse
import tempfile
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

import av
import cv2
import numpy as np
from PIL import Image
from skimage import data

import glunet
from glunet.video.film import film
from glunet.video.reader import open_frames
from glunet.video.run import FILMS, Plan, run

WIDTH, HEIGHT = 640, 360


def make(path: Path, frames: int) -> None:
    """The film to read: a window over scikit-image's cup of coffee (Rachel Michetti, CC0), shaking, to and fro."""
    photograph = np.asarray(Image.fromarray(data.coffee()).resize((1200, 800), Image.Resampling.BICUBIC))
    random = np.random.default_rng(0)
    with film(path, Fraction(25)) as add:
        for number in range(frames):
            along = min(number % 240, 240 - number % 240)
            x, y = 100 + 3 * along + random.integers(-3, 4), 100 + along + random.integers(-3, 4)
            add(photograph[y : y + HEIGHT, x : x + WIDTH], number / 25)


def resident() -> float:
    """Memory of this process, MB (Linux)."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) / 1024 for line in lines if line.startswith("VmRSS"))


def jitter(path: Path) -> float:
    """How much the motion changes from frame to frame, mean of x and y, pixels; by phase correlation."""
    with av.open(str(path)) as container:
        grey = [
            frame.to_ndarray(format="gray")[60:-60, 80:-80].astype(np.float32) for frame in container.decode(video=0)
        ]
    motion = np.array([cv2.phaseCorrelate(before, after)[0] for before, after in pairwise(grey)])
    return float(np.abs(np.diff(motion, axis=0)).mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--frames", type=int, default=61)
    parser.add_argument("--speed", choices=("exact", "fast"), default="exact")
    asked = parser.parse_args()
    count = asked.frames
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "in.mp4"
        make(path, count)

        def watch(doing: str, done: int, total: int, problem: str) -> None:
            if done % 10 == 0 or done == total:
                print(f"{doing} {done} of {total}: {resident():.0f} MB", flush=True)

        plan = Plan(range(count), suffix=".png", films=FILMS)
        run(glunet.load(speed=asked.speed), open_frames(path), Path(folder) / "out", plan, watch)
        print(f"jitter: {jitter(path):.2f} px, stabilised {jitter(Path(folder) / 'out' / 'stabilised.mp4'):.2f} px")


if __name__ == "__main__":
    main()
