"""Mirrored pairs (SPEC 6)."""

from types import SimpleNamespace

import pytest
import torch

from glunet.errors import GlunetError
from glunet.flow.geometry import warp
from glunet.inference.flipping import mirror_where, mirrored, unmirror_flow
from glunet.inference.frames import FRAMINGS
from glunet.matcher import Matcher
from glunet.network.family import build, configure
from glunet.network.threelevel import ThreeLevelFlows


class Marks:
    """Stands for a network: the flow between two images is the distance of their bright columns."""

    config = configure("glocal-net")

    def encode(self, image: torch.Tensor, _: torch.Tensor | None = None) -> torch.Tensor:
        return image.mean(1).amax(1).argmax(1).float()

    def level4(self, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
        return (source - target).view(-1, 1, 1, 1).expand(-1, 2, 16, 16)


def mark(*columns: int) -> torch.Tensor:
    images = torch.zeros(len(columns), 3, 256, 256)
    for image, column in zip(images, columns, strict=True):
        image[..., column] = 1
    return images


def test_the_smaller_motion_wins_and_a_tie_is_not_mirrored() -> None:
    source, target = mark(10, 10, 250, 127), mark(12, 250, 5, 10)
    assert mirrored(Marks(), target, source).tolist() == [False, True, True, False]  # type: ignore[arg-type]


def test_a_yes_is_asked_again_the_other_way() -> None:
    class Doubtful(Marks):
        asked = 0

        def level4(self, target: torch.Tensor, source: torch.Tensor) -> torch.Tensor:
            self.asked += 1
            # Mirrored is better there, and not better back.
            return torch.full((1, 2, 16, 16), {1: 1.0, 2: 2.0, 3: 4.0, 4: 3.0}[self.asked])

    network = Doubtful()
    assert not mirrored(network, mark(1), mark(1)).item()  # type: ignore[arg-type]
    assert network.asked == 4


def test_the_flow_of_a_mirrored_target_leads_to_the_same_places() -> None:
    torch.manual_seed(0)
    source = torch.rand(2, 3, 24, 30)
    flow = 3 * torch.randn(2, 2, 24, 30)
    which = torch.tensor([True, False])
    seen = warp(source, flow)  # what the (mirrored) target shows
    torch.testing.assert_close(
        warp(source, unmirror_flow(flow, which)), mirror_where(seen, which), atol=1e-4, rtol=1e-4
    )
    assert torch.equal(unmirror_flow(flow, which)[1], flow[1])


def test_a_matcher_finds_the_mirrored_image(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a network that finds no motion, the answer for an image and its mirror image is the mirroring itself."""
    network = build(configure("glocal-net")).eval()
    marks = Marks()
    still = torch.zeros(1, 2, 64, 64)
    monkeypatch.setattr(network, "encode", marks.encode)
    monkeypatch.setattr(network, "level4", marks.level4)
    monkeypatch.setattr(network, "decode", lambda *_: ThreeLevelFlows(still, still, still))
    source, target = (mark(20)[:, :, :64], mark(235)[:, :, :64])
    matcher = Matcher(network, "untrained", flipping=True)
    assert matcher.provenance.settings["flipping"] is True
    flow = matcher.flow(source, target)[0]
    torch.testing.assert_close(flow[0, 5], 255.0 - 2 * torch.arange(256))
    assert flow[1].abs().max() == 0
    plain = Matcher(network, "untrained")
    assert "flipping" not in plain.provenance.settings
    assert plain.flow(source, target).abs().max() == 0


def test_flipping_needs_a_global_level() -> None:
    assert "local-net" in FRAMINGS
    with pytest.raises(GlunetError, match="no global level"):
        Matcher(SimpleNamespace(config=configure("local-net")), "untrained", flipping=True)  # type: ignore[arg-type]


@torch.inference_mode()
def test_the_semantic_network_can_be_asked() -> None:
    torch.manual_seed(4)
    network = build(configure("semantic-glunet", decoder="residual", mapping_decoder="residual")).eval()
    image = torch.randn(1, 3, 256, 256)
    assert mirrored(network, image, image.flip(-1)).shape == (1,)
