"""A sheet of training pairs that a person can judge, with the histogram of their motion."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw

from glunet.errors import GlunetError
from glunet.flow.files import writing
from glunet.flow.geometry import as_array, warp
from glunet.flow.picture import flow_to_rgb
from glunet.images.reading import as_picture
from glunet.training.photographs import Photographs
from glunet.training.recipes import Settings
from glunet.training.scenes import draw, truth
from glunet.training.views import make_views

FRAME = (256, 256)
ROWS = 8
EDGES = (0, 1, 2, 4, 8, 16, 32, 64, 128, 256)  # of the histogram, pixels of 256
MARGIN, TITLE = 6, 22


def write_preview(path: Path, photographs: Photographs, settings: Settings) -> str:
    """Draw ROWS pairs (source, target, source warped by the truth, flow, what is hidden) to a PNG file.

    Returns:
        one line of numbers over 64 pairs: mean displacement, share in view, share covered.

    Raises:
        GlunetError: if the path is no .png or cannot be written.
    """
    if path.suffix.lower() != ".png":
        raise GlunetError(f"{path} is no .png; the preview is written as one: name it so.")
    views = make_views(photographs, ROWS, 2, FRAME, (settings.seed, 0), settings.scenes, "cpu", settings.photometric)
    first = torch.zeros(ROWS, dtype=torch.long)
    true = truth(views.scenes, first, first + 1, FRAME, FRAME)
    warped = warp(views.images[:, 1], true.flow)
    titles = ("source", "target", "source, warped by the truth", "true flow", "covered (red), out of view (black)")
    width = len(titles) * (FRAME[1] + MARGIN) + MARGIN
    height = TITLE + ROWS * (FRAME[0] + MARGIN) + 190
    sheet = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(sheet)
    for column, title in enumerate(titles):
        pen.text((MARGIN + column * (FRAME[1] + MARGIN), 4), title, fill="black", font_size=14)
    for row in range(ROWS):
        target = as_picture(views.images[row, 0])
        hidden = target.copy()
        hidden[(true.in_view & ~true.visible)[row].numpy()] = (220, 40, 40)
        hidden[~true.in_view[row].numpy()] = 0
        flow = flow_to_rgb(as_array(true.flow[row]))
        pictures = (as_picture(views.images[row, 1]), target, as_picture(warped[row]), flow, hidden)
        for column, picture in enumerate(pictures):
            place = (MARGIN + column * (FRAME[1] + MARGIN), TITLE + row * (FRAME[0] + MARGIN))
            sheet.paste(Image.fromarray(picture), place)
    numbers, shares = _statistics(settings)
    _histogram(pen, shares, (MARGIN, height - 170, width - 2 * MARGIN, 150))
    pen.text((MARGIN, height - 188), numbers, fill="black", font_size=14)
    with writing(path) as part:
        sheet.save(part, "PNG")
    return numbers


def _statistics(settings: Settings, batches: int = 8) -> tuple[str, list[float]]:
    sizes, in_view, covered = [], 0.0, 0.0
    for number in range(batches):
        generator = torch.Generator().manual_seed(settings.seed + number)
        scenes = draw(8, 2, generator, settings.scenes)
        first = torch.zeros(8, dtype=torch.long)
        true = truth(scenes, first, first + 1, (64, 64), FRAME)
        sizes.append(true.flow.norm(dim=1)[true.visible])
        in_view += float(true.in_view.float().mean()) / batches
        covered += float((true.in_view & ~true.visible).float().mean()) / batches
    size = torch.cat(sizes)
    counts = np.histogram(size.numpy(), bins=(*EDGES, 1e9))[0]
    text = (
        f"64 pairs: mean displacement {float(size.mean()):.1f} px of 256, {100 * in_view:.0f} % of the pixels in view, "
        f"{100 * covered:.0f} % covered; shares of displacements (pixels of 256):"
    )
    return text, list(counts / counts.sum())


def _histogram(pen: ImageDraw.ImageDraw, shares: list[float], box: tuple[int, int, int, int]) -> None:
    left, top, width, height = box
    step = width / len(shares)
    labels = [f"{low} to {high}" for low, high in pairwise(EDGES)] + [f"over {EDGES[-1]}"]
    for i, (share, label) in enumerate(zip(shares, labels, strict=True)):
        x, tall = left + i * step, (height - 40) * share / max(shares)
        pen.rectangle((x + 4, top + height - 20 - tall, x + step - 4, top + height - 20), fill=(70, 110, 170))
        pen.text((x + 6, top + height - 17), label, fill="black", font_size=12)
        pen.text((x + 6, top + height - 36 - tall), f"{100 * share:.1f} %", fill="black", font_size=12)
