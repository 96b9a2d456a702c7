"""What one would use instead, and the network itself, under one signature."""

import ast
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import glunet
from glunet import GlunetError
from glunet.evaluation import encoding, tables
from glunet.evaluation.baselines import Dis, Farneback, Identity, SiftHomography
from glunet.evaluation.datasets import benchmark
from glunet.evaluation.methods import FLOORS, Glunet, Raft, code_version, method
from glunet.evaluation.run import evaluate
from glunet.inference import speed
from glunet.matcher import Matcher
from glunet.network.glunet import GLUNet, GLUNetConfig
from made_up import GREY, dataset, pair


@pytest.fixture(scope="module")
def photo() -> NDArray[np.uint8]:
    return pytest.importorskip("skimage.data").astronaut()


@pytest.mark.parametrize("baseline", [Dis, Farneback, SiftHomography])
def test_baselines_find_a_small_shift(baseline: type, photo: NDArray[np.uint8]) -> None:
    """Target (x, y) is source (x + 4, y - 3)."""
    source, target = photo[100:340, 100:400], photo[97:337, 104:404]
    flow = baseline().match(source, target)
    assert flow.shape == (240, 300, 2)
    assert flow.dtype == np.float32
    np.testing.assert_allclose(np.median(flow[40:-40, 40:-40], axis=(0, 1)), [4, -3], atol=0.3)


@pytest.mark.parametrize("baseline", [Identity, Dis, Farneback, SiftHomography])
def test_baselines_with_a_source_of_another_size(baseline: type, photo: NDArray[np.uint8]) -> None:
    """A source of half the size: x_source = (x + 0.5) / 2 - 0.5."""
    import cv2

    target = photo[100:340, 100:400]
    source = cv2.resize(target, (150, 120), interpolation=cv2.INTER_AREA)
    flow = baseline().match(source, target)
    y, x = np.mgrid[:240, :300]
    expected_flow = np.stack(((x + 0.5) / 2 - 0.5 - x, (y + 0.5) / 2 - 0.5 - y), axis=-1)
    assert np.median(np.abs(flow - expected_flow)) < 0.3


def test_sift_without_texture_is_no_motion() -> None:
    assert (SiftHomography().match(GREY, GREY) == 0).all()


def test_methods_by_name() -> None:
    assert [method(name).name for name in ("identity", "sift", "dis", "farneback")] == [
        "no motion",
        "SIFT + MAGSAC",
        "DIS",
        "Farneback",
    ]
    with pytest.raises(GlunetError, match="no method 'raff'; there are glunet"):
        method("raff")


def test_raft_says_what_it_lacks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(GlunetError, match=r"RAFT needs torchvision|RAFT's weights are not on this machine"):
        Raft()


def test_raft_sees_the_target_first_in_multiples_of_eight(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """With a stand-in for torchvision's: what it is shown, and how its answer becomes a flow in the source's pixels."""
    shown: list[torch.Tensor] = []

    class StandIn(torch.nn.Module):
        def forward(self, first: torch.Tensor, second: torch.Tensor) -> list[torch.Tensor]:
            shown.extend((first, second))
            return [torch.full((1, 2, *first.shape[-2:]), 9.0), torch.full((1, 2, *first.shape[-2:]), 3.0)]

    weights = SimpleNamespace(C_T_SKHT_V2=SimpleNamespace(url="https://example.org/raft.pth"))
    module = SimpleNamespace(Raft_Large_Weights=weights, raft_large=StandIn)
    for name in ("torchvision", "torchvision.models", "torchvision.models.optical_flow"):
        monkeypatch.setitem(sys.modules, name, module)  # type: ignore[arg-type]
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    with pytest.raises(GlunetError, match=r"RAFT's weights are not on this machine; expected .*raft\.pth"):
        Raft("cpu")
    (tmp_path / "checkpoints").mkdir()
    torch.save({}, tmp_path / "checkpoints" / "raft.pth")
    source, target = np.full((40, 60, 3), 255, np.uint8), np.zeros((132, 180, 3), np.uint8)
    flow = Raft("cpu").match(source, target)
    assert [tuple(image.shape) for image in shown] == [(1, 3, 136, 184)] * 2
    assert [float(image.mean()) for image in shown] == [-1, 1]
    # x_source = (x + 3 + 0.5) * 60 / 180 - 0.5
    np.testing.assert_allclose(flow[:, 30, 0], 33.5 / 3 - 0.5 - 30, atol=1e-4)
    np.testing.assert_allclose(flow[20, :, 1], 23.5 * 40 / 132 - 0.5 - 20, atol=1e-4)


@pytest.fixture(scope="module")
def matcher() -> Matcher:
    """Random weights: what is tested here holds for all of them."""
    torch.manual_seed(0)
    return Matcher(GLUNet(GLUNetConfig(decoder="residual")), "random", "0123456789abcdef")


def test_the_network_answers_as_a_user_is_answered(matcher: Matcher, photo: NDArray[np.uint8]) -> None:
    """Also for a source of another size, and the second time, when the images are known already."""
    encoder = matcher.network.encoder
    glunet = Glunet(matcher)
    photos = [photo[:64, :96], photo[100:180, 100:172]]
    for _ in range(2):
        for source, target in (photos, photos[::-1]):
            (flow,) = glunet.match_many([(source, target)])
            np.testing.assert_allclose(flow, matcher.match(source, target).flow, atol=1e-3)
    assert matcher.network.encoder is encoder
    assert "0123456789abcdef" in glunet.identity
    assert code_version() in glunet.identity
    assert tables.weights_hash(glunet.identity) == "0123456789ab"


def test_an_image_is_encoded_once(matcher: Matcher, photo: NDArray[np.uint8]) -> None:
    glunet = Glunet(matcher)
    calls: list[int] = []
    hook = matcher.computation.inference.encoder.register_forward_hook(lambda *_: calls.append(1))
    photos = [photo[64 * n : 64 * n + 64, :96] for n in range(3)]
    for source in photos:
        for target in photos:
            glunet.match_many([(source, target)])
    hook.remove()
    # Three images of one size, each at 256 x 256 and in its frame, which here is the same picture again.
    assert len(calls) <= 6


def test_the_encoder_s_memory_is_bounded(matcher: Matcher, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoding, "ROOM", 3_000_000)
    encoder = encoding.RememberingEncoder(matcher.network.encoder)
    with torch.inference_mode():
        for n in range(5):
            encoder(torch.full((1, 3, 64, 64), float(n)), levels=(2, 3))
            assert encoder.bytes == sum(v.nbytes for f in encoder.known.values() for v in f.values()) <= 3_000_000


def test_bfloat16_is_close_and_another_prediction(
    matcher: Matcher, photo: NDArray[np.uint8], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(speed, "bfloat16_pays", lambda device: True)
    exact, quick = Glunet(matcher), Glunet(matcher, bfloat16=True)
    assert exact.identity != quick.identity
    batch = [(photo[:64, :96], photo[20:84, 10:106])]
    (one,), (other,) = exact.match_many(batch), quick.match_many(batch)
    assert 0 < np.abs(one - other).max() < 0.2 * np.abs(one).max()
    assert next(matcher.network.encoder.parameters()).dtype == torch.float32


def test_sets_of_objects_of_one_kind_are_tried_mirrored(matcher: Matcher) -> None:
    images = pair("p", [1], size=(40, 50))
    plain, flipping = dataset([images]), dataset([images], flipping=True)
    glunet = Glunet(matcher)
    assert evaluate(flipping, glunet).identity == f"{evaluate(plain, glunet).identity}-flipping"
    assert not glunet.matcher.settings.flipping
    assert benchmark("tss").flipping
    assert evaluate(flipping, Identity()).identity == Identity.identity


def test_the_network_sees_pairs_of_one_size_together(matcher: Matcher) -> None:
    glunet = Glunet(matcher, batch=2)
    seen: list[int] = []
    decoder4 = glunet.matcher.computation.inference.decoder4
    hook = decoder4.register_forward_hook(lambda _, inputs, __: seen.append(len(inputs[0])))
    results = evaluate(dataset([pair(f"p{n}", [n], size=(40, 50)) for n in range(5)]), glunet)
    hook.remove()
    assert seen == [2, 2, 1]
    assert len(results.scores) == 5


@pytest.mark.parametrize("floor", FLOORS)
def test_the_code_version_follows_what_moves_a_flow(tmp_path, floor):
    """A constant on any floor changes it, so that no old prediction is taken for a new one; a comment does not."""
    package = tmp_path / "glunet"
    shutil.copytree(Path(glunet.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "weights"))
    before = code_version(package)
    assert before == code_version()
    file, number = next(
        (path, node)
        for path in sorted((package / floor).glob("*.py"))
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Constant) and type(node.value) in (int, float)
    )
    lines = file.read_text().splitlines()
    file.write_text("\n".join(["# A comment.", *lines]))
    code_version.cache_clear()
    assert code_version(package) == before
    at = number.lineno - 1
    lines[at] = f"{lines[at][: number.col_offset]}1{lines[at][number.col_offset :]}"
    file.write_text("\n".join(lines))
    code_version.cache_clear()
    assert code_version(package) != before


def test_no_folder_of_these_floors_is_left_out():
    package = Path(glunet.__file__).parent
    floors = [package / floor for floor in FLOORS if floor != "."]
    assert {path.parent for floor in floors for path in floor.rglob("*.py")} == set(floors)
