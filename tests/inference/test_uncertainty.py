"""The mixture and its head: a density, frozen flow, one pass, and what is asked of those who have none."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import glunet
import untrained
from glunet.errors import GlunetError
from glunet.inference import search
from glunet.inference.confidence import Calibration
from glunet.loading import network_state, save_weights
from glunet.matcher import Matcher
from glunet.network.family import build
from glunet.network.glunet import GLUNet
from glunet.network.uncertainty import LARGE, SMALL, Mixture
from glunet.training.loss import uncertainty_loss
from glunet.training.photographs import Photographs, find
from glunet.training.recipes import RECIPES, for_network
from glunet.training.scenes import Truth
from textured import SIZE, constant, scene

pytestmark = pytest.mark.usefixtures("narrow")
TABLE = Calibration((0.1, 10.0), (0.0, 1.0, 100.0), ((1.0, 0.5, 0.0), (0.9, 0.4, 0.0)), 0.2, {})


def headed() -> GLUNet:
    """The untrained network, its head with random weights."""
    plain = untrained.network()
    with torch.random.fork_rng():
        torch.manual_seed(1)
        made = build(dataclasses.replace(plain.config, uncertainty=True)).eval()
    made.load_state_dict(made.state_dict() | plain.state_dict())
    assert isinstance(made, GLUNet)
    return made


def matcher(**settings: object) -> Matcher:
    return Matcher(headed(), "untrained", settings=None, calibration=TABLE, learned=TABLE, passes=2, **settings)


def images(height: int = 120, width: int = 150) -> tuple[np.ndarray, np.ndarray]:
    one = np.random.default_rng(0).integers(0, 255, (height, width, 3))
    return one.astype(np.uint8), np.roll(one, 3, axis=1).astype(np.uint8)


@given(st.floats(-3, 3), st.floats(0.7, 4), st.floats(-3, 3))
def test_it_is_a_density(small: float, large: float, logit: float):
    mixture = Mixture(torch.tensor((small, large)).view(1, 2, 1, 1), torch.tensor((logit, 0.0)).view(1, 2, 1, 1))
    # In one dimension of steps that grow: the square of a Laplace distribution is steep at its centre.
    side = torch.sinh(torch.linspace(-5, 5, 401))
    step = torch.gradient(side)[0]
    errors = torch.stack(torch.meshgrid(side, side, indexing="ij"))[None]
    density = torch.exp(-mixture.negative_log_likelihood(errors))[0]
    assert abs(float((density * step * step[:, None]).sum()) - 1) < 0.02
    second = float((density * errors[0, 0].square() * step * step[:, None]).sum())
    assert abs(second / float(mixture.variance()) - 1) < 0.05
    inside = (errors[0].abs() <= 2).all(dim=0)
    assert abs(float((density * step * step[:, None])[inside].sum()) - float(mixture.probability(2))) < 0.03


def test_in_other_pixels_it_is_the_same():
    mixture = Mixture(torch.randn(1, 2, 3, 4), torch.randn(1, 2, 3, 4))
    half = mixture.scaled(0.5, 0.5)
    torch.testing.assert_close(half.probability(1.5), mixture.probability(3.0))
    torch.testing.assert_close(half.deviation(), mixture.deviation() / 2)
    torch.testing.assert_close(half.variance(), mixture.variance() / 4)


def test_the_likeliest_deviation_is_that_of_the_errors():
    torch.manual_seed(0)
    errors = torch.distributions.Laplace(0.0, 3 / 2**0.5).sample((1, 2, 100, 100))
    log_variance = torch.zeros(1, 2, 1, 1, requires_grad=True)
    optimiser = torch.optim.Adam([log_variance], lr=0.1)
    for _ in range(200):
        optimiser.zero_grad()
        mixture = Mixture(log_variance.expand(1, 2, 100, 100), torch.zeros(1, 2, 100, 100))
        mixture.negative_log_likelihood(errors).mean().backward()
        optimiser.step()
    assert abs(float((log_variance.detach() / 2).exp().mean()) - 3) < 0.15


@pytest.mark.parametrize("size", [(256, 256), (264, 328)])
def test_the_head_says_something_of_every_position(size: tuple[int, int]):
    network = headed()
    pair = [network.encode(torch.randn(2, 3, *size), torch.randn(2, 3, 256, 256)) for _ in range(2)]
    with torch.no_grad():
        flow = network.decode(*pair).flow1
        mixture = network.mixture(*pair, flow)
    deviations = (mixture.log_variance / 2).exp()
    assert deviations.shape == (2, 2, size[0] // 4, size[1] // 4)
    assert SMALL[0] <= float(deviations[:, 0].min()) <= float(deviations[:, 0].max()) <= SMALL[1]
    assert LARGE[0] <= float(deviations[:, 1].min()) <= float(deviations[:, 1].max()) <= LARGE[1]
    # Where the flow leads is what it goes by.
    elsewhere = network.mixture(*pair, flow + 40)
    assert not torch.allclose(elsewhere.packed(), mixture.packed(), atol=1e-3)


def test_gradients_reach_the_head_alone():
    network = headed()
    with torch.no_grad():
        pair = [network.encode(torch.randn(1, 3, 256, 256), torch.randn(1, 3, 256, 256)) for _ in range(2)]
        flow = network.decode(*pair).flow1
    truth = Truth(flow + 1, *(torch.ones(1, 64, 64, dtype=torch.bool) for _ in range(2)))
    uncertainty_loss(network.mixture(*pair, flow), flow, truth, torch.ones(1, dtype=torch.bool)).backward()
    for name, parameter in network.named_parameters():
        assert (parameter.grad is not None) is name.startswith("uncertainty."), name


def test_what_has_no_right_answer_counts_as_wrong():
    def value(visible: bool, related: bool) -> float:
        zeros: Tensor = torch.zeros(1, 2, 4, 4)
        seen = torch.full((1, 4, 4), visible)
        sure = Mixture(zeros - 2, zeros)
        return float(uncertainty_loss(sure, zeros, Truth(zeros, seen, seen), torch.tensor([related])))

    assert value(True, True) < value(False, True) == value(True, False)


def test_it_is_learned_and_nothing_else(tmp_path: Path, smooth_pictures):
    from glunet.training.loop import train

    start = tmp_path / "start.safetensors"
    plain = untrained.network()
    save_weights(start, network_state(plain), plain.config, {}, half=False)
    photographs = Photographs(find(smooth_pictures(12)))
    recipe = RECIPES["uncertainty"]
    stage = dataclasses.replace(recipe.stages[0], batch=4, frames=((256, 256),))
    settings = dataclasses.replace(
        recipe, minutes=None, steps=2, stages=(stage,), validation_pairs=4, pool_memory=1, bf16=False
    )
    train(photographs, photographs, tmp_path / "run", settings, init=start)
    learned = glunet.load(tmp_path / "run" / "weights.safetensors", device="cpu").network
    fresh = headed().state_dict()
    assert learned.config.uncertainty  # type: ignore[union-attr]
    for name, tensor in learned.state_dict().items():
        if name.startswith("uncertainty."):
            assert tensor.shape == fresh[name].shape
        elif not name.endswith("num_batches_tracked") and not name.startswith("encoder."):  # which is the package's
            torch.testing.assert_close(tensor, plain.state_dict()[name].half().to(tensor), atol=1e-3, rtol=1e-3)


def test_it_needs_weights_to_be_of(tmp_path: Path, smooth_pictures):
    from glunet.training.loop import train

    photographs = Photographs(find(smooth_pictures(4)))
    with pytest.raises(GlunetError, match="name its weights"):
        train(photographs, photographs, tmp_path / "run", dataclasses.replace(RECIPES["uncertainty"]))
    settings = for_network(RECIPES["uncertainty"], "global-net")
    with pytest.raises(GlunetError, match="glunet's"):
        train(photographs, photographs, tmp_path / "run", settings)


def test_confidence_in_one_pass_of_the_same_flow():
    source, target = images()
    learned, trip = matcher(), matcher(confidence="roundtrip")
    assert learned.settings.confidence == "learned"
    one, other = learned.match(source, target), trip.match(source, target)
    np.testing.assert_allclose(one.flow, other.flow, atol=1e-3)
    assert one.backward is None
    assert other.backward is not None
    assert other.mixture is None
    assert (one.confidence_kind, other.confidence_kind) == ("calibrated", "calibrated")
    assert one.mixture.shape == (120, 150, 4)  # type: ignore[union-attr]
    assert one.variance.min() > 0
    assert not np.array_equal(one.confidence, other.confidence)
    assert one.provenance.settings["confidence"] == "learned"
    assert one.verdict.threshold == TABLE.threshold
    with pytest.raises(GlunetError, match="backward=True"):
        _ = one.reverse
    both = learned.match(source, target, backward=True)
    np.testing.assert_allclose(both.backward, other.backward, atol=1e-3)
    np.testing.assert_allclose(both.confidence, one.confidence, atol=1e-5)
    assert both.reverse.confidence_kind == "calibrated"
    assert learned.match(source, target, confidence=False).confidence_kind == "in view"


def test_deviations_are_in_pixels_of_the_source():
    source, target = images(300, 420)
    small = matcher().match(source, target)
    twice = matcher().match(np.kron(source, np.ones((2, 2, 1), np.uint8)), target)
    ratio = np.median(twice._miss() / small._miss())
    assert 1.5 < ratio < 2.7  # the features of a source of twice the size are nearly the same


def test_many_say_what_one_says():
    source, target = images()
    made = matcher()
    many = [outcome.match for outcome in made.match_many([(source, target), (target, source)])]
    for match, pair in zip(many, ((source, target), (target, source)), strict=True):
        np.testing.assert_allclose(match.confidence, made.match(*pair).confidence, atol=1e-3)  # type: ignore[union-attr]


def test_tiles_go_by_the_way_back():
    made, pair = matcher(), images(300, 330)
    source, target = (made.open(image) for image in pair)
    tiled = made.matches([source], [target], True, tile=256)[0]
    assert tiled.mixture is None
    assert tiled.backward is not None
    assert tiled.confidence_kind == "calibrated"


def test_who_has_not_learned_it_says_so():
    with pytest.raises(GlunetError, match="have not learned it"):
        Matcher(untrained.network(), "untrained", confidence="learned")
    with pytest.raises(GlunetError, match="'auto', 'learned', 'roundtrip'"):
        Matcher(untrained.network(), "untrained", confidence="sure")
    assert (
        Matcher(
            untrained.network(),
            "untrained",
        ).settings.confidence
        == "auto"
    )


def test_a_search_of_a_sure_pair_needs_no_way_back():
    from glunet.inference.likeness import views

    picture = scene(6)
    pair = views(picture, picture)
    searcher = search.Searcher(pair, None, None, (None, None))  # type: ignore[arg-type]
    sure, unsure = np.ones(SIZE, np.float32), np.full(SIZE, 0.3, np.float32)
    flow, found = searcher.settled(search.OneWay(constant(0, 0), sure))  # type: ignore[misc]
    assert not found.way_back
    assert found.points >= 50
    assert np.abs(flow).max() < 0.01
    assert searcher.settled(search.OneWay(constant(0, 0), unsure)) is None
    assert searcher.settled(search.OneWay(constant(9, 0), sure)) is None, "keypoints say otherwise"
    flat = np.full((*SIZE, 3), 128, np.float32)
    without = search.Searcher(views(flat, flat), None, None, (None, None))  # type: ignore[arg-type]
    assert without.settled(search.OneWay(constant(0, 0), sure)) is None, "no keypoint says the same"
    everything = search.Searcher(pair, None, None, (None, None), "full")  # type: ignore[arg-type]
    assert everything.settled(search.OneWay(constant(0, 0), sure)) is None


def test_it_is_saved_and_loaded(tmp_path: Path):
    network = headed()
    content = {"learned": dataclasses.asdict(TABLE)}
    save_weights(tmp_path / "own.safetensors", network_state(network), network.config, content)
    again = glunet.load(tmp_path / "own.safetensors", device="cpu")
    assert again.learned == TABLE
    assert again.settings.confidence == "learned"


def test_the_verdict_goes_by_the_way_back_where_it_is_there():
    """A cup and a person: the head alone was sure of a tenth, and of all that was said to match."""
    made = matcher().match(*images())
    lost = np.full((120, 150, 2), 60, np.float32)
    sure = np.tile(np.array((-4, 1, 9, -9), np.float32), (120, 150, 1))
    alone = dataclasses.replace(made, flow=np.zeros_like(lost), mixture=sure)
    assert alone.verdict.same
    seen_back = dataclasses.replace(alone, backward=lost)
    assert not seen_back.verdict.same
    np.testing.assert_array_equal(seen_back.confidence, alone.confidence)
