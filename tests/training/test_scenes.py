"""Synthetic scenes: the truth is true."""

import dataclasses

import numpy as np
import pytest
import torch
from torch.nn.functional import max_pool2d

from glunet.flow.geometry import warp
from glunet.training.scenes import SceneParameters, _outlines, draw, frame_points, from_layers, to_layers, truth
from glunet.training.views import make_views


def photographs(count: int = 6, smooth: bool = True) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand((count, 3, 24, 30) if smooth else (count, 3, 240, 300), generator=generator)
    large = torch.nn.functional.interpolate(noise, size=(240, 300), mode="bicubic").clamp(0, 1)
    return list((large * 255).round().to(torch.uint8))


def view(number: int, count: int) -> torch.Tensor:
    return torch.full((count,), number)


@pytest.mark.parametrize("steep", [0.0, 1.0])
@pytest.mark.parametrize("aspect", [1.0, 1.6])
def test_maps_have_an_inverse(aspect: float, steep: float) -> None:
    scenes = draw(12, 3, torch.Generator().manual_seed(1), SceneParameters(steep=steep), aspect)
    points = frame_points(40, round(40 * aspect)).expand(12, -1, -1)
    back = from_layers(scenes, view(1, 12), to_layers(scenes, view(1, 12), points))
    assert ((back - points[:, None]).norm(dim=-1) * 128).max() < 0.02


def test_steep_scenes_are_seen_more_from_the_side() -> None:
    """Perspective, the last row of a view's homography, is nearly twice as strong."""
    usual, steep = (
        draw(80, 2, torch.Generator().manual_seed(5), SceneParameters(steep=share)).plane for share in (0, 1)
    )
    strength = [(plane[..., 2, :2] / plane[..., 2, 2:]).norm(dim=-1).mean() for plane in (usual, steep)]
    assert 1.4 < strength[1] / strength[0] < 2.4


@pytest.mark.parametrize("frame", [(128, 128), (96, 160)])
def test_target_equals_source_at_the_flow_where_visible(frame: tuple[int, int]) -> None:
    """Without photometric change, to one grey level in each scene's median, and to few nearly everywhere off edges."""
    count = 16
    views = make_views(photographs(), count, 2, frame, (3, 0), SceneParameters(), photometric=0)
    true = truth(views.scenes, view(0, count), view(1, count), frame, frame)
    difference = (warp(views.images[:, 1], true.flow) - views.images[:, 0]).abs().mean(1)
    still = (views.images[:, 1] - views.images[:, 0]).abs().mean(1)
    # At an edge of what moves, a pixel mixes two things: beside it there is a jump in the flow, or something covered.
    largest, least = (sign * max_pool2d(sign * true.flow, 3, 1, 1) for sign in (1, -1))
    edge = ((largest - least).amax(1) > 8) | (max_pool2d((~true.visible).float(), 5, 1, 2) > 0)
    for number in range(count):
        visible = true.visible[number]
        assert visible.float().mean() > 0.05
        assert difference[number][visible].median() <= 1.0
        visible = visible & ~edge[number]
        assert difference[number][visible].quantile(0.9) <= 4.0
    assert still[true.visible].mean() > 5 * difference[true.visible].mean()


def test_occlusions_are_found() -> None:
    """Where the truth says covered, the source shows something else; and objects move against the background."""
    count, frame = 24, (96, 96)
    views = make_views(photographs(smooth=False), count, 2, frame, (4, 0), SceneParameters(), photometric=0)
    true = truth(views.scenes, view(0, count), view(1, count), frame, frame)
    covered = true.in_view & ~true.visible
    assert 0.01 < covered.sum() / true.in_view.sum() < 0.4
    difference = (warp(views.images[:, 1], true.flow) - views.images[:, 0]).abs().mean(1)
    assert difference[covered].median() > 2 * difference[true.visible].median() + 5


def test_a_view_into_itself_does_not_move() -> None:
    scenes = draw(4, 2, torch.Generator().manual_seed(5), SceneParameters())
    true = truth(scenes, view(1, 4), view(1, 4), (32, 32), (256, 256))
    assert true.flow.abs().max() < 0.05
    assert true.visible.float().mean() > 0.97


def test_flow_does_not_depend_on_the_grid_it_is_asked_at() -> None:
    scenes = draw(4, 2, torch.Generator().manual_seed(6), dataclasses.replace(SceneParameters(), objects=0))
    fine = truth(scenes, view(0, 4), view(1, 4), (64, 64), (256, 256)).flow
    coarse = truth(scenes, view(0, 4), view(1, 4), (32, 32), (256, 256)).flow
    averaged = torch.nn.functional.avg_pool2d(fine, 2)
    assert (averaged - coarse).norm(dim=1).median() < 0.1


def test_displacements_fill_their_bins() -> None:
    """The largest visible displacement of a pair: under 8, 8 to 32, 32 to 96 and over 96 px of 256."""
    largest, covered, seen = [], 0, 0
    for seed in range(8):
        scenes = draw(32, 2, torch.Generator().manual_seed(seed), SceneParameters())
        true = truth(scenes, view(0, 32), view(1, 32), (32, 32), (256, 256))
        size = true.flow.norm(dim=1) * true.visible
        largest += size.flatten(1).amax(1).tolist()
        covered += int((true.in_view & ~true.visible).sum())
        seen += int(true.in_view.sum())
    shares = np.histogram(largest, (0, 8, 32, 96, 1e4))[0] / len(largest)
    assert (shares > 0.04).all(), shares
    assert covered / seen > 0.02


def test_scenes_are_functions_of_their_seed() -> None:
    one, two, other = (
        make_views(photographs(), 3, 2, (64, 64), seed, SceneParameters()) for seed in ((1, 2), (1, 2), (1, 3))
    )
    assert torch.equal(one.images, two.images)
    assert not torch.equal(one.images, other.images)
    assert one.images.min() >= 0
    assert one.images.max() <= 255


def test_some_outlines_are_thin_and_some_have_slits() -> None:
    """A coarse flow runs over what is thin: nothing is left of sticks when 3 of 48 cells are taken from each side."""
    inside = (_outlines(200, torch.Generator().manual_seed(2)) > 0).float()[:, None]
    worn = -max_pool2d(-inside, 13, 1, 6)
    area, left = inside.sum((1, 2, 3)), worn.sum((1, 2, 3))
    assert (area > 50).all()
    assert 0.05 < (left < 0.02 * area).float().mean() < 0.4
    assert (left > 0.2 * area).float().mean() > 0.3


def test_objects_move_before_a_plane_that_stands_still() -> None:
    """In half of the calmest scenes; in the other half they hardly move either."""
    calm = dataclasses.replace(SceneParameters(), shares=(1, 0, 0, 0), still=0, any_angle=0)
    scenes = draw(64, 2, torch.Generator().manual_seed(3), calm)
    true = truth(scenes, view(0, 64), view(1, 64), (64, 64), (256, 256))
    size = true.flow.norm(dim=1).flatten(1)
    assert size.median(dim=1).values.median() < 5
    largest = size.amax(dim=1)
    assert 0.2 < (largest > 20).float().mean() < 0.8
