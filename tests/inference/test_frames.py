"""The frames of L-Net and H-Net (SPEC 2, 5.3, 6)."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glunet.inference.frames import COARSEST, MEAN, STD, enlarged, extra_levels, finish, hnet_size, prepare, pyramid


@pytest.mark.parametrize(
    ("size", "frame"),
    [((520, 520), (520, 520)), ((375, 1242), (368, 1240)), ((240, 320), (256, 320)), ((40, 255), (256, 256))],
)
def test_hnet_size(size: tuple[int, int], frame: tuple[int, int]) -> None:
    assert hnet_size(*size) == frame


@given(st.tuples(st.integers(32, 3000), st.integers(32, 3000)), st.integers(1, 2000))
def test_small_images_are_enlarged_to_so_many_pixels_and_at_most_twice(size, least):
    """Up to multiples of 16: nothing is made smaller, and as published everything stays."""
    frame = enlarged(size, least)
    assert all(side % 16 == 0 for side in frame)
    assert all(one <= other < 2 * one + 16 for one, other in zip(size, frame, strict=True))
    if math.prod(size) >= least**2:
        assert all(other < one + 16 for one, other in zip(size, frame, strict=True))
    elif math.prod(size) >= least**2 / 4:
        assert math.prod(side - 17 for side in frame) <= least**2 <= math.prod(side + 1 for side in frame)
    assert hnet_size(*frame) == tuple(max(256, side) for side in frame)
    assert enlarged(size, 0) == size


def test_what_is_enlarged_is_smooth_and_stays_where_it_is():
    ramp = torch.arange(40.0).expand(1, 3, 60, 40) * 5
    larger, _ = prepare(ramp, (120, 80), smooth=True)
    published, _ = prepare(ramp, (120, 80))
    levels = larger[0, 0, 50, 4:-4] * STD[0] + MEAN[0]
    expected = ((torch.arange(80.0) + 0.5) / 2 - 0.5)[4:-4] * 5 / 255  # pixel centres at integers, in both
    torch.testing.assert_close(levels, expected, atol=2e-3, rtol=0)
    assert (published[0, 0, 50, 4:-4].diff() == 0).any(), "the published protocol repeats pixels"
    torch.testing.assert_close(prepare(ramp, (30, 20), smooth=True)[0], prepare(ramp, (30, 20))[0])
    higher, _ = prepare(ramp.transpose(2, 3), (80, 20), smooth=True)  # one side longer, the other shorter
    torch.testing.assert_close(higher[0, 0, 4:-4, 9] * STD[0] + MEAN[0], expected, atol=2e-3, rtol=0)


@pytest.mark.parametrize(
    ("side", "levels"), [(100, 0), (1087, 0), (1088, 1), (2175, 1), (2176, 2), (4351, 2), (4352, 3)]
)
def test_the_larger_side_decides_the_extra_levels(side: int, levels: int) -> None:
    assert extra_levels(side, 300) == extra_levels(300, side) == levels


@pytest.mark.parametrize(
    ("frame", "coarser"),
    [
        ((400, 400), []),
        ((368, 408), [(184, 200)]),
        ((3000, 4000), [(184, 248), (368, 496), (744, 1000), (1496, 2000)]),
        ((256, 4000), [(32, 248), (32, 496), (64, 1000), (128, 2000)]),
    ],
)
def test_pyramid_halves_down_to_a_small_frame(frame, coarser) -> None:
    frames = pyramid(*frame)
    assert list(frames) == [*coarser, frame]
    assert max(frames[0]) <= COARSEST


def test_prepare_normalises_and_shares_an_equal_frame() -> None:
    images = torch.rand(2, 3, 300, 260) * 255
    high, low = prepare(images, (256, 256))
    assert high is low
    high, low = prepare(images, (296, 256))
    assert high.shape == (2, 3, 296, 256)
    assert low.shape == (2, 3, 256, 256)
    grey = prepare(torch.full((1, 3, 256, 256), 51.0), (256, 256))[0]
    torch.testing.assert_close(grey[0, :, 0, 0], (0.2 - torch.tensor(MEAN)) / torch.tensor(STD))


def test_truncation_cuts_grey_levels_after_a_resize() -> None:
    images = torch.full((1, 3, 512, 512), 100.0)
    images[..., ::2] = 101.0
    whole, cut = (prepare(images, (256, 256), flag)[0] for flag in (False, True))
    torch.testing.assert_close((whole - cut)[0, :, 0, 0], 0.5 / 255 / torch.tensor(STD), atol=1e-5, rtol=0)


def test_finish_scales_from_the_frame_to_the_target() -> None:
    flow = finish(torch.ones(1, 2, 64, 80), (128, 321))
    assert flow.shape == (1, 2, 128, 321)
    torch.testing.assert_close(flow[0, :, 5, 5], torch.tensor((321 / 320, 128 / 256)))
