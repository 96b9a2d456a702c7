"""A pool of encoded scenes: each view is encoded once and learned from in many pairs.

While the encoder is frozen its passes are most of the cost of a step. The pool keeps the features of the last scenes
(in the encoder's dtype) and draws pairs of views from them; new scenes replace the oldest, a few a step. With an
encoder that learns it keeps the images instead. What the pool holds, and which pairs it draws, is a function of the
seed, of how many scenes were made, and of the step.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from glunet.inference.frames import prepare
from glunet.network.encoder import VGG16Pyramid
from glunet.network.family import Network
from glunet.network.glunet import LNET_SIZE, Features, GLUNet, GLUNetConfig
from glunet.training.photographs import Photographs
from glunet.training.recipes import SQUARE
from glunet.training.scenes import SceneParameters, Scenes
from glunet.training.views import make_views

SCENES = 4  # made and encoded at once
MOST_STYLE = 0.8  # of another image's style that one may take on


class Images(NamedTuple):
    """Normalised images, for an encoder that learns: the H-Net's, and the L-Net's 256 x 256 (one tensor if equal)."""

    high: Tensor
    low: Tensor


@dataclass
class Batch:
    """Pairs of views, encoded (or not yet), and what is needed for their truth."""

    target: Features | Images
    source: Features | Images
    scenes: Scenes
    target_view: Tensor
    source_view: Tensor
    frame: tuple[int, int]

    def features(self, network: Network, high: bool = True) -> tuple[Any, Any]:
        """The features of target and source as this network has them, from the pool or from its own encoder.

        Args:
            high: levels 2 and 1 are read, too; without, GLU-Net's adapters leave them as they are.
        """
        return read(self.target, network, high), read(self.source, network, high)

    def mixed(self, share: float) -> Tensor:
        """Exchanges the sources of the first pairs, this share of all, at least two; B, whether a pair is as it was."""
        count = max(2, round(share * len(self.target_view)))
        order = torch.arange(len(self.target_view))
        order[:count] = order[:count].roll(1)
        self.source = type(self.source)(*(level[order] for level in self.source))
        return torch.arange(len(order), device=self.target_view.device) >= count

    def restyle(self, share: float, generator: torch.Generator) -> None:
        """Gives levels 4 and 3 of some images' features a part of another image's style.

        That is the mean and deviation of each channel, in which the look of an image lies (MixStyle, Zhou et al. 2021).

        Args:
            share: of the images.
        """
        count = len(self.target_view)
        for name in ("target", "source"):
            held = getattr(self, name)
            other = torch.randperm(count, generator=generator)
            part = torch.rand((count, 1, 1, 1), generator=generator) * MOST_STYLE
            part = part * (torch.rand((count, 1, 1, 1), generator=generator) < share)
            part = part.to(held.level4.device)
            changed = {level: _restyled(getattr(held, level), other, part) for level in ("level4", "level3")}
            setattr(self, name, held._replace(**changed))

    def first(self, count: int) -> "Batch":
        """The first pairs alone."""
        target, source = (_first(held, count) for held in (self.target, self.source))
        views = self.target_view[:count], self.source_view[:count]
        return Batch(target, source, self.scenes[:count], *views, self.frame)


def _restyled(features: Tensor, other: Tensor, part: Tensor) -> Tensor:
    values = features.float()
    mean, deviation = values.mean(dim=(2, 3), keepdim=True), values.std(dim=(2, 3), keepdim=True)
    floor = 1e-3 * values.abs().mean()  # channels that say nothing of an image have no deviation
    wanted = torch.lerp(deviation + floor, (deviation + floor)[other], part)
    mixed = (values - mean) / (deviation + floor) * wanted + torch.lerp(mean, mean[other], part)
    return torch.where(part > 0, mixed.clamp(min=0), values).to(features.dtype)  # features come out of a ReLU


def _first(held: Features | Images, count: int) -> Features | Images:
    return type(held)(*(level[:count] for level in held))


def detours(batch: Batch, pairs: Batch, others: Batch) -> tuple[Any, Any]:
    """Targets and sources of a batch, then of the two ways of triplets (`Pool.triplets`): to the similar view and on.

    All at once, since BatchNorm must see together what it shall see with one mean.
    """
    targets, sources = (batch.target, pairs.target, others.target), (batch.source, others.target, pairs.source)
    first, second = (
        type(held[0])(*(torch.cat(level) for level in zip(*held, strict=True))) for held in (targets, sources)
    )
    return first, second


def read(held: Features | Images, network: Network, high: bool = True) -> Any:
    """Of one image what `Batch.features` says of two."""
    if isinstance(held, Features):
        return network.adapt(held, high)
    dtype = next(network.encoder.parameters()).dtype
    image, small = (image.to(dtype, memory_format=torch.channels_last) for image in held)
    return network.encode(image, image if held.low is held.high else small)


class Pool:
    """Scenes of one frame size, up to `memory` bytes of features.

    Args:
        encoder: a GLU-Net whose `encode` makes the features (`encoder_alone`), whatever network learns from them
            (`adapt`); with `keep_images` it only tells the device.
        views: of each scene: V give V (V - 1) pairs.
        capacity: most scenes, whatever the memory.
        made: how many batches of scenes a resumed run had made; the last ones are made again.
        part: (rank, ranks) of processes that train together: this pool's batches of scenes are those whose number in
            the series that the seed stands for leaves `rank` when divided by `ranks`, so that no two ranks share one.
        similar: pairs of photographs (`similar.similar`), of which scenes 2 k and 2 k + 1 are made then.
    """

    def __init__(
        self,
        encoder: Network,
        photographs: Photographs,
        parameters: SceneParameters,
        frame: tuple[int, int] = SQUARE,
        *,
        memory: int = 1 << 30,
        capacity: int = 4096,
        views: int = 4,
        seed: int = 0,
        photometric: float = 1.0,
        keep_images: bool = False,
        made: int = 0,
        part: tuple[int, int] = (0, 1),
        similar: Sequence[tuple[int, int]] = (),
    ) -> None:
        self.similar = similar
        self.encoder, self.photographs, self.parameters = encoder, photographs, parameters
        self.frame, self.views, self.seed, self.photometric = frame, views, seed, photometric
        self.keep_images, self.part = keep_images, part
        places = room(memory, frame, views, keep_images)
        self.places = min(places, max(1, -(-capacity // SCENES)))
        self.held: list[Features | Images | None] = [None] * self.places
        self.scenes: list[Scenes | None] = [None] * self.places
        self.due = 0.0  # batches of new scenes that the loop owes the pool
        self.made = max(0, made - self.places)
        while self.made < made:
            self.refresh()

    def __len__(self) -> int:
        return min(self.made, self.places) * SCENES

    @property
    def full(self) -> bool:
        """Whether new scenes take the places of old ones."""
        return self.made >= self.places

    @torch.no_grad()
    def refresh(self) -> None:
        """Make and encode one batch of new scenes in the place of the oldest."""
        weight = next(self.encoder.encoder.parameters())
        rank, ranks = self.part
        batch, numbers = self.made * ranks + rank, None
        if self.similar:
            drawn = torch.Generator().manual_seed(((self.seed & 0xFFFFFF) << 32) + (3 << 30) + batch)
            chosen = torch.randint(len(self.similar), (SCENES // 2,), generator=drawn)
            numbers = torch.tensor(self.similar)[chosen].flatten()
        views = make_views(
            self.photographs, SCENES, self.views, self.frame, (self.seed, batch), self.parameters, weight.device,
            self.photometric, numbers, mirror=not self.similar,
        )  # fmt: skip
        high, low = prepare(views.images.flatten(0, 1), self.frame)
        held: Features | Images
        if self.keep_images:
            kept = high.bfloat16()
            held = Images(kept, kept if low is high else low.bfloat16())
        else:
            assert isinstance(self.encoder, GLUNet)
            held = encode(self.encoder, high, low)
        split = {id(level): level.unflatten(0, (SCENES, self.views)) for level in held}
        self.held[self.made % self.places] = type(held)(*(split[id(level)] for level in held))
        self.scenes[self.made % self.places] = views.scenes
        self.made += 1

    def batch(self, count: int, step: int) -> Batch:
        """`count` pairs of two views each, of different scenes where the pool holds enough."""
        generator = torch.Generator().manual_seed(((self.seed & 0xFFFFFF) << 32) + (1 << 31) + step)
        chosen = torch.randperm(len(self), generator=generator)[:count]
        if len(self) < count:
            chosen = torch.randint(len(self), (count,), generator=generator)
        target = torch.randint(self.views, (count,), generator=generator)
        source = (target + torch.randint(1, self.views, (count,), generator=generator)) % self.views
        return self.pairs(chosen.tolist(), target, source)

    def triplets(self, count: int, step: int) -> tuple[Batch, Batch]:
        """Pairs of views of one scene, and as its target a view of the similar scene beside it (`similar`).

        Of a triplet of warp consistency (Truong et al., ICCV 2021) I' and I are the pair, J is the other.
        """
        generator = torch.Generator().manual_seed(((self.seed & 0xFFFFFF) << 32) + (1 << 31) + step)
        chosen = torch.randperm(len(self), generator=generator)[:count]
        target, between = (torch.randint(self.views, (len(chosen),), generator=generator) for _ in range(2))
        source = (target + torch.randint(1, self.views, (len(chosen),), generator=generator)) % self.views
        return self.pairs(chosen.tolist(), target, source), self.pairs((chosen ^ 1).tolist(), between, between)

    def pairs(self, numbers: list[int], target: Tensor, source: Tensor) -> Batch:
        """The pairs of views (`target`, `source`) of the scenes with these numbers (0..len - 1)."""
        scenes, held = [], []
        for number in numbers:
            place, row = divmod(number, SCENES)
            its_scenes, its_views = self.scenes[place], self.held[place]
            assert its_scenes is not None
            assert its_views is not None
            scenes.append(its_scenes[row : row + 1])
            held.append((its_views, row))
        device = scenes[0].plane.device

        def gather(view: Tensor) -> Features | Images:
            taken = {
                id(level): torch.stack([h[i][row, v] for (h, row), v in zip(held, view.tolist(), strict=True)])
                for i, level in enumerate(held[0][0])
            }
            return type(held[0][0])(*(taken[id(level)] for level in held[0][0]))

        return Batch(
            gather(target), gather(source), Scenes.cat(scenes), target.to(device), source.to(device), self.frame
        )


def room(memory: int, frame: tuple[int, int], views: int = 4, keep_images: bool = False) -> int:
    """How many batches of scenes find room in `memory` bytes, at least one."""
    # Two bytes of each number: level 1 has 8 a pixel of the frame, level 2 has 4, the L-Net's two levels 6 a
    # pixel of 256 x 256, of which an equal frame shares 4 with level 2; images have 3.
    pixels, small = frame[0] * frame[1], LNET_SIZE**2
    numbers = 3 * (pixels + small) if keep_images else 12 * pixels + (2 if frame == SQUARE else 6) * small
    return max(1, memory // (2 * numbers * views * SCENES))


def encoder_alone(encoder: VGG16Pyramid, dtype: torch.dtype) -> GLUNet:
    """A GLU-Net that only encodes: it shares no tensor with the network that learns."""
    twin = GLUNet.__new__(GLUNet)
    nn.Module.__init__(twin)
    twin.config = GLUNetConfig()  # no adapters: who learns from the features adapts them (`adapt`)
    twin.encoder = copy.deepcopy(encoder).eval().to(dtype)
    return twin


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
