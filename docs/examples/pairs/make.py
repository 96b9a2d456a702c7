"""A benchmark of one's own: three pairs, one for each kind of truth.

    python docs/examples/pairs/make.py my-pairs
    glunet eval pairs my-pairs

Needs the extra "eval": the photographs come with scikit-image.
"""

import sys
from pathlib import Path

import numpy as np
from PIL import Image
from skimage import data
from skimage.transform import ProjectiveTransform, warp

from glunet.flow.files import write_flow


def make(folder: Path) -> None:
    """Write the pairs and pairs.csv."""
    folder.mkdir(parents=True, exist_ok=True)

    # A homography, source to target: the photograph seen from elsewhere.
    source = data.astronaut()
    homography = np.array([[0.9, 0.15, 20], [-0.1, 0.95, 40], [1e-4, 2e-4, 1]])
    target = warp(source, ProjectiveTransform(homography).inverse, preserve_range=True).astype(np.uint8)
    Image.fromarray(source).save(folder / "astronaut.png")
    Image.fromarray(target).save(folder / "astronaut-elsewhere.png")
    np.savetxt(folder / "astronaut-homography.txt", homography)

    # A flow file on the target's grid: a stereo pair, where known pixels move by minus their disparity.
    left, right, disparity = data.stereo_motorcycle()
    disparity = np.where(np.isfinite(disparity), disparity, np.nan)
    Image.fromarray(left).save(folder / "left.png")
    Image.fromarray(right).save(folder / "right.png")
    write_flow(folder / "left.flo", np.stack((-disparity, 0 * disparity), axis=-1))

    # Points, one a line: x and y in the target, x and y in the source. Here the source is the left half.
    coffee = data.coffee()
    Image.fromarray(coffee).save(folder / "coffee.png")
    Image.fromarray(coffee[:, :300]).save(folder / "coffee-half.png")
    np.savetxt(folder / "coffee-points.txt", [[x, y, x, y] for x in range(20, 280, 40) for y in range(20, 380, 40)])

    (folder / "pairs.csv").write_text(
        "name,source,target,homography,flow,points,group\n"
        "astronaut,astronaut.png,astronaut-elsewhere.png,astronaut-homography.txt,,,planar\n"
        "motorcycle,right.png,left.png,,left.flo,,stereo\n"
        "coffee,coffee-half.png,coffee.png,,,coffee-points.txt,cut\n"
    )


if __name__ == "__main__":
    make(Path(sys.argv[1]))
