"""Adapters: what they start as, what they read, and that every way to features passes through them."""

import dataclasses
from typing import Literal

import pytest
import torch

import glunet
from glunet.inference import tiles
from glunet.network.adapter import DESCRIBED, GlobalAdapter, LocalAdapter
from glunet.network.family import adapted, build
from glunet.network.glunet import Features, GLUNet, GLUNetConfig
from glunet.training.loop import step_loss
from glunet.training.pool import Pool, encode, encoder_alone
from glunet.training.recipes import SMALL, Stage
from glunet.training.scenes import SceneParameters
from narrow import Noise


@pytest.fixture(scope="module")
def network() -> GLUNet:
    torch.manual_seed(3)
    made = build(dataclasses.replace(SMALL, adapter="all")).eval()
    assert isinstance(made, GLUNet)
    for name, parameter in made.named_parameters():
        if name.endswith("block.second.weight"):  # as if they had learned something
            torch.nn.init.normal_(parameter, std=0.01)
    return made


def test_a_local_adapter_starts_as_the_identity() -> None:
    features = torch.randn(2, 128, 7, 9)
    assert torch.equal(LocalAdapter(128)(features), features)
    assert LocalAdapter(128)(features.bfloat16()).dtype == torch.bfloat16


def test_descriptors_have_unit_length() -> None:
    out = GlobalAdapter()(torch.rand(2, 512, 5, 6) * 30, torch.rand(2, 256, 10, 12) * 30)
    assert out.shape == (2, DESCRIBED, 5, 6)
    torch.testing.assert_close(out.norm(dim=1), torch.ones(2, 5, 6), atol=1e-3, rtol=0)


def test_what_is_read_of_two_images_that_are_shifted() -> None:
    # Distinct descriptors, the source's one to the right: each target position but the last column knows its own.
    torch.manual_seed(0)
    source = torch.nn.functional.normalize(torch.randn(1, DESCRIBED, 4, 5), dim=1)
    target = source.roll(-1, dims=3)
    adapter = GlobalAdapter()
    with torch.no_grad():
        adapter.log_temperature.fill_(5.0)
    read = adapter.reading(target, source).detach()
    assert read.shape == (1, 4 * 5 + 3, 4, 5)
    torch.testing.assert_close(read[:, :20].sum(dim=1), torch.ones(1, 4, 5))
    x = torch.linspace(-1, 1, 5)
    torch.testing.assert_close(read[0, 20, :, :4], x[1:].expand(4, -1), atol=0.02, rtol=0)
    torch.testing.assert_close(read[0, 21], torch.linspace(-1, 1, 4)[:, None].expand(-1, 5), atol=0.02, rtol=0)
    assert float(read[0, 22].min()) > 0.95


@pytest.mark.parametrize("adapter", ["local", "all"])
def test_adapters_that_have_not_learned_change_nothing(adapter: Literal["local", "all"]) -> None:
    torch.manual_seed(1)
    plain = build(SMALL).eval()
    assert isinstance(plain, GLUNet)
    network = adapted(plain, adapter).eval()
    images = [torch.randn(1, 3, 256, 256) for _ in range(2)]
    with torch.inference_mode():
        before, after = (net.decode(*(net.encode(i, i) for i in images)) for net in (plain, network))
    torch.testing.assert_close(after.flow4, before.flow4, atol=1e-3, rtol=0)
    torch.testing.assert_close(after.flow1, before.flow1, atol=1e-3, rtol=0)


def test_descriptors_are_refused_for_a_dense_decoder() -> None:
    network = build(GLUNetConfig())
    assert isinstance(network, GLUNet)
    with pytest.raises(ValueError, match="residual"):
        adapted(network, "all")


@pytest.mark.parametrize("size", [(256, 256), (264, 328)])
def test_every_way_to_features_is_the_same(network: GLUNet, size: tuple[int, int]) -> None:
    image, small = torch.randn(1, 3, *size), torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        whole = network.encode(image, small)
        raw = network.encoder(image, levels=(2, 3))
        low = network.encoder(small, levels=(3, 4))
        adapted = network.adapt(Features(low[4], low[3], raw[3], raw[2]))
        tiled = tiles.encode(network, 128, image, small)
    for ours, others in ((adapted, "adapt"), (tiled, "tiles")):
        for name, a, b in zip(Features._fields, whole, ours, strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-4, msg=f"{others}: {name}")


def test_what_a_pool_keeps_is_adapted_once(network: GLUNet) -> None:
    image = torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        kept = encode(encoder_alone(network.encoder, torch.float32), image, image)
        assert kept.level4.shape[1] == 512
        for a, b in zip(network.adapt(kept)[:4], network.encode(image, image)[:4], strict=True):
            torch.testing.assert_close(a, b, atol=2e-4, rtol=1e-4)


def test_gradients_reach_every_adapter(network: GLUNet) -> None:
    images = [torch.rand(1, 3, 256, 256) for _ in range(2)]
    flows = network.forward(images[0], images[1], images[0], images[1])
    sum(flow.square().mean() for flow in (flows.flow4, flows.flow3, flows.flow2, flows.flow1)).backward()  # type: ignore[union-attr]
    for level in (4, 3, 2, 1):
        for name, parameter in network.get_submodule(f"adapter{level}").named_parameters():
            assert parameter.grad is not None, (level, name)
            assert torch.isfinite(parameter.grad).all()
    network.zero_grad(set_to_none=True)


def test_it_is_saved_with_its_configuration_and_matches(network: GLUNet, tmp_path) -> None:
    from glunet.loading import network_state, save_weights

    file = tmp_path / "adapted.safetensors"
    save_weights(file, network_state(network), network.config, {})
    matcher = glunet.load(file, device="cpu", search="none", polish=False)
    assert matcher.network.config.adapter == "all"  # type: ignore[union-attr]
    image = (torch.rand(120, 150, 3) * 255).byte().numpy()
    assert matcher.match(image, image).flow.shape == (120, 150, 2)


def test_descriptors_learn_by_their_likelihood_alone() -> None:
    """And level 4's decoder learns to read them, though it reads nothing of them at first."""
    torch.manual_seed(0)
    plain = build(SMALL)
    assert isinstance(plain, GLUNet)
    network = adapted(plain, "all").train()
    network.encoder.requires_grad_(False)
    pool = Pool(encoder_alone(network.encoder, torch.float32), Noise(), SceneParameters(), capacity=4, views=2)
    pool.refresh()
    network.level4(*pool.batch(2, 0).features(network, high=False)).sum().backward()
    gradient = network.adapter4.reduce.weight.grad
    assert gradient is None or not gradient.any()
    read = network.decoder4.conv_0[0].weight[:, 256:-2]
    assert not read.any()

    optimiser = torch.optim.Adam([p for p in network.parameters() if p.requires_grad], lr=1e-3)
    stage, losses = Stage("global", 1.0, (4,), batch=2, refresh=0.1), []
    for _ in range(4):
        value, _ = step_loss(network, pool.batch(2, 0), stage)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(float(value.detach()))
    assert losses[-1] < losses[0]
    assert network.adapter4.reduce.weight.grad.any()
    assert network.decoder4.conv_0[0].weight[:, 256:-2].any()
    assert network.adapter3.block.second.weight.grad is None or not network.adapter3.block.second.weight.grad.any()
