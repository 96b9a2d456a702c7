"""GOCor: its gradients, its transposes, strips against the whole; and the published network by golden numbers."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck

import glunet
import golden
from glunet.inference.frames import prepare
from glunet.loading import read_weights
from glunet.network import gocor
from glunet.network.correlation import local_correlation, local_correlation_transposed, plain_local_correlation
from glunet.network.family import build
from glunet.network.gocor import GlobalGOCor, LocalGOCor, QueryLoss


def seeded(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def stirred(module: torch.nn.Module) -> torch.nn.Module:
    """With parameters that are no special case."""
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype)
    return module


@pytest.mark.parametrize(("height", "width", "radius"), [(5, 7, 1), (9, 16, 2), (11, 35, 4)])
def test_the_transposed_correlation_is_the_gradient(height: int, width: int, radius: int):
    target = seeded(2, 6, height, width, dtype=torch.float64).requires_grad_()
    source = seeded(2, 6, height, width, seed=1, dtype=torch.float64)
    scores = plain_local_correlation(target, source, radius)
    weights = seeded(*scores.shape, seed=2, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((scores * weights).sum(), target)
    torch.testing.assert_close(local_correlation_transposed(weights, source, radius), gradient)


def test_the_query_loss_is_transposed():
    loss = QueryLoss().double()
    torch.nn.init.normal_(loss.weight1), torch.nn.init.normal_(loss.weight2)
    scores = seeded(2, 12, 20, dtype=torch.float64).requires_grad_()
    seen = loss(scores, (3, 4), (4, 5))
    weights = seeded(*seen.shape, seed=1, dtype=torch.float64)
    (gradient,) = torch.autograd.grad((seen * weights).sum(), scores)
    torch.testing.assert_close(loss.transposed(weights, (4, 5)), gradient)


def test_gradients_of_the_local_layer():
    layer = stirred(LocalGOCor(radius=1, iterations=2)).double()
    images = [seeded(1, 3, 3, 4, seed=i, dtype=torch.float64).requires_grad_() for i in (0, 1)]
    assert gradcheck(lambda *args: layer(*args[:2]), (*images, *layer.parameters()), atol=1e-6, fast_mode=True)


def test_gradients_of_the_global_layer():
    layer = stirred(GlobalGOCor(channels=4, iterations=2, step_regularisation=0.1)).double()
    images = [
        torch.nn.functional.normalize(seeded(1, 4, 3, 3, seed=i, dtype=torch.float64)).requires_grad_() for i in (0, 1)
    ]
    assert gradcheck(lambda *args: layer(*args[:2]), (*images, *layer.parameters()), atol=1e-6, fast_mode=True)


@pytest.mark.parametrize(("height", "width"), [(37, 21), (70, 33)])
def test_strips_are_the_whole(monkeypatch, height: int, width: int):
    layer = stirred(LocalGOCor())
    target, source = seeded(2, 16, height, width), seeded(2, 16, height, width, seed=1)
    with torch.inference_mode():
        whole = layer(target, source)
        monkeypatch.setattr(gocor, "STRIP", 1)
        torch.testing.assert_close(layer(target, source), whole, atol=1e-5, rtol=1e-4)


def test_filters_answer_less_to_what_repeats():
    """What the optimisation is for: of a texture that repeats, the right place stands out more than it did."""
    tile = seeded(1, 32, 6, 6)
    image = tile.repeat(1, 1, 4, 4) + 0.5 * seeded(1, 32, 24, 24, seed=1)
    with torch.inference_mode():
        plain = local_correlation(image, image, 8)
        optimised = LocalGOCor(radius=8, iterations=7)(image, image)

    def contrast(scores: torch.Tensor) -> float:
        inner = scores.view(1, 17, 17, 24, 24)[..., 8:16, 8:16]
        return float((inner[:, 8, 14] / inner[:, 8, 8]).mean())  # one tile to the right, by the right place

    assert contrast(optimised) < 0.7 * contrast(plain)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "gocor.pth"
    torch.save(golden.official_state("DM_GLUNet_GOCor"), path)
    return path


def inputs() -> list[torch.Tensor]:
    source, target = (torch.from_numpy(i.copy()).permute(2, 0, 1)[None].float() for i in golden.pair(256, 256))
    return [copy for images in zip(*(prepare(i, (256, 256)) for i in (target, source)), strict=True) for copy in images]


@pytest.mark.parametrize("iterations", [3, 7])
def test_golden(checkpoint: Path, iterations: int):
    network, _ = read_weights(checkpoint)
    assert network.config.network == "glunet-gocor"
    changed = build(dataclasses.replace(network.config, local_iterations=iterations)).eval()
    changed.load_state_dict(network.state_dict())
    with torch.inference_mode():
        flows = changed(*inputs())
    wanted = golden.figures("DM_GLUNet_GOCor", 256, 256)
    if iterations == 7:
        flow = torch.nn.functional.interpolate(flows.flow1, (256, 256), mode="bilinear", align_corners=False)
        np.testing.assert_allclose(flow[..., ::4, ::4], wanted["flow_iter3_7_s4"], rtol=0, atol=golden.TOLERANCE)
        return
    for level in (4, 3, 2, 1):
        key = next(key for key in wanted if key.startswith(f"flow{level}_s"))
        stride = int(key.rsplit("s", 1)[1])
        np.testing.assert_allclose(
            getattr(flows, f"flow{level}")[..., ::stride, ::stride], wanted[key], atol=golden.TOLERANCE
        )


def test_the_matcher_takes_the_checkpoint(checkpoint: Path):
    source, target = golden.pair(256, 256)
    match = glunet.load(checkpoint, device="cpu").match(source, target)
    wanted = golden.figures("DM_GLUNet_GOCor", 256, 256)["flow_s8"][0].transpose(1, 2, 0)
    np.testing.assert_allclose(match.flow[::8, ::8], wanted, rtol=0, atol=golden.TOLERANCE)
