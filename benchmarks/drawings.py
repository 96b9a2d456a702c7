"""A field of one's own to fine-tune for: photographs as black and white line drawings (docs/training.md).

    python -m benchmarks.drawings LEARN.tar HELD_BACK.tar HPATCHES OUT

writes OUT/drawings and OUT/held, drawings of 200 and 60 photographs of the two archives, and OUT/devset, the sequences
of HPatches as drawings, whose homographies stay true.
"""

import argparse
import io
import shutil
import tarfile
from pathlib import Path

import cv2
import numpy as np
from PIL import Image

COUNTS = (200, 60)  # photographs to learn from and to hold back
SHORT = 480  # px of the short side that photographs are brought down to first
PICTURES = (".ppm", ".png", ".jpg", ".jpeg")


def drawing(image: np.ndarray) -> np.ndarray:
    """Lines of an image, H x W x 3 uint8, RGB: H x W, 0 where it is darker than around, else 255."""
    grey = cv2.bilateralFilter(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), 9, 40, 9)
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.2)
    return cv2.adaptiveThreshold(smooth, 255, cv2.ADAPTIVE_THRESH_GAUSSIAN_C, cv2.THRESH_BINARY, 15, 6)


def of_archive(archive: Path, out: Path, count: int, random: np.random.Generator) -> None:
    """Drawings of some photographs of a tar file, as PNG."""
    out.mkdir(parents=True)
    with tarfile.open(archive) as opened:
        members = [member for member in opened.getmembers() if member.isfile()]
        for place in random.permutation(len(members))[:count]:
            content = opened.extractfile(members[place])
            assert content is not None
            image = Image.open(io.BytesIO(content.read())).convert("RGB")
            scale = SHORT / min(image.size)
            if scale < 1:
                size = round(image.width * scale), round(image.height * scale)
                image = image.resize(size, Image.Resampling.LANCZOS)
            Image.fromarray(drawing(np.asarray(image))).save(out / f"{place:04}.png")


def of_folder(folder: Path, out: Path) -> None:
    """A copy of a folder whose pictures are drawings."""
    for path in sorted(file for file in folder.rglob("*") if file.is_file()):
        copy = out / path.relative_to(folder)
        copy.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in PICTURES:
            Image.fromarray(drawing(np.asarray(Image.open(path).convert("RGB")))).convert("RGB").save(copy)
        else:
            shutil.copy(path, copy)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("learn", "held", "hpatches", "out"):
        parser.add_argument(name, type=Path)
    given = parser.parse_args()
    random = np.random.default_rng(0)
    of_archive(given.learn, given.out / "drawings", COUNTS[0], random)
    of_archive(given.held, given.out / "held", COUNTS[1], random)
    of_folder(given.hpatches, given.out / "devset" / given.hpatches.name)


if __name__ == "__main__":
    main()
