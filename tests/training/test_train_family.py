"""`glunet train --network NAME`: each network of the family learns, is saved, goes on, and matches."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

import glunet
from glunet.cli import app
from glunet.cli.train import _network
from glunet.errors import GlunetError
from glunet.loading import encoder_state, network_state, read_network, save_weights
from glunet.network.family import FAMILY, build, configure
from glunet.training import recipes, report
from glunet.training.loop import step_loss, train
from glunet.training.pool import Pool, encoder_alone
from glunet.training.recipes import LEVELS, RECIPES, SMALL, Settings, check_fit, for_network
from glunet.training.scenes import SceneParameters
from glunet.training.validation import fixed_pairs, predict, validate
from narrow import Noise

pytestmark = pytest.mark.usefixtures("narrow")


def quick(name: str, steps: int, **changes: object) -> Settings:
    """The full recipe's stages for this network, two pairs a step."""
    settings = for_network(RECIPES["full"], name)
    stages = tuple(
        dataclasses.replace(stage, batch=2, coarse=min(2, stage.coarse), frames=stage.frames[:1], until=until)
        for stage, until in zip(settings.stages, (0.25, 0.5, 0.75, 1.0), strict=True)
    )
    return dataclasses.replace(
        settings, minutes=None, steps=steps, stages=stages, warmup=2, validation_pairs=4, pool_memory=1, bf16=False,
        every=1e9, norm_batches=2, scenes=dataclasses.replace(SceneParameters(), objects=1), **changes,
    )  # fmt: skip


@pytest.mark.parametrize("name", LEVELS)
def test_every_stage_runs_and_the_weights_match(name: str, tmp_path: Path) -> None:
    numbers = train(Noise(), Noise(4), tmp_path, quick(name, 4))
    assert {f"aepe{level}" for level in LEVELS[name]} <= numbers.keys()
    further = train(Noise(), Noise(4), tmp_path, quick(name, 5))
    assert further["aepe4"] != numbers["aepe4"], "the run goes on"
    network, metadata = read_network(tmp_path / "weights.safetensors")
    assert type(network) is FAMILY[name]
    assert (network.config.network, network.config.decoder) == (name, "residual")
    assert metadata["training"]["steps"] == 5
    random = np.random.default_rng(0)
    source, target = (random.integers(0, 256, (50, 60, 3)).astype(np.uint8) for _ in range(2))
    flow = glunet.load(tmp_path / "weights.safetensors", device="cpu").match(source, target, confidence=False).flow
    assert flow.shape == (50, 60, 2)
    assert np.isfinite(flow).all()


@pytest.mark.parametrize("name", LEVELS)
def test_the_loss_falls(name: str) -> None:
    """Six steps on two pairs, the loss on all levels."""
    torch.manual_seed(0)
    settings = for_network(RECIPES["full"], name)
    network = build(settings.config).train()
    network.load_state_dict(network.state_dict() | encoder_state())
    network.encoder.requires_grad_(False)
    pool = Pool(encoder_alone(network.encoder, torch.float32), Noise(), SceneParameters(), capacity=4, views=2)
    pool.refresh()
    optimiser = torch.optim.AdamW([p for p in network.parameters() if p.requires_grad], lr=1e-2)
    losses = []
    for _ in range(6):
        value, _ = step_loss(network, pool.batch(2, 0), settings.stages[2], 0)
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        losses.append(float(value.detach()))
    assert losses[-1] < 0.95 * losses[0], losses


@pytest.mark.parametrize("name", ["semantic-glunet", "local-net"])
def test_an_encoder_may_learn_too(name: str, tmp_path: Path) -> None:
    settings = quick(name, 1, encoder_lr=1e-3)
    train(Noise(), Noise(4), tmp_path, dataclasses.replace(settings, stages=settings.stages[-1:]))
    network, metadata = read_network(tmp_path / "weights.safetensors")
    assert "encoder" not in metadata
    learned = network.state_dict()
    assert any(not torch.allclose(learned[key], value, atol=2e-4) for key, value in encoder_state().items())


def test_a_style_is_the_mean_and_deviation_of_channels() -> None:
    """Some images take on a part of another's; their pattern stays, and all others' features to the bit."""
    torch.manual_seed(0)
    network = encoder_alone(build(configure("glunet")).encoder, torch.float32)
    pool = Pool(network, Noise(), SceneParameters(), capacity=8, views=2)
    while not pool.full:
        pool.refresh()
    batch, same = pool.batch(8, 0), pool.batch(8, 0)
    batch.restyle(0.5, torch.Generator().manual_seed(1))
    for now, before in ((batch.target, same.target), (batch.source, same.source)):
        changed = [not torch.equal(a, b) for a, b in zip(now.level4, before.level4, strict=True)]
        assert 0 < sum(changed) < 8
        assert torch.equal(now.level1, before.level1)
        assert now.level3.min() >= 0
        for i in range(8):
            a, b = now.level3[i].flatten(), before.level3[i].flatten()
            assert torch.corrcoef(torch.stack((a, b)))[0, 1] > 0.8


@pytest.mark.parametrize("name", LEVELS)
def test_a_pool_serves_every_network(name: str) -> None:
    """What a network makes of the pool's features is what it encodes itself."""
    torch.manual_seed(0)
    network = build(configure(name)).eval()
    image = torch.randn(1, 3, 256, 256)
    inputs = (image,) if len(LEVELS[name]) == 3 else (image, image)
    with torch.inference_mode():
        plain = encoder_alone(network.encoder, torch.float32).encode(image, image)
        for ours, own in zip(network.adapt(plain), network.encode(*inputs), strict=True):
            torch.testing.assert_close(ours, own)
        large = torch.randn(1, 3, 256, 264)
        plain = encoder_alone(network.encoder, torch.float32).encode(large, image)
        if len(LEVELS[name]) == 3:
            with pytest.raises(ValueError, match="a 256 frame only, not 256 x 264"):
                network.adapt(plain)
        for levels in ((4,), (4, 3), LEVELS[name]):
            features = network.encode(*inputs)
            flows = predict(network, features, features, levels).levels
            whole = network.decode(features, features)
            for level, flow in zip(levels, flows, strict=True):
                torch.testing.assert_close(flow, getattr(whole, f"flow{level}"))


def test_validation_sees_all_networks_on_the_same_pairs() -> None:
    torch.manual_seed(0)
    encoder = encoder_alone(build(configure("glunet")).encoder, torch.float32)
    pairs = fixed_pairs(encoder, Noise(4), 4)
    motion = {validate(build(configure(name)).eval(), pairs)["motion"] for name in LEVELS}
    assert len(motion) == 1, "the finest grid of all is 64 x 64"


def test_a_recipe_that_does_not_fit_is_said(tmp_path: Path) -> None:
    for name in LEVELS:
        for recipe in RECIPES.values():
            if not recipe.uncertainty or name == "glunet":
                check_fit(for_network(recipe, name))
    wrong = dataclasses.replace(RECIPES["full"], config=configure("local-net"))
    with pytest.raises(GlunetError, match=r"levels \(4, 3, 2, 1\), but local-net has \(4, 3, 2\)"):
        train(Noise(), Noise(4), tmp_path / "run", wrong)
    fits = for_network(RECIPES["full"], "glocal-net")
    large = dataclasses.replace(fits, stages=(dataclasses.replace(fits.stages[-1], frames=((256, 264),)),))
    with pytest.raises(GlunetError, match="other frames than 256 x 256"):
        check_fit(large)
    assert not (tmp_path / "run").exists()
    assert for_network(RECIPES["full"], "glunet") == RECIPES["full"]


def test_the_command(tmp_path: Path, smooth_pictures, monkeypatch: pytest.MonkeyPatch) -> None:
    """One network from nothing, the semantic one from GLU-Net's weights, and what cannot be."""
    monkeypatch.setattr(report, "PAIRS", 4)
    for recipe in ("full", "finetune"):
        settings = dataclasses.replace(RECIPES[recipe], validation_pairs=4, norm_batches=2, bf16=False)
        stages = tuple(dataclasses.replace(s, batch=2, coarse=0, frames=s.frames[:1]) for s in settings.stages[:1])
        stages = (dataclasses.replace(stages[0], until=1.0),)
        monkeypatch.setitem(recipes.RECIPES, recipe, dataclasses.replace(settings, stages=stages))
    photos = smooth_pictures(9)

    def command(run: str, *more: str) -> str:
        words = ["train", str(photos), "--out", str(tmp_path / run), "--steps", "1", "--device", "cpu", *more]
        done = CliRunner().invoke(app, words, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.output

    command("local", "--network", "local-net")
    page = (tmp_path / "local" / "report.md").read_text()
    assert "| AEPE |" in page
    local = str(tmp_path / "local" / "weights.safetensors")
    assert _network(None, local) == "local-net"
    base = build(SMALL)
    save_weights(tmp_path / "base.safetensors", network_state(base), SMALL, {})
    command("semantic", "--network", "semantic-glunet", "--init", str(tmp_path / "base.safetensors"))
    assert not (tmp_path / "semantic" / "last.safetensors").exists(), "worse or not, it is the network asked for"
    semantic = read_network(tmp_path / "semantic" / "weights.safetensors")[0]
    assert semantic.config.network == "semantic-glunet"
    key = "decoder3.conv_0.0.weight"
    torch.testing.assert_close(semantic.state_dict()[key], base.state_dict()[key], atol=5e-3, rtol=0)
    for more, sentence in (
        (["--network", "glnet"], "Network 'glnet' is unknown; expected one of glunet, semantic-glunet, local-net"),
        (["--network", "glocal-net", "--init", local], "are local-net's; leave --network out"),
    ):
        with pytest.raises(GlunetError, match=sentence):
            command("wrong", *more)
    assert not (tmp_path / "wrong").exists()
