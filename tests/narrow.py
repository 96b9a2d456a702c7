"""Training in seconds: narrow networks with random weights, and smooth noise in the place of photographs."""

from collections.abc import Callable
from typing import Any

import torch

from glunet import loading
from glunet.network import decoder, encoder, pdcnet, refinement, threelevel
from glunet.training.photographs import Photographs


def narrow_network(replace: Callable[[Any, str, Any], None] = setattr) -> dict[str, torch.Tensor]:
    """Encoder, decoders and refinements of few channels, which nothing but time depends on.

    Args:
        replace: sets an attribute of a module.

    Returns:
        The encoder's state, as it stands in a network's.
    """
    for module in (encoder, threelevel):
        replace(module, "LEVELS", ((8,), (8,), (12, 12), (16, 16, 16), (24, 24, 24)))
    for module in (decoder, pdcnet):
        replace(module, "WIDTHS", (16, 16, 12, 12, 8))
    replace(refinement, "WIDTHS", (16, 16, 16, 12, 12, 8))
    torch.manual_seed(0)
    state = {f"encoder.{key}": value for key, value in encoder.VGG16Pyramid().state_dict().items()}
    for key, value in state.items():
        if value.ndim == 4:  # zero-sum filters: otherwise random features are alike everywhere
            state[key] = torch.nn.init.kaiming_normal_(value) - value.mean((1, 2, 3), keepdim=True)
    replace(loading, "_encoder_file", lambda: state)
    return state


class Noise(Photographs):
    """Smooth random pictures in the place of photographs."""

    def __init__(self, count: int = 6) -> None:
        super().__init__([])
        generator = torch.Generator().manual_seed(count)
        noise = torch.rand((count, 3, 30, 40), generator=generator)
        self.pictures = (torch.nn.functional.interpolate(noise, size=(240, 320)) * 255).to(torch.uint8)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, number: int) -> torch.Tensor:
        return self.pictures[number]
