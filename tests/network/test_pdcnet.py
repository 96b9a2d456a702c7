"""PDC-Net: golden flows and mixtures, what a match says of them, and what cannot be asked."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import example, given
from hypothesis import strategies as st

import glunet
import golden
from glunet.errors import GlunetError
from glunet.inference.frames import prepare
from glunet.loading import read_weights, save_weights
from glunet.match import Match, Provenance
from glunet.network.family import build
from glunet.network.uncertainty import Mixture


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("official") / "pdcnet.pth"
    torch.save(golden.official_state("DM_PDCNet"), path)
    return path


@pytest.mark.parametrize("iterations", [3, 7])
def test_golden(checkpoint: Path, iterations: int):
    network, metadata = read_weights(checkpoint)
    assert network.config.network == "pdc-net"
    assert not metadata["iterative_refinement"]
    changed = build(dataclasses.replace(network.config, local_iterations=iterations)).eval()
    changed.load_state_dict(network.state_dict())
    source, target = (torch.from_numpy(i.copy()).permute(2, 0, 1)[None].float() for i in golden.pair(256, 256))
    (target, target_low), (source, source_low) = (prepare(i, (256, 256)) for i in (target, source))
    with torch.inference_mode():
        flows = changed(target, source, target_low, source_low)
    wanted = golden.figures("DM_PDCNet", 256, 256)
    if iterations == 7:
        flow = torch.nn.functional.interpolate(flows.flow1, (256, 256), mode="bilinear", align_corners=False)
        np.testing.assert_allclose(flow[..., ::4, ::4], wanted["flow_iter3_7_s4"], rtol=0, atol=2e-3)
        probability = flows.mixture1.resized((256, 256)).probability()[:, None, ::4, ::4]
        np.testing.assert_allclose(probability, wanted["p_r_iter3_7_s4"], rtol=0, atol=5e-5)
        return
    seen = flows._asdict()
    for level in (4, 3, 2, 1):
        mixture = seen[f"mixture{level}"]
        for name, values, tolerance in (
            ("flow", seen[f"flow{level}"], 2e-3),
            ("log_var", mixture.log_variance, 2e-4),
            ("weight", mixture.logits, 2e-4),
        ):
            key = next(key for key in wanted if key.startswith(f"{name}{level}_s"))
            stride = int(key.rsplit("s", 1)[1])
            got = values[..., ::stride, ::stride]
            np.testing.assert_allclose(got, wanted[key], rtol=0, atol=tolerance, err_msg=key)


def test_a_match_says_how_sure_the_network_is(checkpoint: Path):
    source, target = golden.pair(256, 256)
    matcher = glunet.load(checkpoint, device="cpu")
    match = matcher.match(source, target, confidence=False)
    wanted = golden.figures("DM_PDCNet", 256, 256)
    np.testing.assert_allclose(match.flow[::8, ::8], wanted["flow_s8"][0].transpose(1, 2, 0), rtol=0, atol=2e-3)
    np.testing.assert_allclose(match.probability()[::2, ::2], wanted["p_r_s2"][0, 0], rtol=0, atol=5e-5)
    assert match.confidence_kind == "predicted"
    np.testing.assert_allclose(match.confidence, np.where(match.in_view, match.probability(), 0))
    assert (match.variance >= 1).all()
    assert (match.probability(3) >= match.probability(1)).all()
    assert "uncertain" not in str(match.metadata())
    both = matcher.match(source, target)
    np.testing.assert_allclose(both.flow, match.flow, rtol=0, atol=2e-3)
    assert both.reverse.confidence_kind != "predicted", "the way back says nothing of itself"


def test_other_sizes_and_a_batch(checkpoint: Path):
    matcher = glunet.load(checkpoint, device="cpu")
    pairs = [golden.pair(240, 320), golden.pair(240, 320)[::-1]]
    alone = [matcher.match(*pair) for pair in pairs]
    for outcome, match in zip(matcher.match_many(pairs), alone, strict=True):
        assert outcome.match.probability().shape == (240, 320)
        np.testing.assert_allclose(outcome.match.variance, match.variance, rtol=2e-3)
    flow = matcher.flow(*(torch.from_numpy(i.copy()).permute(2, 0, 1)[None] for i in pairs[0]))
    assert flow.shape == (1, 2, 240, 320)
    np.testing.assert_allclose(flow[0].permute(1, 2, 0), alone[0].flow, atol=2e-3)


def test_it_is_kept_as_a_file_of_ours(checkpoint: Path, tmp_path: Path):
    network, metadata = read_weights(checkpoint)
    save_weights(tmp_path / "own.safetensors", network.state_dict(), network.config, metadata, False)
    again, _ = read_weights(tmp_path / "own.safetensors")
    assert again.config == network.config
    for (name, ours), (_, theirs) in zip(again.state_dict().items(), network.state_dict().items(), strict=True):
        assert torch.equal(ours, theirs), name


@given(st.floats(0.7, 12), st.floats(-5, 5), st.floats(-5, 5), st.floats(0.1, 20))
@example(1.0, 4.567154533733328, 0.0, 17.0)  # summed to 1 + 1e-7
def test_a_probability_is_one(large: float, first: float, second: float, radius: float):
    mixture = Mixture.unpacked(torch.tensor((0, large, first, second)).view(1, 4, 1, 1))
    probability = float(mixture.probability(radius))
    assert 0 <= probability <= 1
    assert float(mixture.probability(radius + 1)) >= probability - 1e-6
    assert 1 - 1e-6 <= float(mixture.variance()) <= np.exp(large) * 1.001
    # The whole density: what a sampled mixture has within the square.
    random = np.random.default_rng(0)
    weights = np.exp((first, second)) / np.exp((first, second)).sum()
    scale = np.where(random.random((20_000, 1)) < weights[0], 1, np.exp(large / 2)) / 2**0.5
    errors = random.laplace(0, 1, (20_000, 2)) * scale
    assert abs((np.abs(errors) <= radius).all(axis=1).mean() - probability) < 0.02


def test_what_cannot_be_asked():
    match = Match(np.zeros((8, 8, 2), np.float32), (8, 8), Provenance("none"))
    for asked in (lambda: match.variance, lambda: match.probability()):
        with pytest.raises(GlunetError, match="predicts no variance"):
            asked()
    with pytest.raises(GlunetError, match="more than 0"):
        match.probability(0)


@pytest.mark.parametrize(
    ("name", "key"),
    [
        ("DM_GLUNet_GOCor", "local_corr.filter_initializer.scaling"),
        ("DM_PDCNet", "uncertainty_decoder2.predict_uncertainty_final.bias"),
    ],
)
def test_half_of_the_layers_is_not_enough(tmp_path: Path, name: str, key: str):
    state = golden.official_state(name)
    del state[key]
    torch.save(state, tmp_path / "half.pth")
    with pytest.raises(GlunetError, match=key.rsplit(".", 1)[1]):
        glunet.load(tmp_path / "half.pth", device="cpu")
