"""A second look is taken where the first is unsure, counts where more comes back, and changes nothing elsewhere."""

from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

import glunet
from glunet.flow.geometry import pixel_grid, resize_area
from glunet.geometry.estimation import apply_homography
from glunet.inference.passes import warped
from glunet.matcher import Matcher
from glunet.network import second_look
from glunet.network.glunet import Features
from glunet.network.second_look import COMES_BACK, LOST, MORE, SURE, comes_back, looked_again, plane, returning

CENTRES = (np.stack(np.meshgrid(np.arange(32), np.arange(32)), axis=-1) + 0.5) * 8 - 0.5
# Of the upper half of a wall, seen from far to its side: pixels of the target into the source.
TILTED = np.array(((0.5, 0.12, 40.0), (-0.25, 0.8, 60.0), (-0.0016, 0.0002, 1.0)))


def flow_of(matrix: np.ndarray) -> Tensor:
    """flow3 of a homography of the 256 frame."""
    flow = apply_homography(matrix, CENTRES) - CENTRES
    return torch.from_numpy(flow.transpose(2, 0, 1)[None]).float()


@pytest.mark.parametrize("astray", [0.0, 0.2])
@pytest.mark.parametrize("seed", range(20))
def test_the_plane_is_that_of_most(seed: int, astray: float) -> None:
    """To 2 px, whatever a fifth of the positions says, and with what does not count left out."""
    rng = np.random.default_rng(seed)
    turn, zoom = rng.uniform(-0.5, 0.5), rng.uniform(0.7, 1.4)
    matrix = np.array(
        (
            (zoom * np.cos(turn), -zoom * np.sin(turn), rng.uniform(-40, 40)),
            (zoom * np.sin(turn), zoom * np.cos(turn), rng.uniform(-40, 40)),
            (*rng.uniform(-5e-4, 5e-4, 2), 1.0),
        )
    )
    true = flow_of(matrix)
    wrong = torch.from_numpy(rng.uniform(-200, 200, true.shape)).float()
    seen = torch.where(torch.from_numpy(rng.random((1, 1, 32, 32)) < astray), wrong, true)
    used = torch.from_numpy(rng.random((1, 32, 32)) < 0.8)
    seen[:, :, ~used[0]] = 1e4
    assert (plane(seen, used) - true).abs().max() < 2


def test_a_plane_of_nothing_is_finite() -> None:
    nowhere = torch.zeros(1, 32, 32, dtype=torch.bool)
    assert plane(torch.zeros(1, 2, 32, 32), nowhere).isfinite().all()


def test_what_comes_back() -> None:
    """Of a motion and its opposite all that stays in view; half of a flow that is wrong by half."""
    there = torch.zeros(1, 2, 32, 32)
    there[:, 0] = 64.0
    assert returning(there, -there)[0, :, :23].all()
    assert not returning(there, -there)[0, :, 24:].any()
    there[:, :, :16] = 0
    there[:, 0, 16:] = COMES_BACK + 1
    assert float(comes_back(there, torch.zeros_like(there))) == 0.5


@pytest.fixture(scope="module")
def network() -> Any:
    return glunet.load("glunet", "cpu").network


@pytest.fixture(scope="module")
def pair(network: Any) -> tuple[Features, Features]:
    """A brick wall and itself from the side; behind them, in the same batch, two copies of one photograph."""
    matcher = glunet.load("glunet", "cpu", search="none")
    wall = matcher.open(data.brick()[:256, :256])
    tilted = warped(wall, TILTED, (256, 256)).pixels
    cat = resize_area(torch.from_numpy(data.cat().transpose(2, 0, 1)[None].copy()).float(), (256, 256))
    targets, sources = torch.cat((tilted, cat)), torch.cat((wall.pixels, cat))
    with torch.inference_mode():
        return tuple(
            network.encode_low(seen, seen.flip(-1))
            for seen in (matcher.computation.prepare(images, (256, 256))[1] for images in (targets, sources))
        )  # type: ignore[return-value]


def test_a_second_look_finds_more_of_a_steep_wall(network: Any, pair: tuple[Features, Features]) -> None:
    true = flow_of(TILTED)
    seen = ((pixel_grid(32, 32) * 8 + 3.5 + true[0]).sub(127.5).abs().amax(dim=0) < 124)[None]

    def missed(flow: Tensor) -> float:
        return float((flow[:1] - true).norm(dim=1)[seen].median())

    with torch.inference_mode():
        once = network.coarse(*pair, passes=3)[1]
        (flow4, flow3), _ = looked_again(network, *pair, 2, 3)
    assert missed(flow3) < 0.7 * missed(once)
    assert flow4.shape == (2, 2, 16, 16)
    assert torch.equal(flow3[1], once[1])  # of which all comes back: nobody looks again


def test_what_does_not_bring_more_is_left(network: Any, pair: tuple[Features, Features]) -> None:
    """Of noise nothing comes back, however often it is looked at; and more looks never make a pair worse."""
    torch.manual_seed(0)
    noise = torch.randn(2, 1, 3, 256, 256)
    with torch.inference_mode():
        lost = [network.encode_low(image, image.flip(-1)) for image in noise]
        assert torch.equal(looked_again(network, *lost, 3)[0][1], network.coarse(*lost)[1])
        once, *more = (looked_again(network, *pair, looks, 1) for looks in (1, 3))
    before = comes_back(once[0][1], once[1][1])
    for there, back in more:
        share = comes_back(there[1], back[1])
        assert ((share > before + MORE) | (share == before)).all()
        before = share


@pytest.mark.parametrize(("share", "looks"), [(LOST - 0.01, False), (LOST + 0.01, True), (SURE + 0.01, False)])
def test_nobody_looks_along_a_flow_of_which_nearly_nothing_or_nearly_all_returns(
    monkeypatch: Any, network: Any, pair: tuple[Features, Features], share: float, looks: bool
) -> None:
    monkeypatch.setattr(second_look, "comes_back", lambda there, back: torch.full((len(there),), share))
    along: list[int] = []
    monkeypatch.setattr(second_look, "plane", lambda flow, used: along.append(1) or torch.zeros_like(flow))
    with torch.inference_mode():
        looked_again(network, *pair, 2)
    assert bool(along) is looks


def test_looks_are_a_setting_with_a_name() -> None:
    with pytest.raises(glunet.GlunetError, match="0 looks were asked for"):
        glunet.load("glunet", "cpu", looks=0)
    assert Matcher(glunet.load("glunet", "cpu").network, "glunet").settings.looks == 1  # as published
