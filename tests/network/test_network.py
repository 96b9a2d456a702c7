"""GLU-Net's parts: shapes, units, initialisation."""

from itertools import product
from typing import Any

import pytest
import torch

from glunet.flow.geometry import mirror_flow
from glunet.network.family import build, configure
from glunet.network.glunet import Features, GLUNet, GLUNetConfig
from untrained import network as untrained_network

CONFIGS = [
    GLUNetConfig(),
    GLUNetConfig("residual", "residual", "bilinear"),
    GLUNetConfig("residual", "dense", "transposed", radius=2, mutual=False),
]


@pytest.mark.parametrize("config", CONFIGS)
@torch.inference_mode()
def test_levels_have_their_grids_and_start_at_the_level_above(config: GLUNetConfig) -> None:
    torch.manual_seed(0)
    network = GLUNet(config).eval()
    images = [torch.randn(1, 3, 264, 328) for _ in range(2)] + [torch.randn(1, 3, 256, 256) for _ in range(2)]
    flows = network(*images, extra_levels=2)
    assert flows.flow4.shape == (1, 2, 16, 16)
    assert flows.flow3.shape == (1, 2, 32, 32)
    assert [f.shape[-2:] for f in flows.extra] == [(8, 10), (16, 20)]
    assert flows.flow2.shape == (1, 2, 33, 41)
    assert flows.flow1.shape == (1, 2, 66, 82)
    # Heads of residuals start at zero: the answer is the global level's, in the units of the larger frame.
    mean4, mean1 = flows.flow4.mean((0, 2, 3)), flows.flow1.mean((0, 2, 3))
    torch.testing.assert_close(mean1, mean4 * torch.tensor((328 / 256, 264 / 256)), rtol=0.2, atol=2.0)


@pytest.mark.usefixtures("narrow")
@torch.inference_mode()
def test_batch_equals_loop() -> None:
    torch.manual_seed(1)
    network = GLUNet(CONFIGS[1]).eval()
    for head in (network.decoder3.predict_flow, network.decoder1.predict_flow):
        torch.nn.init.normal_(head.weight, std=0.05)
    images = [torch.randn(3, 3, 256, 256) for _ in range(2)]
    together = network(images[0], images[1], images[0], images[1]).flow1
    alone = torch.cat([network(t[None], s[None], t[None], s[None]).flow1 for t, s in zip(*images, strict=True)])
    torch.testing.assert_close(together, alone, atol=1e-3, rtol=1e-4)


def test_parameter_counts_are_the_published_ones() -> None:
    def count(config: GLUNetConfig) -> int:
        return sum(p.numel() for p in GLUNet(config).parameters())

    assert count(GLUNetConfig()) == 13_590_488
    assert count(GLUNetConfig(upsampling="bilinear")) == 13_590_356
    assert count(GLUNetConfig("residual", "residual")) == 10_656_850


def test_an_equal_frame_is_encoded_once() -> None:
    network = GLUNet(CONFIGS[1]).eval()
    calls = []
    network.encoder.register_forward_hook(lambda *_: calls.append(1))
    image = torch.randn(1, 3, 256, 256)
    with torch.inference_mode():
        once = network.encode(image, image)
        twice = network.encode(image, image.clone())
    assert len(calls) == 3
    for a, b in zip(once, twice, strict=True):
        torch.testing.assert_close(a, b)


def test_every_level_learns() -> None:
    torch.manual_seed(2)
    network = GLUNet(CONFIGS[1])
    network.encoder.requires_grad_(False)
    images = [torch.randn(2, 3, 256, 256) for _ in range(2)]
    flows = network(images[0], images[1], images[0], images[1])
    sum(f.abs().mean() for f in (flows.flow4, flows.flow3, flows.flow2, flows.flow1)).backward()
    silent = [name for name, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent


@pytest.mark.usefixtures("narrow")
def test_a_pass_starts_where_the_one_before_ended() -> None:
    network = untrained_network()
    image = torch.randn(2, 3, 256, 320)
    small = torch.randn(2, 3, 256, 256)
    with torch.inference_mode():
        target, source = network.encode(image, small), network.encode(image.flip(-1), small.flip(-1))
        once, twice = (network.decode(target, source, passes=passes) for passes in (1, 2))
        torch.testing.assert_close(twice.flow4, once.flow4)
        flow3 = network.level3(target, source, once.flow3)
        torch.testing.assert_close(twice.flow3, flow3)
        _, flow1 = network.fine([target, source], network.to_hnet_frame(flow3, target))
        again2, again1 = network.fine([target, source], flow1)
    torch.testing.assert_close(twice.flow2, again2)
    torch.testing.assert_close(twice.flow1, again1)
    assert (twice.flow1 - flow1).abs().mean() > 0.1


@pytest.mark.parametrize("name", ["glunet", "semantic-glunet"])
def test_an_ensemble_says_of_the_mirrored_pair_the_mirrored(name: str) -> None:
    """Level 4 exactly; level 3 of features that are mirrored themselves. Without an ensemble neither does."""
    torch.manual_seed(5)
    adapter = {"adapter": "all"} if name == "glunet" else {}
    network: Any = build(configure(name, decoder="residual", mapping_decoder="residual", **adapter)).eval()
    torch.nn.init.normal_(
        network.decoder3.predict_flow.weight, std=0.05
    )  # it starts at zero, which would hide its level
    images = [torch.randn(1, 3, 256, 256) for _ in range(2)]

    def features(mirrored: bool, ensemble: bool) -> list[Features]:
        seen = [image.flip(-1) if mirrored else image for image in images]
        return [network.encode(image, image, image.flip(-1) if ensemble else None) for image in seen]

    with torch.inference_mode():
        flows = {how: network.level4(*features(*how)) for how in product((False, True), repeat=2)}
        torch.testing.assert_close(flows[True, True], mirror_flow(flows[False, True]), atol=2e-3, rtol=0)
        assert not torch.allclose(flows[True, False], mirror_flow(flows[False, False]), atol=0.1)
        for ensemble in (False, True):
            ours = features(False, ensemble)
            other = [image._replace(level3=image.level3.flip(-1)) for image in ours]
            there = network.level3(*ours, flows[False, True])
            back = mirror_flow(network.level3(*other, mirror_flow(flows[False, True])))
            assert torch.allclose(there, back, atol=2e-3) == ensemble


@pytest.mark.usefixtures("narrow")
def test_levels_apart_learn_from_their_own_errors_alone() -> None:
    torch.manual_seed(3)
    network = GLUNet(CONFIGS[1]).train()
    image = torch.randn(2, 3, 256, 256)
    with torch.no_grad():
        target, source = network.encode(image, image), network.encode(image.flip(-1), image.flip(-1))

    def moved(detach: bool) -> set[str]:
        network.zero_grad(set_to_none=True)
        network.decode(target, source, 1, detach=detach).flow1.sum().backward()
        return {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None and p.grad.any()}

    assert moved(False) >= {"decoder4", "refinement3", "decoder2", "decoder1"}
    assert moved(True) <= {"decoder2", "upsample_features2", "decoder1", "refinement1"}
    start = torch.zeros(2, 2, 32, 32, requires_grad=True)
    for detach, passes, learns in ((True, 2, False), (True, 1, False), (False, 2, True)):
        start.grad = None
        network.fine([target, source], start, detach, passes)[1].sum().backward()
        assert (start.grad is not None and bool(start.grad.any())) is learns
    together, separate = (network.decode(target, source, 1, detach=detach) for detach in (False, True))
    torch.testing.assert_close(together.flow1, separate.flow1)
