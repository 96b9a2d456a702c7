"""How long it takes until the first step, and how much memory: stated before it happens."""

import time
from typing import Any

import torch

from glunet.inference.frames import prepare
from glunet.network.encoder import VGG16Pyramid
from glunet.training.photographs import Photographs
from glunet.training.pool import SCENES, SQUARE, encode, encoder_alone, room
from glunet.training.recipes import Settings
from glunet.training.similar import MOST
from glunet.training.views import make_views

VIEWS = 4  # of a scene that is learned from; two of one that is validated on


def views_first(settings: Settings, state: dict[str, Any] | None = None, ranks: int = 1, photographs: int = 0) -> float:
    """How many views of 256 x 256 are made and encoded before the first step of a run, or of one that goes on.

    Args:
        state: what it goes on from (`state.read_state`); larger views count as the more.
        photographs: among which similar ones are looked for, if the first stage learns from those.
    """
    views = 2.0 * settings.validation_pairs / ranks
    if state is None:
        stage, made = settings.stages[0], {}
    else:
        bound = settings.steps or 60 * (settings.minutes or 0)
        progress = (state["step"] if settings.steps else state["elapsed"]) / bound
        stage = next((s for s in settings.stages if progress < s.until), settings.stages[-1])
        made = state["made"]
    live = settings.encoder_lr > 0
    needed = -(-2 * stage.batch // SCENES)
    for frame in stage.frames:
        places = room(settings.pool_memory, frame, VIEWS, live)
        again = min(places, made.get(frame, 0))
        larger = frame[0] * frame[1] / (SQUARE[0] * SQUARE[1])
        first = frame == stage.frames[0]  # other frames' scenes are made when their turn comes
        views += SCENES * VIEWS * larger * max(again, min(places, needed) if first else 0)
    if stage.triplets:
        again = min(room(settings.pool_memory, SQUARE, 2, live), made.get("similar", -(-2 * stage.triplets // SCENES)))
        views += 2 * SCENES * again + (min(photographs, MOST) if "similar" not in made else 0)
    return views


def seconds_a_view(photographs: Photographs, settings: Settings, device: torch.device) -> float:
    """Measured: a few photographs decoded, their views rendered, and encoded unless the encoder learns too."""
    with torch.random.fork_rng():
        encoder = encoder_alone(VGG16Pyramid().to(device), torch.bfloat16 if settings.bf16 else torch.float32)
    seconds = 0.0
    for number in range(2):  # the first one warms up
        began = time.perf_counter()
        images = make_views(photographs, SCENES, VIEWS, SQUARE, (settings.seed, number), settings.scenes, device).images
        if settings.encoder_lr == 0:
            high, low = prepare(images.flatten(0, 1), SQUARE)
            with torch.no_grad():
                float(encode(encoder, high, low).level4[0, 0, 0, 0])  # which waits for the device
        seconds = time.perf_counter() - began
    return seconds / (SCENES * VIEWS)


def memory(settings: Settings, photographs: Photographs) -> int:
    """Bytes at most, about: photographs and features that are kept, and what a step takes beside them."""
    pools = max(len(stage.frames) + (stage.triplets > 0) for stage in settings.stages) * settings.pool_memory
    return min(photographs.needed, photographs.memory) + pools + (2 << 30)
