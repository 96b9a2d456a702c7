"""The encoder in strips gives the features of the whole image at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from glunet.network import encoder
from glunet.network.backends import strips
from glunet.network.backends.strips import StripPyramid, in_strips


@settings(max_examples=30)
@given(
    batch=st.integers(1, 2),
    height=st.integers(1, 70),
    width=st.integers(1, 20),
    pooled=st.booleans(),
    layers=st.integers(1, 3),
    rows=st.integers(1, 5),
)
def test_strips_are_the_whole(batch: int, height: int, width: int, layers: int, pooled: bool, rows: int) -> None:
    generator = torch.Generator().manual_seed(height)
    convolutions = [nn.Conv2d(3 if i == 0 else 4, 4, 3, padding=1, dtype=torch.float64) for i in range(layers)]
    x = torch.randn(batch, 3, height, width, generator=generator, dtype=torch.float64)
    with torch.inference_mode():
        expected = x
        for convolution in convolutions:
            expected = convolution(expected).relu()
        if pooled:
            if min(height, width) < 2:
                return  # nothing is left to pool
            expected = F.max_pool2d(expected, 2)
        least, strips.LEAST = strips.LEAST, 2 * rows
        try:
            got = in_strips(x, convolutions, torch.float64, pooled, strip=1)
        finally:
            strips.LEAST = least
    torch.testing.assert_close(got, expected)


@pytest.mark.parametrize("size", [(256, 256), (67, 130), (32, 33)])
@pytest.mark.parametrize("levels", [(2, 3), (3, 4), (0, 2), (1,)])
@torch.inference_mode()
def test_pyramids_agree(size: tuple[int, int], levels: tuple[int, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoder, "LEVELS", ((8,), (8,), (12, 12), (16, 16, 16), (24, 24, 24)))
    monkeypatch.setattr(strips, "LEAST", 2)
    torch.manual_seed(0)
    plain = encoder.VGG16Pyramid().eval()
    image = torch.randn(2, 3, *size)
    before = {name: value.stride() for name, value in plain.state_dict().items()}
    expected = plain(image, levels)
    for dtype, tolerance in ((torch.float32, 1e-5), (torch.bfloat16, 2e-2)):
        got = StripPyramid(plain, dtype)(image, levels)
        assert list(got) == list(expected)
        for level, features in got.items():
            assert features.dtype == dtype
            apart = (features.float() - expected[level]).abs().max()
            assert apart <= tolerance * expected[level].abs().max(), level
    assert {name: value.stride() for name, value in plain.state_dict().items()} == before
