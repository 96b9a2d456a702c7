"""Pictures of the pairs with the worst figures: the images, truth, flow and error map side by side."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from glunet.evaluation.baselines import Flow, Method
from glunet.evaluation.cache import Cache, content_key
from glunet.evaluation.datasets.base import Dataset, FlowTruth, HomographyTruth, PointTruth, Sample
from glunet.evaluation.datasets.read import homography_flow
from glunet.evaluation.metrics import epe
from glunet.evaluation.results import Results
from glunet.evaluation.scoring import at_points
from glunet.evaluation.tables import label, text
from glunet.flow.files import writing
from glunet.flow.geometry import as_tensor, warp
from glunet.flow.picture import flow_to_rgb
from glunet.images.reading import as_picture

Picture = NDArray[np.uint8]
GREY, PANEL, HEADING = 128, 420, 22


def write_worst(
    dataset: Dataset, method: Method, results: Results, count: int, folder: Path, cache: Cache | None = None
) -> list[Path]:
    """Write one PNG for each of the `count` worst pairs, the worst first, and return their paths.

    A flow that is not in the cache is made again.
    """
    if dataset.benchmark.flipping:
        method = method.with_flipping()
    pairs = {pair.name: pair for pair in dataset.pairs}
    metric = results.benchmark.metrics[0]
    written = []
    folder.mkdir(parents=True, exist_ok=True)
    for rank, score in enumerate(results.worst(count), start=1):
        sample = pairs[score.name].load()
        key = content_key(sample.source, sample.target)
        flow = cache.load(method.identity, key, sample.target.shape[:2]) if cache is not None else None
        if flow is None:
            flow = method.match_many([(sample.source, sample.target)])[0]
        own = score.figure(metric)
        figure = f"corner error {own:.1f} px" if metric.startswith("auc") else f"{label(metric)} {text(metric, own)}"
        picture = sheet(sample, flow, f"{results.benchmark.title}, {score.name}, {results.method}: {figure}")
        safe = "".join(c if c.isalnum() or c in "-_" else "-" for c in score.name)
        path = folder / f"{results.benchmark.name}-{results.method.replace(' ', '-')}-{rank:02d}-{safe}.png"
        with writing(path) as part:
            picture.save(part, format="PNG")
        written.append(path)
    return written


def sheet(sample: Sample, flow: Flow, heading: str) -> Image.Image:
    """One pair as a page of panels."""
    truth = sample.truth
    if isinstance(truth, PointTruth):
        panels = [
            ("target and its points", _crosses(sample.target, truth.target, (0, 200, 0))),
            ("source: truth green, answer red", _answers(sample, flow, truth)),
            ("source warped by the flow", warped(sample.source, flow)),
            ("flow", flow_to_rgb(flow)),
        ]
        return _page(panels, heading, columns=2)
    if isinstance(truth, HomographyTruth):
        true_flow, valid = homography_flow(truth.matrix, sample.source.shape[:2], sample.target.shape[:2])
        truth = FlowTruth(true_flow, valid)
    longest = float(np.linalg.norm(truth.flow[truth.valid], axis=-1).max()) if truth.valid.any() else 1.0
    errors = np.where(truth.valid, epe(flow, truth.flow), 0)
    most = max(2.0, float(np.quantile(errors[truth.valid], 0.95))) if truth.valid.any() else 2.0
    panels = [
        ("target", sample.target),
        ("source", sample.source),
        ("source warped by the truth", np.where(truth.valid[..., None], warped(sample.source, truth.flow), GREY)),
        ("source warped by the flow", warped(sample.source, flow)),
        (f"truth, full colour {longest:.3g} px", flow_to_rgb(truth.flow, max=longest, valid=truth.valid)),
        ("flow, in the same colours", flow_to_rgb(flow, max=longest)),
        (f"error: white 0, black {most:.3g} px or more, grey unknown", error_picture(errors, truth.valid, most)),
    ]
    return _page([(title, np.asarray(picture, np.uint8)) for title, picture in panels], heading, columns=3)


def warped(source: Picture, flow: Flow) -> Picture:
    """The source seen from the target, black where the flow points out of it."""
    return as_picture(warp(as_tensor(source).float(), as_tensor(flow))[0])


def error_picture(errors: NDArray[np.float64], valid: NDArray[np.bool_], most: float) -> Picture:
    """End-point errors from white (none) through red to black (`most` pixels and beyond), blue-grey where unknown."""
    share = np.clip(errors / most, 0, 1)
    red = np.clip(2 - 2 * share, 0, 1)
    other = np.clip(1 - 2 * share, 0, 1)
    colours = (np.stack((red, other, other), axis=-1) * 255).round()
    return np.where(valid[..., None], colours, (150, 155, 165)).astype(np.uint8)


def _answers(sample: Sample, flow: Flow, truth: PointTruth) -> Picture:
    answers = truth.target + at_points(flow, truth.target, truth.nearest)
    picture = Image.fromarray(sample.source)
    draw = ImageDraw.Draw(picture)
    for there, here in zip(truth.source.tolist(), answers.tolist(), strict=True):
        draw.line([tuple(there), tuple(here)], fill=(255, 255, 0))
    return _crosses(_crosses(np.array(picture), truth.source, (0, 200, 0)), answers, (230, 0, 0))


def _crosses(image: Picture, points: NDArray[np.float64], colour: tuple[int, int, int]) -> Picture:
    picture = Image.fromarray(image)
    draw = ImageDraw.Draw(picture)
    arm = max(2, max(image.shape) // 100)
    for x, y in points[:500].tolist():
        draw.line([(x - arm, y), (x + arm, y)], fill=colour, width=max(1, arm // 3))
        draw.line([(x, y - arm), (x, y + arm)], fill=colour, width=max(1, arm // 3))
    return np.array(picture)


def _page(panels: list[tuple[str, Picture]], heading: str, columns: int) -> Image.Image:
    pictures = []
    for title, panel in panels:
        picture = Image.fromarray(panel)
        picture.thumbnail((PANEL, PANEL))
        pictures.append((title, picture))
    height = max(picture.height for _, picture in pictures) + HEADING
    rows = -(-len(pictures) // columns)
    page = Image.new("RGB", (columns * (PANEL + 10) + 10, HEADING + 10 + rows * (height + 10)), "white")
    draw = ImageDraw.Draw(page)
    draw.text((10, 6), heading, fill="black")
    for index, (title, picture) in enumerate(pictures):
        x, y = 10 + index % columns * (PANEL + 10), HEADING + 10 + index // columns * (height + 10)
        draw.text((x, y), title, fill="black")
        page.paste(picture, (x, y + HEADING - 4))
    return page
