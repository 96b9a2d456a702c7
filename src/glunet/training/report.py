"""What training brought: a page with errors before and after on held-back photographs, and pictures."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

from glunet import __version__
from glunet.flow.files import writing
from glunet.flow.geometry import as_array, resize_bilinear, warp
from glunet.flow.picture import flow_to_rgb
from glunet.images.reading import as_picture
from glunet.loading import network_state, read_network, save_weights
from glunet.network.family import Network
from glunet.training.loss import truths
from glunet.training.photographs import Photographs
from glunet.training.pool import SCENES, SQUARE, Batch, encoder_alone
from glunet.training.recipes import LEVELS
from glunet.training.validation import SEED, fixed_pairs, predict, validate, validation_parameters
from glunet.training.views import make_views

PAIRS = 64  # that the errors are measured on
PICTURES = 3
ROWS = (
    ("mean displacement", "motion"),
    ("AEPE, displacement 0 to 8 px", "aepe 0-8"),
    ("AEPE, 8 to 32 px", "aepe 8-32"),
    ("AEPE, 32 to 96 px", "aepe 32-96"),
    ("AEPE, over 96 px", "aepe 96-1000"),
    ("within 1 px", "pck1"),
    ("within 5 px", "pck5"),
)


def write_report(
    run: Path, held_back: Photographs, weights: Path, init: str | Path | None, device: torch.device
) -> tuple[Path, list[float]]:
    """Write RUN/report.md and its pictures; returns the page's path, and the AEPE before (if known) and after.

    Args:
        held_back: photographs that were not learned from.
        weights: what the run made; `init` is what it started from, if anything.

    Raises:
        GlunetError: if something cannot be read or written.
    """
    numbers = []
    for name in (init, weights) if init is not None else (weights,):
        after, metadata = read_network(name)
        after, passes = after.to(device).eval(), int(metadata.get("passes", 1))
        batches = fixed_pairs(encoder_alone(after.encoder, torch.float32), held_back, PAIRS)
        numbers.append(validate(after, batches, passes=passes))
    heads = ["before", "after"] if init is not None else ["after"]
    lines = [
        "# What training brought",
        "",
        f"glunet {__version__}; {PAIRS} pairs made of {len(held_back)} held-back photographs at 256 x 256; errors in",
        "pixels of 256, over what both views see.",
        "",
        f"| | {' | '.join(heads)} |",
        f"| --- | {' | '.join('---' for _ in heads)} |",
    ]
    for title, key in (("AEPE", f"aepe{LEVELS[after.config.network][-1]}"), *ROWS):
        values = [f"{100 * n[key]:.1f} %" if key.startswith("pck") else f"{n[key]:.2f}" for n in numbers]
        lines.append(f"| {title} | {' | '.join(values)} |")
    lines += ["", "Target, source, source warped by the network's flow onto the target, its flow, the true flow:", ""]
    pairs = fixed_pairs(encoder_alone(after.encoder, torch.float32), held_back, PICTURES)[0]
    for number, picture in enumerate(draw_pairs(after, pairs, fixed_images(held_back, device), passes), start=1):
        name = f"pair{number}.png"
        with writing(run / name) as part:
            Image.fromarray(picture).save(part, "PNG")
        lines.append(f"![pair {number}]({name})\n")
    lines += ["To use the result:", "", f"    glunet match SOURCE TARGET --out DIR --weights {weights}", ""]
    with writing(run / "report.md") as part:
        part.write_text("\n".join(lines), encoding="utf-8")
    return run / "report.md", [n[f"aepe{LEVELS[after.config.network][-1]}"] for n in numbers]


def keep_the_better(weights: Path, init: str | Path | None) -> Path:
    """Puts what a run started from in the place of its weights, which are worse; returns where these are now.

    Raises:
        GlunetError: if something cannot be read or written.
    """
    assert init is not None
    last = weights.with_name("last.safetensors")
    network, metadata = read_network(init)
    weights.replace(last)
    save_weights(weights, network_state(network), network.config, metadata)
    return last


def fixed_images(photographs: Photographs, device: torch.device) -> torch.Tensor:
    """What the first PICTURES of the fixed pairs look like: PICTURES x 2 x 3 x 256 x 256, target and source, 0..255."""
    return make_views(photographs, SCENES, 2, SQUARE, (SEED, 0), validation_parameters(), device).images[:PICTURES]


@torch.no_grad()
def draw_pairs(network: Network, pairs: Batch, images: torch.Tensor, passes: int = 1) -> list[np.ndarray]:
    """The first of the fixed pairs: target, source, source warped by the flow, flow, true flow, side by side.

    Args:
        pairs: the first batch of `validation.fixed_pairs`; `images`: of the same photographs (`fixed_images`).
        passes: see `GLUNet.decode`.

    Returns:
        PICTURES of 256 x 1280 x 3, uint8.
    """
    pairs = pairs.first(PICTURES)
    network.eval()
    flow = predict(network, *pairs.features(network), LEVELS[network.config.network], passes=passes).levels[-1]
    flow = resize_bilinear(flow.float(), SQUARE)
    true = truths(pairs.scenes, pairs.target_view, pairs.source_view, SQUARE, [SQUARE] * 3)[-1].flow
    warped = warp(images[:, 1], flow)
    pictures = []
    for number in range(len(flow)):
        largest = float(true[number].norm(dim=0).quantile(0.99))
        row = [as_picture(image[number]) for image in (images[:, 0], images[:, 1], warped)]
        row += [flow_to_rgb(as_array(f[number]), max=largest) for f in (flow, true)]
        pictures.append(np.concatenate(row, axis=1))
    return pictures
