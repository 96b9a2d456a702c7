"""Exact and fast: which is computed how, how far they are apart, and that the network stays a network."""

import time
from pathlib import Path

import numpy as np
import pytest
import torch

import glunet
from glunet.errors import GlunetError
from glunet.inference import frames, speed
from glunet.loading import network_state, save_weights
from glunet.matcher import Matcher
from glunet.network.backends.strips import StripPyramid
from glunet.network.glunet import GLUNet, GLUNetConfig
from untrained import matcher, network

CONFIGS = [GLUNetConfig(), GLUNetConfig("residual", "residual", "bilinear")]


def picture(height: int, width: int, seed: int = 0) -> torch.Tensor:
    coarse = torch.rand(1, 3, height // 8, width // 8, generator=torch.Generator().manual_seed(seed))
    return 255 * torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear")


def with_heads(config: GLUNetConfig) -> GLUNet:
    torch.manual_seed(0)
    made = GLUNet(config).eval()
    for name, module in made.named_modules():
        if name.endswith(("predict_flow", "conv7")) and isinstance(module, torch.nn.Conv2d):
            torch.nn.init.normal_(module.weight, std=0.003)
    return made


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: config.decoder)
@pytest.mark.parametrize(("size", "extra"), [((264, 328), 0), ((256, 256), 1)])
@torch.inference_mode()
def test_exact_differs_by_rounding(config: GLUNetConfig, size: tuple[int, int], extra: int) -> None:
    made = with_heads(config)
    twin = speed.for_inference(made, "exact")
    assert isinstance(twin.encoder, StripPyramid)
    inputs = [frames.prepare(picture(*size, seed), size) for seed in (0, 1)]
    arguments = (inputs[0][0], inputs[1][0], inputs[0][1], inputs[1][1], extra)
    for expected, got in zip(made(*arguments), twin(*arguments), strict=True):
        torch.testing.assert_close(got, expected, atol=2e-3, rtol=1e-4)


def test_fast_is_bfloat16_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "bfloat16_pays", lambda device: False)
    assert matcher(speed="fast").computation.inference.encoder.dtype == torch.float32
    monkeypatch.setattr(speed, "bfloat16_pays", lambda device: True)
    quick = matcher(speed="fast")
    assert quick.computation.inference.encoder.dtype == torch.bfloat16
    assert quick.provenance.settings["speed"] == "fast"
    assert "speed" not in matcher().provenance.settings
    images = [picture(48, 64, seed)[0] / 255 for seed in (0, 1)]
    one, other = matcher().match(*images), quick.match(*images)
    assert other.flow.dtype == np.float32
    apart = np.abs(one.flow - other.flow)
    assert 0 < apart.mean() < 0.1 * np.abs(one.flow).mean()
    with pytest.raises(GlunetError, match="another matcher"):
        quick.match(matcher().encode(images[0]), images[1])


def test_bfloat16_is_measured_once() -> None:
    cpu = torch.device("cpu")
    first = speed.bfloat16_pays(cpu)
    began = time.perf_counter()
    assert speed.bfloat16_pays(cpu) is first
    assert time.perf_counter() - began < 1e-3
    assert not speed.bfloat16_pays(torch.device("meta")), "which computes nothing"


def test_another_speed_is_refused() -> None:
    with pytest.raises(GlunetError, match=r"speed='slow' came.*'auto', 'fast', 'exact'"):
        matcher(speed="slow")


def test_a_matcher_at_another_speed_is_of_the_same_network() -> None:
    quick = matcher(uint8_truncation=True).with_(speed="fast")
    assert quick.network is network()
    assert quick.settings.speed == ("fast" if speed.bfloat16_pays(torch.device("cpu")) else "exact")
    assert quick.provenance.settings["uint8_truncation"] is True


@pytest.mark.usefixtures("narrow")
def test_the_network_may_change() -> None:
    """Also in place, as an optimiser does it: the next match is with the new weights."""
    made = with_heads(CONFIGS[1])
    images = [picture(48, 64, seed)[0] / 255 for seed in (0, 1)]
    changing = Matcher(made, "changing")
    before = changing.match(*images).flow
    assert changing.computation.inference is changing.computation.inference
    with torch.no_grad():
        made.refinement1.conv7.bias += 100
    np.testing.assert_allclose(changing.match(*images).flow[24, 32], before[24, 32] + 100 * 64 / 256, atol=20)
    assert np.abs(changing.match(*images).flow - before).mean() > 10
    assert [key for key in made.state_dict() if "running" in key], "the network's names are what they were"


def test_glunet_load_takes_a_speed() -> None:
    here = "fast" if speed.bfloat16_pays(torch.device("cpu")) else "exact"
    for asked in ("fast", "auto", None):
        made = glunet.load(device="cpu", speed=asked)
        assert made.settings.speed == here
        assert made.provenance.settings.get("speed", "exact") == here
    assert glunet.load(device="cpu", speed="exact").settings.speed == "exact"


def test_where_bfloat16_does_not_pay_auto_is_exact(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "bfloat16_pays", lambda device: False)
    made = glunet.load(device="cpu", speed="auto")
    assert made.settings.speed == "exact"
    assert "speed" not in made.provenance.settings


@pytest.mark.usefixtures("narrow")
@torch.no_grad()
def test_the_network_compiles_without_a_break() -> None:
    made = with_heads(CONFIGS[1])
    arguments = [torch.randn(1, 3, 256, 256) for _ in range(4)]
    compiled = torch.compile(made, backend="eager", fullgraph=True)
    for got, expected in zip(compiled(*arguments, 1), made(*arguments, 1), strict=True):
        torch.testing.assert_close(got, expected, atol=5e-3, rtol=1e-3)


@pytest.mark.usefixtures("narrow")
@torch.no_grad()
def test_the_network_is_exported() -> None:
    made = with_heads(CONFIGS[1])
    arguments = tuple(torch.randn(1, 3, 256, 256) for _ in range(4))
    program = torch.export.export(made, arguments)
    for got, expected in zip(program.module()(*arguments), made(*arguments), strict=True):
        torch.testing.assert_close(got, expected, atol=5e-3, rtol=1e-3)


@pytest.mark.parametrize("how", ["exact", "fast"])
def test_a_loaded_network_is_not_held_beside_its_twin(how: speed.Speed) -> None:
    """It is read again for who asks for it, and stays then."""
    images = [picture(48, 64, seed)[0] / 255 for seed in (0, 1)]
    loaded = glunet.load(device="cpu", speed=how, search="none", polish=False)
    before = loaded.match(*images).flow
    assert loaded.computation._network is None
    assert loaded.device.type == "cpu"
    encoded = loaded.encode(images[0])
    trainable = loaded.network
    assert loaded.network is trainable
    np.testing.assert_array_equal(loaded.match(encoded, images[1]).flow, before)
    assert loaded.network is trainable, "nor is it let go again"
    with torch.no_grad():
        trainable.refinement1.conv7.bias += 100
    assert np.abs(loaded.match(encoded, images[1]).flow - before).mean() > 10


def test_a_network_is_read_again_from_the_same_file_only(tmp_path: Path) -> None:
    path = tmp_path / "own.safetensors"
    made = network(wide=True)
    save_weights(path, network_state(made, encoder=True), made.config, {})
    loaded = glunet.load(path, device="cpu")
    loaded.flow(*[picture(48, 64, seed) / 255 for seed in (0, 1)])
    save_weights(path, network_state(made, encoder=True), made.config, {"name": "another"})
    with pytest.raises(GlunetError, match="has changed since"):
        loaded.network  # noqa: B018
