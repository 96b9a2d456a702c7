"""A pool of encoded scenes: each view is encoded once and learned from in many pairs.

While the encoder is frozen its passes are most of the cost of a step. The pool keeps the features of the last scenes (in
bfloat16) and draws pairs of views from them; new scenes replace the oldest, a few a step. What the pool holds, and which
pairs it draws, is a function of the seed and the step alone.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from glunet.frames import prepare
from glunet.network.glunet import LNET_SIZE, Features, GLUNet
from glunet.training.photographs import Photographs
from glunet.training.scenes import Recipe, Scenes
from glunet.training.views import make_views


@dataclass
class Batch:
    """Pairs of views: their features, and what is needed for their truth."""

    target: Features
    source: Features
    scenes: Scenes
    target_view: Tensor
    source_view: Tensor
    frame: tuple[int, int]


class Pool:
    """The features of up to `capacity` scenes with `views` views each, of one frame size.

    Args:
        encoder_of: a network whose `encode` is used; its encoder may be in bfloat16.
        made: how many batches of scenes a resumed run had made; the last ones are made again.
    """

    def __init__(
        self,
        encoder_of: GLUNet,
        photographs: Photographs,
        recipe: Recipe,
        frame: tuple[int, int] = (LNET_SIZE, LNET_SIZE),
        capacity: int = 384,
        views: int = 4,
        scenes_a_batch: int = 4,
        seed: int = 0,
        made: int = 0,
    ) -> None:
        self.network, self.photographs, self.recipe = encoder_of, photographs, recipe
        self.frame, self.views, self.seed = frame, views, seed
        self.scenes_a_batch = scenes_a_batch
        self.places = max(1, capacity // scenes_a_batch)
        self.features: list[Features | None] = [None] * self.places
        self.scenes: list[Scenes | None] = [None] * self.places
        self.due = 0.0  # batches of new scenes that the loop owes the pool
        self.made = max(0, made - self.places)
        while self.made < made:
            self.refresh()

    def __len__(self) -> int:
        return min(self.made, self.places) * self.scenes_a_batch

    @torch.no_grad()
    def refresh(self) -> None:
        """Make and encode one batch of new scenes in the place of the oldest."""
        weight = next(self.network.encoder.parameters())
        views = make_views(
            self.photographs,
            self.scenes_a_batch,
            self.views,
            self.frame,
            (self.seed, self.made),
            self.recipe,
            weight.device,
        )
        high, low = prepare(views.images.flatten(0, 1), self.frame)
        features = encode(self.network, high, low)
        shape = (self.scenes_a_batch, self.views)
        level3 = features.level3.unflatten(0, shape)
        self.features[self.made % self.places] = Features(
            features.level4.unflatten(0, shape),
            level3,
            level3 if features.level2 is features.level3 else features.level2.unflatten(0, shape),
            features.level1.unflatten(0, shape),
        )
        self.scenes[self.made % self.places] = views.scenes
        self.made += 1

    def batch(self, count: int, step: int) -> Batch:
        """`count` pairs of two views each, of different scenes where the pool holds enough."""
        generator = torch.Generator().manual_seed(((self.seed & 0xFFFFFF) << 32) + (1 << 31) + step)
        held = len(self)
        chosen = torch.randperm(held, generator=generator)[:count]
        if held < count:
            chosen = torch.randint(held, (count,), generator=generator)
        target = torch.randint(self.views, (count,), generator=generator)
        source = (target + torch.randint(1, self.views, (count,), generator=generator)) % self.views
        scenes, features = [], []
        for number in chosen.tolist():
            place, row = divmod(number, self.scenes_a_batch)
            held_scenes, held_features = self.scenes[place], self.features[place]
            assert held_scenes is not None and held_features is not None
            scenes.append(held_scenes[row : row + 1])
            features.append((held_features, row))
        device = scenes[0].plane.device

        def gather(view: Tensor) -> Features:
            def level(i: int) -> Tensor:
                return torch.stack([f[i][row, v] for (f, row), v in zip(features, view.tolist(), strict=True)])

            level3 = level(1)
            return Features(level(0), level3, level3 if features[0][0][2] is features[0][0][1] else level(2), level(3))

        return Batch(
            gather(target), gather(source), Scenes.cat(scenes), target.to(device), source.to(device), self.frame
        )


def encode(network: GLUNet, high: Tensor, low: Tensor, at_once: int = 16) -> Features:
    """Features of normalised images in the encoder's own dtype, a few images at once so that memory stays bounded."""
    weight = next(network.encoder.parameters())

    def laid_out(images: Tensor) -> Tensor:
        return images.to(weight.dtype, memory_format=torch.channels_last)

    parts = []
    for start in range(0, len(high), at_once):
        piece = laid_out(high[start : start + at_once])
        parts.append(network.encode(piece, piece if low is high else laid_out(low[start : start + at_once])))
    if low is high:
        level3 = torch.cat([p.level3 for p in parts])
        return Features(torch.cat([p.level4 for p in parts]), level3, level3, torch.cat([p.level1 for p in parts]))
    return Features(*(torch.cat(level) for level in zip(*parts, strict=True)))
