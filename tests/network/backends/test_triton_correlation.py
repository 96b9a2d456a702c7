"""The kernel for CUDA against its plain twin; without a device by TRITON_INTERPRET=1 in the environment."""

import os

import pytest
import torch
from torch.nn import functional as F

from glunet.flow.geometry import warp
from glunet.network.correlation import local_scores, plain_local_correlation

pytest.importorskip("triton", reason="Triton comes with PyTorch's CUDA builds")
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
if not (torch.cuda.is_available() or INTERPRETED):
    pytest.skip("neither CUDA nor TRITON_INTERPRET=1 is here", allow_module_level=True)

from glunet.network.backends.triton_correlation import fused_local_scores  # noqa: E402

DEVICE = "cpu" if INTERPRETED else "cuda"


@pytest.mark.parametrize(
    ("batch", "channels", "height", "width", "radius"), [(2, 40, 9, 13, 4), (1, 16, 5, 17, 2), (1, 33, 4, 8, 4)]
)
def test_forward_and_backward(batch: int, channels: int, height: int, width: int, radius: int) -> None:
    """Also where the flow leads far outside, or is not finite enough for whole numbers."""
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(2, batch, channels, height, width, generator=generator).to(DEVICE)
    target, source = (each.clone().requires_grad_() for each in features)
    flow = 3 * torch.randn(batch, 2, height, width, generator=generator).to(DEVICE)
    flow[0, :, 0, 0] = 1e12
    expected = F.leaky_relu(plain_local_correlation(target, warp(source, flow * 0.5), radius), 0.1)
    got = fused_local_scores(target, source, flow, 0.5, radius, 0.1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    gradient = torch.randn(expected.shape, generator=generator).to(DEVICE)
    wanted = torch.autograd.grad(expected, (target, source), gradient)
    for mine, theirs in zip(torch.autograd.grad(got, (target, source), gradient), wanted, strict=True):
        torch.testing.assert_close(mine, theirs, atol=1e-5, rtol=1e-4)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_the_network_takes_it(dtype: torch.dtype) -> None:
    target, source = torch.randn(2, 2, 128, 30, 50, device="cuda").to(dtype)
    flow = torch.randn(2, 2, 30, 50, device="cuda")
    expected = F.leaky_relu(plain_local_correlation(target.float(), warp(source.float(), flow), 4), 0.1)
    got = local_scores(target, source, flow, 1.0, 4)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, expected, atol=2e-3, rtol=1e-2)
