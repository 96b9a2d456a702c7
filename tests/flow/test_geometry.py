"""Geometry of flow fields: the laws."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from glunet.flow import geometry


def test_zero_flow_is_identity() -> None:
    image = torch.rand(2, 3, 11, 17)
    torch.testing.assert_close(geometry.warp(image, torch.zeros(2, 2, 11, 17)), image, atol=1e-5, rtol=0)


def test_a_shift_moves_the_picture_the_right_way() -> None:
    image = torch.arange(40.0).view(1, 1, 5, 8)
    flow = torch.zeros(1, 2, 5, 8)
    flow[:, 0], flow[:, 1] = 2, -1
    warped = geometry.warp(image, flow)
    torch.testing.assert_close(warped[0, 0, 1:, :6], image[0, 0, :4, 2:], atol=1e-4, rtol=0)
    assert (warped[0, 0, 0] == 0).all()
    inside = geometry.in_view(flow, (5, 8))
    assert inside[0, 1:, :6].all()
    assert not inside[0, 0].any()
    assert not inside[0, :, 6:].any()


def test_half_a_pixel_is_the_mean_of_two() -> None:
    image = torch.tensor([[[[0.0, 1.0, 4.0]]]])
    flow = torch.zeros(1, 2, 1, 2)
    flow[:, 0] = 0.5
    torch.testing.assert_close(geometry.warp(image, flow), torch.tensor([[[[0.5, 2.5]]]]))


def test_bfloat16_features_are_sampled_at_exact_places() -> None:
    image = torch.linspace(0, 1, 257).view(1, 1, 1, 257).expand(1, 1, 3, 257)
    flow = torch.full((1, 2, 3, 200), 0.25)
    flow[:, 1] = 0
    exact = geometry.warp(image, flow)
    torch.testing.assert_close(geometry.warp(image.bfloat16(), flow).float(), exact, atol=4e-3, rtol=0)


def test_map_and_flow_are_inverse() -> None:
    flow = torch.randn(2, 2, 5, 7)
    torch.testing.assert_close(geometry.map_to_flow(geometry.flow_to_map(flow)), flow, atol=1e-5, rtol=0)
    assert geometry.flow_to_map(torch.zeros(1, 2, 5, 7))[0, :, 3, 4].tolist() == [4, 3]


@given(st.integers(33, 90), st.integers(33, 90), st.integers(33, 90), st.integers(33, 90))
def test_frame_flow_to_source_keeps_the_images_corners(ht: int, wt: int, hs: int, ws: int) -> None:
    """No motion in the frame means that the outer edges of the two images meet."""
    mapping = geometry.flow_to_map(geometry.frame_flow_to_source(torch.zeros(1, 2, ht, wt), (hs, ws)))[0]
    assert mapping[0, 0, 0].item() + 0.5 == pytest.approx(0.5 * ws / wt, abs=1e-3)
    assert ws - (mapping[0, -1, -1].item() + 0.5) == pytest.approx(0.5 * ws / wt, abs=1e-3)
    assert mapping[1, 0, 0].item() + 0.5 == pytest.approx(0.5 * hs / ht, abs=1e-3)


def test_frame_flow_of_equal_sizes_is_untouched() -> None:
    flow = torch.randn(1, 2, 9, 9)
    assert geometry.frame_flow_to_source(flow, (9, 9)) is flow


def test_resizes_do_not_change_values_of_a_constant_flow() -> None:
    flow = torch.full((1, 2, 8, 12), 3.5)
    for resize in (geometry.resize_bilinear, geometry.resize_area):
        torch.testing.assert_close(resize(flow, (5, 31)), torch.full((1, 2, 5, 31), 3.5))
    assert geometry.scale_flow(flow, 2, 0.5)[0, :, 0, 0].tolist() == [7, 1.75]
