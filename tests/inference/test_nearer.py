"""The source is brought near where the global level says how, and the flow through it is that of the source itself."""

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

import glunet
from glunet.geometry.estimation import apply_homography
from glunet.inference import nearer
from glunet.inference.encoded import Encoded
from glunet.inference.hypotheses import Hypothesis
from glunet.inference.likeness import grid
from glunet.inference.nearer import LOST, SURE, Asked
from glunet.inference.passes import COMES_BACK, returning, warped
from glunet.matcher import Matcher
from textured import SIZE, similarity

PLAIN = {"search": "none", "polish": False, "speed": "exact", "confidence": "roundtrip", "enlarge_to": 0}
CENTRES = (np.stack(np.meshgrid(np.arange(32), np.arange(32)), axis=-1) + 0.5) * 8 - 0.5
# Of the upper half of a wall, seen from far to its side: pixels of the target, 200 x 240, into the source, 256 x 256.
TILTED = np.array(((0.5, 0.12, 40.0), (-0.25, 0.8, 60.0), (-0.0016, 0.0002, 1.0)))


def flow_of(matrix: np.ndarray) -> Tensor:
    """flow3 of a homography of the 256 frame."""
    flow = apply_homography(matrix, CENTRES) - CENTRES
    return torch.from_numpy(np.nan_to_num(flow, nan=-1e4).transpose(2, 0, 1)[None]).float()


@pytest.fixture(scope="module")
def matcher() -> Any:
    return glunet.load("glunet", "cpu", looks=2, passes=1, anchor=False, **PLAIN)


@pytest.fixture(scope="module")
def wall(matcher: Any) -> tuple[Encoded, Encoded]:
    """A brick wall, and itself from the side."""
    source = matcher.open(data.brick()[:256, :256])
    return source, matcher.open(warped(source, TILTED, (200, 240)).picture)


def missed(flow: np.ndarray) -> float:
    """How far a flow of the wall is from the truth, in the median over what the source shows, pixels."""
    there = apply_homography(TILTED, grid((200, 240)))
    seen = (there >= 0).all(-1) & (there <= 255).all(-1)
    return float(np.median(np.linalg.norm(grid((200, 240)) + flow - there, axis=-1)[seen]))


def test_a_steep_wall_is_seen_through_its_plane(matcher: Any, wall: tuple[Encoded, Encoded]) -> None:
    once = glunet.load("glunet", "cpu", looks=1, passes=1, anchor=False, **PLAIN)
    lying = once._answer(Asked([once.open(wall[0].picture)], [once.open(wall[1].picture)])).ways()[0]
    near = matcher._answer(Asked([wall[0]], [wall[1]])).ways()[0]
    assert lying.plane is None
    middle = grid((200, 240))[60:140:10, 80:160:10].reshape(-1, 2)
    off = np.linalg.norm(apply_homography(near.plane, middle) - apply_homography(TILTED, middle), axis=-1)
    assert np.median(off) < 4
    assert missed(near.flow) < min(1.5, 0.5 * missed(lying.flow))


def test_together_alone_as_tensors_and_both_ways_at_once_are_the_same(
    matcher: Any, wall: tuple[Encoded, Encoded]
) -> None:
    """Of a pair seen through a plane and one that is not."""
    cat = [matcher.open(data.cat()[:height, :width]) for height, width in ((256, 256), (200, 240))]
    sources, targets = [wall[0], cat[0]], [wall[1], cat[1]]
    ways = matcher._answer(Asked(sources, targets, True)).ways()
    assert [way.plane is None for way in ways] == [False, True]
    batches = (torch.cat([image.pixels for image in images]).byte() for images in (sources, targets))
    flows = matcher.flow(*batches).permute(0, 2, 3, 1).numpy()
    for source, target, way, flow in zip(sources, targets, ways, flows, strict=True):
        alone = matcher._answer(Asked([source], [target])).ways()[0]
        assert alone.backward is None
        for one in (alone.flow, flow):
            np.testing.assert_allclose(one, way.flow, atol=2e-2)
        np.testing.assert_allclose(matcher._way_back(source, target, alone), way.backward, atol=2e-2)
    back_there = apply_homography(np.linalg.inv(TILTED), grid((256, 256)))
    seen = (back_there >= 0).all(-1) & (back_there <= (239, 199)).all(-1)
    assert np.median(np.linalg.norm(grid((256, 256)) + ways[0].backward - back_there, axis=-1)[seen]) < 3


def test_a_mirrored_targets_plane_is_not_the_targets(matcher: Any, wall: tuple[Encoded, Encoded]) -> None:
    target = matcher.open(wall[1].picture[:, ::-1].copy())
    way = matcher.with_(flipping=True)._answer(Asked([wall[0]], [target], True)).ways()[0]
    assert way.plane is None
    assert (
        missed(way.flow[:, ::-1] * (1, 1) + np.stack((239 - 2 * grid((200, 240))[..., 0], 0 * way.flow[..., 1]), -1))
        < 3
    )


class Known:
    """A computation whose flow is the same for every pair, and may have a mixture."""

    def __init__(self, flow: Tensor) -> None:
        self.flow_of_it, self.settings = flow, SimpleNamespace(looks=1)

    def frame(self, size: tuple[int, int]) -> tuple[int, int]:
        return size

    def flow(self, *args: Any) -> Tensor:
        return self.flow_of_it


def test_a_flow_goes_on_through_the_homography_and_errors_grow_with_it() -> None:
    matrix = similarity(30, 2.0, SIZE, SIZE)
    images = [Encoded(torch.zeros(1, 3, *SIZE), None, None) for _ in range(2)]
    made = torch.zeros(1, 6, *SIZE)
    made[:, 0], made[:, 1], made[:, 2:4] = 3, -2, 0.5
    answer = nearer.through(Known(made), *images, matrix)[0]  # type: ignore[arg-type]
    np.testing.assert_allclose(
        answer[:2].permute(1, 2, 0), apply_homography(matrix, np.add(grid(SIZE), (3, -2))) - grid(SIZE), atol=1e-3
    )
    area = abs(np.linalg.det(matrix[:2, :2]))
    np.testing.assert_allclose(answer[2:4], 0.5 + np.log(area), atol=1e-4)
    assert not answer[4:].any()


def test_what_lies_beyond_the_horizon_leads_out_of_view_and_stays_finite() -> None:
    matrix = np.array(((1.0, 0, 0), (0, 1, 0), (-0.02, 0, 1)))
    images = [Encoded(torch.zeros(1, 3, *SIZE), None, None) for _ in range(2)]
    flow = nearer.through(Known(torch.zeros(1, 2, *SIZE)), *images, matrix)[0].permute(1, 2, 0).numpy()  # type: ignore[arg-type]
    beyond = (grid(SIZE) + flow)[:, 51:]
    assert np.isfinite(flow).all()
    assert (beyond < 0).any(-1).all()
    assert np.abs(flow).max() <= 3 * max(SIZE)


@pytest.mark.parametrize("seed", range(10))
@pytest.mark.parametrize(("astray", "found"), [(0.25, True), (0.5, False)])
def test_a_plane_is_one_on_which_most_lies_that_returns(seed: int, astray: float, found: bool) -> None:
    random = np.random.default_rng(seed)
    true = similarity(random.uniform(-60, 60), random.uniform(0.6, 1.6), (256, 256), (256, 256))
    flow = flow_of(true) + torch.from_numpy(random.normal(0, 1, (1, 2, 32, 32))).float()
    wrong = torch.from_numpy(random.random((1, 1, 32, 32)) < astray)
    flow = torch.where(wrong, torch.from_numpy(random.uniform(-200, 200, flow.shape)).float(), flow)
    matrix = nearer._agreed(flow, torch.ones(1, 32, 32, dtype=torch.bool), nearer.ON_PLANE)
    assert (matrix is not None) is found
    if matrix is not None:
        assert np.linalg.norm(apply_homography(matrix, CENTRES) - apply_homography(true, CENTRES), axis=-1).max() < 3
    assert nearer._agreed(flow, torch.zeros(1, 32, 32, dtype=torch.bool), 0) is None


@pytest.mark.parametrize(("returns", "asked"), [(LOST - 0.02, True), (LOST + 0.02, False), (1.0, False)])
def test_features_are_asked_where_next_to_nothing_returns(monkeypatch: Any, returns: float, asked: bool) -> None:
    there = torch.zeros(1, 2, 32, 32)
    there[:, 0].view(-1)[round(returns * 1024) :] = 1000.0
    calls: list[int] = []
    monkeypatch.setattr(nearer, "_by_features", lambda *pair: calls.append(1))
    image = Encoded(torch.zeros(1, 3, 100, 120), None, None)
    nearer._plane(None, image, image, there, torch.zeros_like(there))  # type: ignore[arg-type]
    assert bool(calls) is asked


@pytest.mark.parametrize(("share", "taken"), [(LOST - 0.01, False), (LOST + 0.01, True)])
def test_what_the_features_agree_on_counts_where_enough_comes_back_and_is_made_exact(
    monkeypatch: Any, share: float, taken: bool
) -> None:
    image = Encoded(torch.zeros(1, 3, 256, 256), None, None)
    rough, rest = similarity(20, 1.1, (256, 256), (256, 256)), similarity(8, 1.05, (256, 256), (256, 256))
    returned = torch.zeros(3, 32, 32, dtype=torch.bool)
    returned[2].view(-1)[: int(share * 1024) + 1] = True

    def flows(computation: Any, source: Any, target: Any, guesses: list[Hypothesis]) -> tuple[Tensor, Tensor]:
        if len(guesses) == 2:
            return torch.cat((torch.zeros(2, 2, 32, 32), flow_of(rest))), returned
        return torch.zeros(2, 2, 32, 32), returned[1:]  # nothing is left

    monkeypatch.setattr(nearer, "feature_points", lambda *pair: None)
    monkeypatch.setattr(nearer, "from_features", lambda *points: [Hypothesis(np.eye(3), ""), Hypothesis(rough, "")])
    monkeypatch.setattr(nearer, "global_flows", flows)
    found = nearer._by_features(None, image, image)  # type: ignore[arg-type]
    assert (found is not None) is taken
    if found is not None:
        away = apply_homography(found, CENTRES) - apply_homography(rough @ rest, CENTRES)
        assert np.abs(away[:3]).max() < 0.5


def test_what_comes_back() -> None:
    """Of a motion and its opposite all that stays in view; half of a flow that is wrong by half."""
    there = torch.zeros(1, 2, 32, 32)
    there[:, 0] = 64.0
    assert returning(there, -there)[0, :, :23].all()
    assert not returning(there, -there)[0, :, 24:].any()
    there[:, :, :16] = 0
    there[:, 0, 16:] = COMES_BACK + 1
    assert float(returning(there, torch.zeros_like(there)).float().mean()) == 0.5


@pytest.mark.parametrize(("share", "seen_through"), [(SURE + 0.02, False), (SURE - 0.02, True)])
def test_what_nearly_all_returns_of_is_matched_as_it_lies(share: float, seen_through: bool) -> None:
    there = flow_of(similarity(0, 1.0, (256, 256), (256, 256)))
    there[:, 0].view(-1)[round(share * 1024) :] = 1000.0
    image = Encoded(torch.zeros(1, 3, 100, 120), None, None)
    plane = nearer._plane(None, image, image, there, torch.zeros_like(there))  # type: ignore[arg-type]
    assert (plane is not None) is seen_through


def test_looks_are_a_setting_with_a_name() -> None:
    with pytest.raises(glunet.GlunetError, match="0 looks were asked for"):
        glunet.load("glunet", "cpu", looks=0)
    assert Matcher(glunet.load("glunet", "cpu").network, "glunet").settings.looks == 1  # as published


def test_the_way_back_goes_on_from_what_the_global_level_said_of_it(
    monkeypatch: Any, matcher: Any, wall: tuple[Encoded, Encoded]
) -> None:
    """Once for both: of a pair that is matched as it lies it is not asked again."""
    cat = [matcher.open(data.cat()[:height, :width]) for height, width in ((256, 256), (200, 240))]
    there, seen_through = (matcher._answer(Asked([s], [t])).ways()[0] for s, t in (cat, wall))
    assert seen_through.coarse is None
    both = matcher._answer(Asked([cat[0]], [cat[1]], True)).ways()[0]
    monkeypatch.setattr(type(matcher.computation.inference), "coarse", None)
    np.testing.assert_allclose(matcher._way_back(*cat, there), both.backward, atol=2e-2)
