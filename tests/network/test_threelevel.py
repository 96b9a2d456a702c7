"""LOCAL-Net, GLOBAL-Net, GLOCAL-Net: grids, units, reach; and one matcher for all networks."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from glunet.errors import GlunetError
from glunet.inference.frames import FRAMINGS, fixed_size, local_size
from glunet.loading import network_state, read_network, read_weights, save_weights
from glunet.matcher import Matcher
from glunet.network.family import FAMILY, build, configure
from glunet.network.threelevel import ThreeLevelConfig, ThreeLevelNet

THREE = ("local-net", "global-net", "glocal-net")


@pytest.mark.parametrize("name", THREE)
def test_levels_have_their_grids_and_all_learn(name: str) -> None:
    torch.manual_seed(0)
    network = build(configure(name))
    assert isinstance(network, ThreeLevelNet)
    for head in (network.decoder3.predict_flow, network.decoder2.predict_flow):
        nn.init.normal_(head.weight, std=0.01)
    network.encoder.requires_grad_(False)
    size = (64, 96) if name == "local-net" else (256, 256)
    flows = network(torch.randn(1, 3, *size), torch.randn(1, 3, *size))
    assert [tuple(f.shape[-2:]) for f in flows] == [(size[0] // s, size[1] // s) for s in (16, 8, 4)]
    sum(f.abs().mean() for f in flows).backward()
    silent = [key for key, p in network.named_parameters() if p.requires_grad and p.grad is None]
    assert not silent
    with pytest.raises(ValueError, match="no extra levels"):
        network.decode(*2 * [network.encode(torch.randn(1, 3, *size))], 1)


@torch.inference_mode()
def test_only_a_local_correlation_is_blind_to_what_is_far() -> None:
    """A change of the source farther away than the reach changes GLOCAL-Net's coarsest flow, not LOCAL-Net's."""
    torch.manual_seed(1)
    for name, sees in (("local-net", False), ("glocal-net", True)):
        network = build(configure(name)).eval()
        assert isinstance(network, ThreeLevelNet)
        if not sees:
            nn.init.normal_(network.decoder4.predict_flow.weight, std=0.01)  # type: ignore[union-attr]
        features = network.encode(torch.randn(1, 3, 256, 256))
        changed = features.level4.clone()
        changed[..., 12:] += 10
        near = network.level4(features, features)[..., 0]
        # Six 3x3 convolutions reach six columns: what column 0 reads lies within 6 + 4 < 12 columns.
        far = network.level4(features, replace_level4(features, changed))[..., 0]
        assert torch.equal(near, far) != sees


def replace_level4(features, level4):
    return features._replace(level4=level4)


def test_frames() -> None:
    assert local_size(375, 1242) == (384, 1248)
    assert local_size(240, 320) == (240, 320)
    assert fixed_size(375, 1242) == (256, 256)
    assert set(FRAMINGS) == set(FAMILY)


@pytest.mark.parametrize("name", FAMILY)
def test_any_network_matches_and_survives_its_file(name, tmp_path) -> None:
    torch.manual_seed(2)
    config = configure(name, radius=4 if name == "pdc-net" else 3)
    network = build(config).eval()
    assert network.config.network == name
    save_weights(tmp_path / "a.safetensors", network.state_dict(), config, {"name": "a"}, half=False)
    again, metadata = read_network(tmp_path / "a.safetensors")
    assert type(again) is type(network)
    assert again.config == config
    assert metadata["network"] == name
    if name in THREE:
        with pytest.raises(GlunetError, match=f"{name}'s, but GLU-Net's are expected"):
            read_weights(tmp_path / "a.safetensors")
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    random = np.random.default_rng(0)
    source, target = (random.integers(0, 256, (*size, 3)).astype(np.uint8) for size in ((50, 60), (41, 70)))
    flow = Matcher(again, "untrained").match(source, target).flow
    assert flow.shape == (41, 70, 2)
    assert np.isfinite(flow).all()
    assert not any(key.startswith("encoder.") for key in network_state(network))


def test_a_flow_of_the_frame_is_scaled_to_the_target(monkeypatch) -> None:
    """One pixel of LOCAL-Net's 48 x 80 frame, one of GLOBAL-Net's 256 x 256, on a target of 41 x 70."""
    image = np.zeros((41, 70, 3), np.uint8)
    for name, (height, width) in (("local-net", (48, 80)), ("global-net", (256, 256))):
        network = build(configure(name)).eval()
        flow = torch.ones(1, 2, height // 4, width // 4)
        monkeypatch.setattr(network, "decode", lambda here, *_, flow=flow: (flow.expand(len(here[0]), -1, -1, -1),))
        found = Matcher(network, "untrained").match(image, image).flow
        np.testing.assert_allclose(found[20, 30], (70 / width, 41 / height), rtol=1e-5)


def test_configs_are_values() -> None:
    assert configure("local-net") == ThreeLevelConfig("local-net")
    assert replace(configure("semantic-glunet"), network="glunet") == configure("glunet")
    with pytest.raises(KeyError):
        configure("glnet")
    with pytest.raises(TypeError):
        configure("local-net", mutual=True)
