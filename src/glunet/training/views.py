"""From photographs to views of synthetic scenes: which photographs, cropped how, rendered and photographed anew."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from glunet.training.photographs import Photographs
from glunet.training.photometric import augment
from glunet.training.scenes import SceneParameters, Scenes, draw, render


@dataclass
class Views:
    """Scenes and what their views look like: images is B x V x 3 x height x width, RGB in 0..255."""

    scenes: Scenes
    images: Tensor


def make_views(
    photographs: Photographs,
    count: int,
    views: int,
    frame: tuple[int, int],
    seed: tuple[int, int],
    parameters: SceneParameters,
    device: torch.device | str = "cpu",
    photometric: float = 1.0,
    numbers: Tensor | None = None,
    mirror: bool = True,
) -> Views:
    """Views of `count` new scenes: a function of `seed` alone (and of the photographs), the same on every device.

    Args:
        seed: (seed of the run, number of this batch).
        photometric: strength of the photometric differences, 0 for none.
        numbers: photographs of the scenes' planes; drawn when None.
        mirror: half of the photographs, at random.
    """
    generator = torch.Generator().manual_seed(((seed[0] & 0xFFFFFF) << 32) + seed[1])
    height, width = frame
    scenes = draw(count, views, generator, parameters, aspect=width / height)
    if numbers is None:
        numbers = torch.randint(len(photographs), (count,), generator=generator)
    others = torch.randint(len(photographs), (count, parameters.objects), generator=generator)
    # Textures a third finer than the frame: a frame sees 0.55 to 0.9 of the canvas.
    canvas = (round(height * 1.35), round(width * 1.35))
    present = (scenes.outlines.flatten(2).amax(-1) > 0)[..., None]
    photos = torch.stack([crop(photographs[int(n)], canvas, generator, device, mirror=mirror) for n in numbers])
    piece = (height // 2, height // 2)
    blank = torch.zeros(3, *piece, device=device)
    cutouts = (
        torch.stack(
            [
                torch.stack(
                    [
                        crop(photographs[int(o)], piece, generator, device, least=0.3) if there else blank
                        for o, there in zip(row, here, strict=True)
                    ]
                )
                for row, here in zip(others, present, strict=True)
            ]
        )
        if parameters.objects
        else torch.zeros(count, 0, 3, *piece, device=device)
    )
    scenes = scenes.to(device)
    images = torch.stack(
        [render(scenes, torch.full((count,), view, device=device), photos, cutouts, frame) for view in range(views)],
        dim=1,
    )
    if photometric:
        augmented = augment(images.flatten(0, 1), generator, photometric).view_as(images)
        # Views that do not move at all are one picture: the answer for it should be that nothing moved.
        still = (scenes.plane == scenes.plane[:, :1]).flatten(1).all(1).view(-1, 1, 1, 1, 1)
        images = torch.where(still, augmented[:, :1], augmented)
    return Views(scenes, images * 255)


def crop(
    photo: Tensor,
    size: tuple[int, int],
    generator: torch.Generator,
    device: torch.device | str,
    least: float = 0.7,
    mirror: bool = True,
) -> Tensor:
    """A random window of a photograph (3 x H x W uint8), mirrored at random or not, resized: 3 x size, in 0..1.

    The window has about the aspect asked for and at least the share `least` of the largest such window's side.
    """
    height, width = photo.shape[-2:]
    random = torch.rand(4, generator=generator).tolist()
    aspect = size[1] / size[0]
    side = min(height, width / aspect) * (least + (1 - least) * random[0])
    window = (max(16, round(side)), max(16, round(side * aspect)))
    top, left = (round(r * max(0, n - w)) for r, n, w in zip(random[1:3], (height, width), window, strict=True))
    piece = photo[:, top : top + window[0], left : left + window[1]].to(device).float() / 255
    if mirror and random[3] < 0.5:
        piece = piece.flip(-1)
    return F.interpolate(piece[None], size=size, mode="bilinear", antialias=True)[0]
