"""Two pairs of real photographs with known truth: pictures into a folder, errors on the screen.

    python examples/demo.py --out demo

The photographs come with scikit-image. The flow comes from the network alone, one pass for each pair.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import skimage.data
import torch
from PIL import Image

import glunet
from glunet.flow.geometry import pixel_grid, sample
from glunet.flow.picture import flow_to_rgb, sheet

Pair = tuple[np.ndarray, np.ndarray, np.ndarray]  # source, target, true flow (NaN where unknown)

# Where the corners of the target (upper left, upper right, lower right, lower left) are in the photograph, as shares of
# its width and height: turned by some 20 degrees, seen from the side, and nearer.
CORNERS = ((0.20, 0.02), (0.96, 0.20), (0.80, 0.98), (0.03, 0.74))


def motorcycle() -> Pair:
    """A stereo pair of Middlebury 2014: depth with thin parts, up to 60 px of parallax, truth by structured light."""
    left, right, disparity = skimage.data.stereo_motorcycle()
    known = np.where(np.isfinite(disparity), disparity, np.nan)
    return right, left, np.stack((-known, np.where(np.isnan(known), np.nan, 0)), axis=-1)


def astronaut() -> Pair:
    """A photograph and a view of it from elsewhere, under another exposure; the truth is a homography."""
    photo = skimage.data.astronaut()
    height, width = photo.shape[:2]
    here = np.array(((0, 0), (width - 1, 0), (width - 1, height - 1), (0, height - 1)), float)
    there = np.array(CORNERS) * (width - 1, height - 1)
    matrix = torch.from_numpy(homography(here, there)).float()
    grid = pixel_grid(height, width)
    x, y, w = torch.einsum("ij,jhw->ihw", matrix, torch.cat((grid, torch.ones_like(grid[:1]))))
    points = torch.stack((x / w, y / w))
    seen = sample(torch.from_numpy(photo.copy()).permute(2, 0, 1)[None].float(), points[None])[0]
    brighter = (255 * (seen / 255) ** 0.7 * 1.15).clamp(0, 255).round().byte()  # gamma, gain, and burnt-out lights
    return photo, brighter.permute(1, 2, 0).numpy(), (points - grid).permute(1, 2, 0).numpy()


def homography(here: np.ndarray, there: np.ndarray) -> np.ndarray:
    """The 3 x 3 matrix that takes four points (4 x 2) to four others."""
    rows = []
    for (x, y), (u, v) in zip(here, there, strict=True):
        rows += [[x, y, 1, 0, 0, 0, -u * x, -u * y], [0, 0, 0, x, y, 1, -v * x, -v * y]]
    return np.append(np.linalg.solve(np.array(rows), there.ravel()), 1).reshape(3, 3)


def aepe(flow: np.ndarray, truth: np.ndarray) -> float:
    """Average end-point error, in pixels, where the truth is known."""
    return float(np.nanmean(np.linalg.norm(flow - truth, axis=-1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("demo"), help="folder for the pictures")
    parser.add_argument("--weights", default="glunet", help="a name in the package, or a file")
    out, weights = vars(parser.parse_args()).values()
    matcher = glunet.load(weights)
    out.mkdir(parents=True, exist_ok=True)
    print(f"{matcher.provenance.line()}, on {matcher.device}\n")
    print(f"{'pair':12}{'no motion':>12}{'glunet':>12}{'seconds':>10}    average end-point error, px")
    written = []
    for pair in (motorcycle, astronaut):
        source, target, truth = pair()
        began = time.perf_counter()
        match = matcher.match(source, target)
        seconds = time.perf_counter() - began
        error, still = aepe(match.flow, truth), aepe(np.zeros_like(match.flow), truth)
        print(f"{pair.__name__:12}{still:12.1f}{error:12.2f}{seconds:10.2f}")
        warped = match.warp(source)
        note = f"AEPE {error:.2f} px against the truth (no motion: {still:.1f} px); {matcher.provenance.line()}"
        longest = float(np.nanpercentile(np.linalg.norm(truth, axis=-1), 99))
        pictures = {
            "sheet": sheet(source, target, warped, match.flow, match.in_view, note),
            "warped": Image.fromarray(warped),
            "flow": Image.fromarray(flow_to_rgb(match.flow, longest)),
            "truth": Image.fromarray(flow_to_rgb(truth, longest)),
        }
        for name, picture in pictures.items():
            written.append(out / f"{pair.__name__}-{name}.png")
            picture.save(written[-1])
    print("\nwrote", *written, sep="\n  ")


if __name__ == "__main__":
    main()
