"""Similar photographs are found, and warp consistency learns from them."""

import dataclasses
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from glunet.errors import GlunetError
from glunet.loading import encoder_state, read_network
from glunet.network.family import adapted, build, configure
from glunet.training import loop
from glunet.training import similar as module
from glunet.training.loop import train, triplet_step
from glunet.training.loss import bipath_error, consistency_loss
from glunet.training.pool import Pool, encoder_alone
from glunet.training.recipes import KIND, RECIPES, Settings
from glunet.training.scenes import Truth
from glunet.training.similar import similar
from narrow import Noise

narrow = pytest.mark.usefixtures("narrow")
SEEN = torch.ones(1, 4, 4, dtype=torch.bool)


class Kinds(Noise):
    """Photographs 2 k and 2 k + 1 show the same blobs, shifted and in other light; each kind has its own."""

    def __getitem__(self, number: int) -> Tensor:
        random = np.random.default_rng(number // 2)
        y, x = np.mgrid[:160, :160]
        picture = np.zeros((160, 160))
        for cx, cy, size, value in zip(*random.uniform((20, 20, 4, -1), (140, 140, 16, 1), (24, 4)).T, strict=True):
            picture += value * np.exp(-((x - cx - 10 * (number % 2)) ** 2 + (y - cy) ** 2) / (2 * size**2))
        light = (60, 90) if number % 2 else (90, 120)
        grey = np.clip(light[1] + light[0] * picture, 0, 255).astype(np.uint8)
        return torch.from_numpy(np.stack([grey] * 3))


@pytest.fixture
def encoder():  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    return encoder_alone(build(configure("glunet")).encoder, torch.float32)


def test_similar_photographs_are_found(encoder, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder.load_state_dict(encoder_state())
    monkeypatch.setattr(module, "FEWEST", 6)
    monkeypatch.setattr(module, "SAME", 0.999)
    found = similar(encoder, Kinds(16))
    right = [pair for pair in found if pair[0] // 2 == pair[1] // 2]
    assert len(right) >= 6
    assert found[: len(right)] == right, "the most alike come first"
    assert similar(encoder, Kinds(16)) == found
    monkeypatch.setattr(module, "FEWEST", 1)
    monkeypatch.setattr(module, "MOST", 10)  # of 16, so that at least two kinds are whole
    looked_at = {n for pair in similar(encoder, Kinds(16)) for n in pair}
    assert 2 <= len(looked_at) <= 10


@narrow
def test_photographs_without_anything_in_common_are_refused(encoder) -> None:
    with pytest.raises(GlunetError, match=r"pairs of photographs show things of one kind, but at least 16 are"):
        similar(encoder, Noise(6))


def test_a_shift_is_coherent_and_chance_is_not() -> None:
    torch.manual_seed(0)
    one = torch.nn.functional.normalize(torch.randn(2, 32, 16, 16), dim=1)
    shifted = one.roll(3, dims=-1)
    shares = module._coherent(one, torch.stack((shifted[0], torch.randn(32, 16, 16))))
    assert shares[0] > 0.75
    assert shares[1] < 0.05


@narrow
def test_triplets_go_by_the_similar_photograph(encoder) -> None:
    """Scenes 2 k and 2 k + 1 are of one pair, and none is mirrored."""
    asked: list[int] = []

    class Named(Noise):
        def __getitem__(self, number: int) -> Tensor:
            asked.append(number)
            return super().__getitem__(number)

    pairs = [(0, 5), (2, 3), (4, 1)]
    pool = Pool(encoder, Named(6), KIND, capacity=8, views=2, similar=pairs)
    while not pool.full:
        pool.refresh()
    assert len(asked) == 8
    assert all(tuple(asked[i : i + 2]) in pairs for i in range(0, 8, 2))
    batch, others = pool.triplets(8, 0)
    assert torch.equal(batch.source_view, 1 - batch.target_view)
    order = torch.randperm(8, generator=torch.Generator().manual_seed(((pool.seed & 0xFFFFFF) << 32) + (1 << 31)))
    for row, number in enumerate(order.tolist()):
        place, at = divmod(number ^ 1, 4)
        views = pool.held[place].level4[at]  # type: ignore[union-attr]
        assert any(torch.equal(others.target.level4[row], view) for view in views)


def test_consistency_by_hand() -> None:
    """A detour that comes out right costs nothing, whatever it goes by; of a pair the better half counts."""

    def logits(to: Callable[[Tensor], Tensor]) -> Tensor:
        made = torch.full((1, 16, 16), -40.0)
        made[0, to(torch.arange(16)), torch.arange(16)] = 40.0
        return made.view(1, 16, 4, 4)

    def loss(flow: float, back: Callable[[Tensor], Tensor]) -> float:
        true = Truth(torch.tensor((flow, 0.0)).view(1, 2, 1, 1).expand(1, 2, 4, 4), SEEN, SEEN)
        return float(consistency_loss(logits(lambda n: (n + 5) % 16), logits(back), true))

    assert loss(0, lambda n: (n - 5) % 16) == pytest.approx(0, abs=1e-4)
    assert loss(64, lambda n: (n - 5) % 16) == pytest.approx(-np.log(1e-6), rel=1e-3)
    half = lambda n: torch.where(n < 9, (n - 5) % 16, n)  # noqa: E731
    assert loss(0, half) < loss(64, lambda n: (n - 5) % 16) / 2


def test_bipath_by_hand() -> None:
    def flow(x: float) -> Tensor:
        return torch.tensor((x, 0.0)).view(1, 2, 1, 1).repeat(1, 1, 4, 4)

    still = Truth(flow(0), SEEN, SEEN)
    assert float(bipath_error(flow(64), flow(-64), still)) == pytest.approx(0, abs=2e-3)
    assert float(bipath_error(flow(64), flow(-44), still)) == pytest.approx(20, abs=2e-3)
    assert float(bipath_error(flow(0), flow(100), still)) == 0, "what is lost teaches nothing"
    mixed = flow(0)
    mixed[..., 2:] = 30
    assert float(bipath_error(flow(0), mixed, still)) < 15, "the better half counts"
    there = flow(10).requires_grad_()
    bipath_error(there, flow(0), still).backward()
    assert there.grad is not None
    assert there.grad.abs().sum() > 0


def settings(steps: int) -> Settings:
    recipe = RECIPES["semantic"]
    stages = tuple(dataclasses.replace(stage, batch=2, triplets=2) for stage in recipe.stages)
    return dataclasses.replace(
        recipe, minutes=None, steps=steps, stages=stages, validation_pairs=4, pool_memory=1, bf16=False, every=1e9,
        norm_batches=2,
    )  # fmt: skip


@narrow
def test_the_recipe_runs_and_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []

    def found(*_: object) -> list[tuple[int, int]]:
        calls.append(1)
        return [(0, 1), (2, 3)]

    monkeypatch.setattr(loop, "similar", found)
    whole = train(Noise(), Noise(4), tmp_path / "whole", settings(4))
    assert calls == [1]
    assert torch.load(tmp_path / "whole" / "state.pt", weights_only=True)["similar"] == [(0, 1), (2, 3)]
    metadata = read_network(tmp_path / "whole" / "weights.safetensors")[1]
    assert metadata["passes"] == 2, "the first frame gets the third of its own"
    further = train(Noise(), Noise(4), tmp_path / "whole", settings(6))
    assert calls == [1], "a run that goes on knows them"
    assert further["aepe4"] != whole["aepe4"]


def test_descriptors_learn_from_triplets() -> None:
    """Eight steps on the same triplets, at full width; decoder4 does not read the descriptors yet."""
    torch.manual_seed(0)
    network = adapted(build(configure("glunet", decoder="residual", mapping_decoder="residual")), "all").eval()
    pool = Pool(encoder_alone(network.encoder, torch.float32), Noise(), KIND, capacity=4, views=2, similar=[(0, 1)])
    pool.refresh()
    optimiser = torch.optim.AdamW(network.adapter4.parameters(), lr=1e-3)
    values = []
    for _ in range(8):
        value, _ = triplet_step(network, RECIPES["semantic"].stages[0], pool.batch(4, 0), *pool.triplets(4, 0))
        optimiser.zero_grad()
        value.backward()
        optimiser.step()
        values.append(float(value.detach()))
    assert values[-1] < values[0] - 0.2, values


@narrow
@pytest.mark.parametrize("passes", [1, 3])
def test_level_3_learns_from_triplets_around_level_4(encoder, passes: int) -> None:  # type: ignore[no-untyped-def]
    torch.manual_seed(0)
    network = build(configure("glunet", decoder="residual", mapping_decoder="residual"))
    pool = Pool(encoder, Noise(), KIND, capacity=4, views=2, similar=[(0, 1)])
    pool.refresh()
    batches = pool.batch(4, 0), *pool.triplets(4, 0)
    value, error = triplet_step(network, RECIPES["semantic"].stages[1], *batches, passes=passes)
    assert value > error > 0
    value.backward()
    learned = {name.split(".")[0] for name, p in network.named_parameters() if p.grad is not None}
    assert {"decoder3", "refinement3"} <= learned <= {"decoder3", "refinement3", "upsample_flow4"}
