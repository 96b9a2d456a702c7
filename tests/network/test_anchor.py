"""The global level's flow stays where two images do not look alike along the finest one, and nowhere else."""

import numpy as np
import pytest
import torch
from skimage import data
from torch import Tensor

import glunet
from glunet.flow.geometry import resize_bilinear, scale_flow
from glunet.inference.frames import FRAMINGS
from glunet.matcher import Matcher
from glunet.network import anchor
from glunet.network.anchor import anchored
from glunet.network.family import FAMILY, build, configure
from glunet.network.glunet import Features

FRAME = (192, 320)


def features(level4: Tensor, level3: Tensor) -> Features:
    return Features(level4, level3, None, None)  # type: ignore[arg-type]


@pytest.fixture
def things() -> tuple[Tensor, Tensor, Tensor]:
    """Level 4's features of something, and level 3's of two images that have nothing in common in detail."""
    torch.manual_seed(0)
    noise = torch.randn(3, 32, 16, 16)
    return noise[:1], *torch.randn(2, 1, 32, 32, 32)


def flows() -> tuple[Tensor, Tensor]:
    """None at all in the global level's words; the finest one leads 30 px of the frame away on the left."""
    fine = torch.zeros(1, 2, 48, 80)
    fine[:, 0, :, :40] = 30.0
    return torch.zeros(1, 2, 16, 16), fine


def test_what_leads_away_is_brought_back(things: tuple[Tensor, Tensor, Tensor]) -> None:
    level4, detail, other = things
    flow4, fine = flows()
    out = anchored(features(level4, detail), features(level4, other), flow4, fine, FRAME)
    assert out.shape == fine.shape
    assert (out[..., :36] == 0).float().mean() > 0.8
    assert torch.equal(out[..., 46:], fine[..., 46:])
    row = out[0, 0].median(dim=0).values  # from one flow to the other without a tear
    assert row.diff().abs().max() < 16


def test_every_vector_lies_between_both(things: tuple[Tensor, Tensor, Tensor]) -> None:
    level4, detail, other = things
    torch.manual_seed(1)
    flow4, fine = 8 * torch.randn(1, 2, 16, 16), 30 * torch.randn(1, 2, 48, 80)
    out = anchored(features(level4, detail), features(level4, other), flow4, fine, FRAME)
    coarse = scale_flow(resize_bilinear(flow4, (48, 80)), FRAME[1] / 256, FRAME[0] / 256)
    share = ((out - fine) * (coarse - fine)).sum(dim=1) / (coarse - fine).square().sum(dim=1)
    torch.testing.assert_close(out, fine + share[:, None] * (coarse - fine), atol=1e-3, rtol=0)
    assert share.min() > -1e-4
    assert share.max() < 1 + 1e-4
    assert (share > 0.5).any()


def test_what_looks_alike_stays(things: tuple[Tensor, Tensor, Tensor]) -> None:
    """The same image: the finest flow is believed, whatever level 4 says; so is one that differs by little."""
    level4, detail, other = things
    smooth = resize_bilinear(torch.rand(1, 32, 4, 4) + 1, (32, 32))
    flow4, fine = flows()
    for level3, theirs, flow in ((smooth, smooth, fine), (detail, other, fine / 10)):
        assert torch.equal(anchored(features(level4, level3), features(level4, theirs), flow4, flow, FRAME), flow)


def test_pairs_of_a_batch_are_decided_each_on_its_own(things: tuple[Tensor, Tensor, Tensor]) -> None:
    level4, detail, other = things
    flow4, fine = flows()
    ours, theirs = features(level4, detail), features(level4, other)
    alone = anchored(ours, theirs, flow4, fine, FRAME)
    both = [torch.cat(pair) for pair in ((level4, level4), (detail, detail), (level4, level4), (other, detail))]
    batch = anchored(
        features(both[0], both[1]), features(both[2], both[3]), flow4.expand(2, -1, -1, -1), fine.expand(2, -1, -1, -1),
        FRAME,
    )  # fmt: skip
    torch.testing.assert_close(batch[:1], alone)
    same = anchored(ours, features(level4, detail), flow4, fine, FRAME)
    torch.testing.assert_close(batch[1:], same)


@pytest.mark.parametrize("name", FAMILY)
def test_a_matcher_says_whether_its_network_can(name: str) -> None:
    """Asked for of any network, it is done or the settings say that it is not; so is an ensemble."""
    matcher = Matcher(build(configure(name)), name, anchor=True, ensemble=True)
    assert matcher.settings.anchor == matcher.settings.ensemble == FRAMINGS[name].again
    image = np.zeros((64, 72, 3), np.uint8)
    assert matcher.match(image, image, confidence=False).flow.shape == (64, 72, 2)


def test_a_matcher_can_do_without() -> None:
    """On two faces, a person's and a cat's, it matters; on one picture and itself it does not."""
    one, other = data.astronaut()[:300:2, 100:400:2], data.chelsea()[::2, 50:350:2]
    matcher = glunet.load(device="cpu", search="none", polish=False, speed="exact", looks=1, enlarge_to=0)
    plain = matcher.with_(anchor=False)
    assert matcher.settings.anchor

    def flow(how: glunet.Matcher, source: np.ndarray) -> np.ndarray:
        return how.match(source, one, confidence=False).flow

    assert np.abs(flow(matcher, other) - flow(plain, other)).max() > 4
    np.testing.assert_array_equal(flow(matcher, one), flow(plain, one))


def test_level_4_is_asked_only_where_something_is_unlike(monkeypatch):
    asked = []
    similarity = anchor._similarity
    monkeypatch.setattr(anchor, "_similarity", lambda *given: asked.append(len(given) - 2) or similarity(*given))
    torch.manual_seed(0)
    features = Features(*(torch.randn(1, channels, side, side) for channels, side in ((512, 16), (256, 32)) * 2))
    other = Features(*(torch.randn_like(level) for level in features))
    still = torch.zeros(1, 2, 16, 16)
    assert torch.equal(anchored(features, features, still, still, (256, 256)), still)
    assert asked == [1]
    anchored(features, other, still, still, (256, 256))
    assert asked == [1, 1, 2]
