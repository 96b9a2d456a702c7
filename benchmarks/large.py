"""Large pairs: what matching at full size gains over a reduced copy, and what it takes.

python -m benchmarks.large PHOTOS [--size 4000x3000] [--reduced 520,1040,2080] [--max-memory 8] [--speed fast]

The pair is two views of one synthetic scene (`glunet.training.scenes`, without objects), whose plane carries a mosaic
of photographs, so that there is detail at full size; the truth is exact. Each reduced copy is matched and its flow
enlarged. Errors in pixels of the full size, over what both views see.
"""

import argparse
import dataclasses
import json
import math
import resource
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

import glunet
from glunet.flow.geometry import resize_area, resize_bilinear, scale_flow
from glunet.training.photographs import Photographs, find
from glunet.training.scenes import SceneParameters, draw, render, truth

Flow = NDArray[np.float32]
# Moderate motion of every kind but a turn by any angle: a view that a reduced copy can be matched in.
RECIPE = dataclasses.replace(SceneParameters(), objects=0, shares=(0.0, 0.0, 1.0, 0.0), any_angle=0.0, still=0.0)


def mosaic(photographs: Photographs, height: int, width: int, tile: int = 480) -> Tensor:
    """Photographs side by side, 1 x 3 x height x width in 0..1, each a square of `tile` at its own resolution."""
    rows, columns = math.ceil(height / tile), math.ceil(width / tile)
    canvas = torch.empty(3, rows * tile, columns * tile)
    for i in range(rows * columns):
        photo = photographs[i % len(photographs)].float() / 255
        side = min(photo.shape[-2:])
        square = resize_area(photo[None, :, :side, :side], (tile, tile))[0]
        y, x = divmod(i, columns)
        canvas[:, y * tile : (y + 1) * tile, x * tile : (x + 1) * tile] = square
    return canvas[None, :, :height, :width]


def pair(photographs: Photographs, height: int, width: int, seed: int) -> tuple[Any, Any, Flow, NDArray[np.bool_]]:
    """Source and target (H x W x 3 uint8), the true flow H x W x 2 and what both see."""
    scenes = draw(1, 2, torch.Generator().manual_seed(seed), RECIPE, aspect=width / height)
    canvas = mosaic(photographs, round(1.3 * height), round(1.3 * width))
    none = canvas.new_zeros(1, 0, 3, 1, 1)
    views = []
    for view in (1, 0):
        picture = render(scenes, torch.tensor([view]), canvas, none, (height, width))
        views.append((picture[0] * 255).round().byte().permute(1, 2, 0).numpy())
    # The flow is smooth: its truth on a quarter of the grid, enlarged, is good to a hundredth of a pixel.
    true = truth(scenes, torch.tensor([0]), torch.tensor([1]), (height // 4, width // 4), (height, width))
    flow = resize_bilinear(true.flow, (height, width))[0].permute(1, 2, 0).numpy()
    visible = resize_bilinear(true.visible[:, None].float(), (height, width))[0, 0].numpy() == 1
    return views[0], views[1], flow, visible


def reduced(image: Any, longer: int) -> Any:
    """The image area-resized so that its longer side is `longer`."""
    height, width = image.shape[:2]
    size = (round(longer * height / max(height, width)), round(longer * width / max(height, width)))
    planes = resize_area(torch.from_numpy(image).permute(2, 0, 1)[None].float(), size)
    return planes[0].round().byte().permute(1, 2, 0).numpy()


def enlarged(flow: Flow, size: tuple[int, int]) -> Flow:
    """A reduced pair's flow on the full grid, in its pixels."""
    height, width = flow.shape[:2]
    planes = resize_bilinear(torch.from_numpy(flow).permute(2, 0, 1)[None], size)
    return scale_flow(planes, size[1] / width, size[0] / height)[0].permute(1, 2, 0).numpy()


def error(flow: Flow, true: Flow, visible: NDArray[np.bool_]) -> tuple[float, float]:
    """Mean and median end-point error over what is visible, without a copy of everything."""
    distance = np.hypot(*np.moveaxis(flow - true, -1, 0))[visible]
    return float(distance.mean()), float(np.median(distance))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photos", type=Path, nargs="+", help="photographs: folders or tars")
    parser.add_argument("--size", default="4000x3000", help="width x height")
    parser.add_argument("--reduced", default="520,1040,2080", help="longer sides of the reduced copies")
    parser.add_argument("--max-memory", type=float, help="GB the full size is matched within (default: what there is)")
    parser.add_argument("--weights", default="glunet")
    parser.add_argument("--speed", choices=("exact", "fast"), default="exact")
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--confidence", action="store_true", help="both directions, as `glunet match` does")
    parser.add_argument("--save", type=Path, help="write both images here (PNG), to look at")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args(arguments)
    width, height = (int(side) for side in asked.size.split("x"))
    source, target, true, visible = pair(Photographs(find(asked.photos)), height, width, asked.seed)
    if asked.save:
        for name, image in (("source", source), ("target", target)):
            Image.fromarray(image).save(asked.save / f"{name}.png")
    matcher = glunet.load(asked.weights, speed=asked.speed)
    motion = float(np.hypot(true[..., 0], true[..., 1])[visible].mean())
    rows: list[dict[str, Any]] = []

    def measured(name: str, flow: Flow, seconds: float) -> None:
        mean, median = error(flow, true, visible)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20
        rows.append({"matched": name, "aepe": mean, "median": median, "seconds": seconds, "peak_gb": peak})
        print(f"| {name} | {mean:.2f} | {median:.2f} | {seconds:.1f} | {peak:.1f} |", flush=True)

    threads = torch.get_num_threads()
    print(f"{width} x {height}, mean motion {motion:.1f} px, both see {visible.mean():.0%}, {threads} threads")
    print("| matched | AEPE | median | seconds | peak GB so far |\n| --- | --- | --- | --- | --- |")
    for longer in (int(side) for side in asked.reduced.split(",") if side):
        began = time.perf_counter()
        flow = matcher.match(reduced(source, longer), reduced(target, longer), confidence=False).flow
        measured(f"copy of {longer}", enlarged(flow, (height, width)), time.perf_counter() - began)
    memory = int(asked.max_memory * 1e9) if asked.max_memory else None
    began = time.perf_counter()
    flow = matcher.match(source, target, confidence=asked.confidence, max_memory=memory).flow
    measured("full size", flow, time.perf_counter() - began)
    if asked.json:
        asked.json.write_text(json.dumps({"size": [width, height], "motion": motion, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
