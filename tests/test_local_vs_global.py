"""The comparison of local and global correlation, at the scale of seconds: it learns, goes on, measures, and draws."""

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from benchmarks.local_vs_global import __main__ as command
from benchmarks.local_vs_global import costs, measuring, page, shipped, training
from PIL import Image

import glunet
from glunet.network.correlation import global_correlation
from glunet.network.family import build, configure
from glunet.training.photographs import Photographs
from glunet.training.scenes import SceneParameters
from narrow import Noise

pytestmark = pytest.mark.usefixtures("narrow")
CPU = torch.device("cpu")
PLAN = training.Plan(
    pairs=6, batch=2, bf16=False, pool_memory=1, scenes=SceneParameters(objects=0), networks=("local-net", "glunet")
)


def test_a_stopped_run_goes_on_with_the_same_weights(tmp_path: Path) -> None:
    whole = training.train_seed(0, Noise(), tmp_path / "whole", PLAN, CPU)
    assert whole is not None
    assert training.train_seed(0, Noise(), tmp_path / "parts", PLAN, CPU, lambda: True) is None
    (tmp_path / "weights").mkdir()
    for name in PLAN.networks:
        part = tmp_path / "parts" / f"{name}.safetensors"
        (tmp_path / "weights" / part.name).write_bytes(part.read_bytes())
        assert part.stat().st_size < 8e6
    again = training.train_seed(0, Noise(), tmp_path / "parts", PLAN, CPU)
    assert again is not None
    for name, network in whole[0].items():
        for key, value in network.state_dict().items():
            assert torch.equal(value, again[0][name].state_dict()[key]), key
    assert not (tmp_path / "parts" / "state.pt").exists()
    once_more = training.train_seed(0, Noise(), tmp_path / "parts", PLAN, CPU)
    assert once_more is not None
    assert once_more[1] == json.loads(json.dumps(again[1])), "what is trained is not trained again"
    key = "decoder3.conv_0.0.weight"
    one, other = (found[0]["glunet"].state_dict()[key] for found in (again, once_more))
    torch.testing.assert_close(one, other, atol=1e-3, rtol=1e-3)
    assert whole[1]["encoder passes"] == again[1]["encoder passes"] == 16
    # Of the weights alone it goes on where they are.
    training.train_seed(0, Noise(), tmp_path / "weights", PLAN, CPU, lambda: True)
    state = torch.load(tmp_path / "weights" / "state.pt", weights_only=True)
    assert state["step"] == 2, "one step was kept, one more is made before it is asked"
    glunet.load(tmp_path / "whole" / "glunet.safetensors", device="cpu")


def test_all_learn_from_one_batch(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    seen: dict[int, int] = {}
    real = training.predict

    def predict(network: Any, target: Any, source: Any, levels: Any) -> Any:
        which = round(1e3 * float(target.level4.double().sum()))
        seen[which] = seen.get(which, 0) + 1
        return real(network, target, source, levels)

    monkeypatch.setattr(training, "predict", predict)
    plan = training.Plan(**{**vars(PLAN), "pairs": 4, "networks": tuple(training.NETWORKS)})
    found = training.train_seed(1, Noise(), tmp_path, plan, CPU)
    assert found is not None
    assert sorted(seen.values()) == [5, 5], "two steps, each with one batch for five networks"
    assert all(numbers["seconds"] > 0 for numbers in found[1]["networks"].values())
    configs = {name: network.config for name, network in found[0].items()}
    assert configs["glunet-without-mutual"].mutual is False  # type: ignore[union-attr]
    assert {config.decoder for config in configs.values()} == {"residual"}


def test_tallies_by_hand() -> None:
    sums = measuring.tally(torch.tensor([0.5, 3.0, 9.0]), torch.tensor([1.0, 1.5, 500.0]))
    sums = measuring.tally(torch.tensor([4.0]), torch.tensor([2.0]), sums)
    assert sums["pixels"][:2] == [2, 1]
    assert measuring.mean(sums) == pytest.approx(16.5 / 4)
    assert measuring.mean(sums, "within 1", slice(0, 1)) == 0.5
    assert measuring.mean(sums, "within 5") == 0.75
    assert math.isnan(measuring.mean(sums, bins=slice(5, 6)))
    assert [measuring.EDGES[page.SMALL.stop], measuring.EDGES[page.FAR.start]] == [16, 96]
    for title, bins in page.RANGES[:3]:
        assert title == f"{measuring.EDGES[bins.start]} to {measuring.EDGES[bins.stop]}"


def test_a_scene_is_the_same_at_every_size() -> None:
    small, large = (measuring.pair(Noise(), 3, size) for size in (64, 320))
    assert (small[3], large[3]) == (1, 5)
    torch.testing.assert_close(5 * small[2].flow, large[2].flow, rtol=1e-3, atol=2e-2)
    assert large[0].shape == (1, 3, 320, 320)
    flow = torch.arange(320.0).expand(1, 2, 320, 320)
    assert measuring.sampled(flow, 5)[0, 0, 0, :3].tolist() == [2, 7, 12]


def test_no_motion_is_measured_as_motion(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that always answer zero err by the motion, at every size; a true answer by nothing."""
    networks = {name: training.build(training.NETWORKS[name]).eval() for name in ("local-net", "glocal-net", "glunet")}

    def zero(network: Any, target: torch.Tensor, *_: Any, known: Any) -> torch.Tensor:
        return torch.zeros(1, 2, *target.shape[-2:])

    monkeypatch.setattr(measuring, "full_flow", zero)
    found = measuring.by_resolution(networks, Noise(), 2, False, (64, 256))
    still = found.pop(measuring.STILL)
    assert measuring.mean(still["256"]) == pytest.approx(measuring.mean(found["glunet"]["256"]))
    for sums in found.values():
        for size in ("64", "256"):
            for i, pixels in enumerate(sums[size]["pixels"]):
                error = sums[size]["error"][i]
                assert measuring.EDGES[i] * pixels <= error + 1e-3
                assert error <= measuring.EDGES[i + 1] * pixels + 1e-3 or pixels == 0


@torch.inference_mode()
def test_ways_through_glunet_agree_with_the_matcher() -> None:
    torch.manual_seed(0)
    network = training.build(training.NETWORKS["glunet"]).eval()
    for head in (network.decoder3.predict_flow, network.decoder2.predict_flow):
        torch.nn.init.normal_(head.weight, std=0.01)  # type: ignore[union-attr, arg-type]
    images = torch.randint(0, 256, (2, 3, 280, 280)).float()
    flow = measuring.full_flow(network, images[:1], images[1:])
    by_matcher = glunet.matcher.Matcher(network, "untrained").flow(images[1:].byte(), images[:1].byte())
    torch.testing.assert_close(flow, by_matcher, atol=1e-3, rtol=1e-4)
    known: dict[Any, Any] = {}
    others = [measuring.full_flow(network, images[:1], images[1:], known=known, **how) for how in shipped.WAYS.values()]
    assert [frame for _, frame in known] == [(280, 280), (256, 256)]
    assert all(other.shape == flow.shape for other in others)
    torch.testing.assert_close(others[2], flow, atol=1e-3, rtol=1e-4)
    assert not any(torch.allclose(others[i], flow, atol=0.1) for i in (0, 1, 3))
    small = images[..., :256, :256]
    whole, at_256 = (measuring.full_flow(network, small[:1], small[1:], frame=f) for f in (None, (256, 256)))
    torch.testing.assert_close(whole, at_256, atol=1e-3, rtol=1e-4)


def test_live_bytes_by_hand() -> None:
    x = torch.zeros(1000)
    with costs.LiveBytes() as counter:
        y = x + 1  # 4000
        z = y.view(10, 100)
        del y
        w = z * 2  # 8000
        del z, w
        x[:10].add_(1)
        v = x.double()  # 8000
        del v
    assert counter.peak == 8000
    assert counter.live == 0
    features = torch.randn(1, 8, 12, 12)
    with costs.LiveBytes() as counter:
        result = global_correlation(features, features)
    assert counter.live >= 4 * 12**4
    assert result.numel() == 12**4
    assert counter.peak <= 3 * 4 * 12**4


def test_costs_grow_as_they_should() -> None:
    assert costs.exponent([2, 4, 8], [3 * 2**4, 3 * 4**4, 3 * 8**4]) == pytest.approx((4, 3))
    found = costs.correlations(CPU, (32, 48, 64), patience=0.0)
    powers = {name: costs.exponent(found["grids"], found[name]["bytes"])[0] for name in ("global", "local")}
    assert powers == {"global": pytest.approx(4), "local": pytest.approx(2)}
    assert all(found[name]["peak"][i] >= found[name]["bytes"][i] for name in powers for i in range(3))
    rows = costs.networks(CPU, (64,), patience=0.0)
    assert len(costs.table(rows).splitlines()) == 2 + len(costs.NETWORKS)
    glunet_row = next(row for row in rows if row["network"] == "glunet")
    learned = [p for name, p in build(configure("glunet")).named_parameters() if not name.startswith("encoder.")]
    assert glunet_row["trained"] == sum(p.numel() for p in learned)


def test_what_may_be_claimed() -> None:
    assert page.verdict([1.0, 1.2, 1.1], [1.3, 1.4, 1.5]) == "as in the paper"
    assert "within the spread" in page.verdict([1.0, 1.2, 1.35], [1.3, 1.4, 1.5])
    assert "differs from the paper" in page.verdict([1.3, 1.4, 1.5], [1.0, 1.2, 1.1])
    assert page.verdict([0.9, 0.8], [0.7, 0.6], high=True) == "as in the paper"
    assert "no claim" in page.verdict([1.0], [2.0])
    assert page.verdict([1.0, 1.1], [1.2]) == "as in the paper"
    assert "within the spread" in page.verdict([1.0, 1.3], [1.2])


def test_the_command_from_photographs_to_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    photos = tmp_path / "photos"
    photos.mkdir()
    for number, picture in enumerate(Noise(10).pictures):
        Image.fromarray(picture.permute(1, 2, 0).numpy()).save(photos / f"{number}.png")
    monkeypatch.setattr(measuring, "SIZES", (64, 1040))
    monkeypatch.setattr(command, "bfloat16_pays", lambda device: False)
    monkeypatch.setattr(
        measuring, "by_resolution", lambda networks, photographs, scenes, bf16: resolution(networks, photographs)
    )
    text = "".join(
        f"before\n<!-- begin {name} -->\nold\n<!-- end {name} -->\n"
        for name in ("what was trained", "claims", "displacement", "resolution", "shipped", "costs", "networks")
    )
    (tmp_path / "page.md").write_text(text)
    words = ["--photos", str(photos), "--out", str(tmp_path / "runs"), "--results", str(tmp_path / "results")]
    words += ["--page", str(tmp_path / "page.md"), "--pairs", "2", "--batch", "2", "--seeds", "2", "--device", "cpu"]
    words += ["--measure-pairs", "4", "--networks", "local-net", "global-net", "glocal-net", "glunet"]
    command.main(["train", "page", *words, "--minutes", "0"])
    assert (tmp_path / "page.md").read_text() == text, "stopped before the page"
    command.main(["train", "page", *words])
    written = (tmp_path / "page.md").read_text()
    assert written.count("\nold\n") == 3, "the parts not measured stay"
    assert "**This is a trial: 2 of 20,000 pairs, 2 of 3 seeds.**" in written
    assert "| LOCAL" not in written
    assert "| GLU-Net | " in written
    assert "nan" not in written.split("begin claims")[1].split("end claims")[0]
    for name in ("displacement", "resolution"):
        with Image.open(tmp_path / "images" / f"local-and-global-{name}.png") as picture:
            assert picture.width > 800
    seed = json.loads((tmp_path / "results" / "seed1.json").read_text())
    assert seed["plan"]["pairs"] == 2
    before = (tmp_path / "results" / "seed1.json").stat().st_mtime_ns
    command.main(["train", *words])
    assert (tmp_path / "results" / "seed1.json").stat().st_mtime_ns == before, "what is there is not made again"
    fewer = copy.deepcopy(seed)
    for kind in ("displacement", "resolution"):
        del fewer[kind]["glocal-net"]
    (tmp_path / "results" / "seed1.json").write_text(json.dumps(fewer))
    command.main(["page", *words])
    written = " ".join((tmp_path / "page.md").read_text().split())
    assert "GLOCAL-Net was trained with seed 0 only." in written
    assert not re.search(r"\| GLOCAL-Net \| [0-9.]+ \(", written), "one value, no spread"
    assert re.search(r"\| GLU-Net \| [0-9.]+ \(", written)
    more = copy.deepcopy(seed)
    more["plan"]["pairs"] = 20_000
    assert page.trial([more] * 3) == ""
    assert "1 of 3 seeds" in page.trial([more])


def resolution(networks: dict[str, Any], photographs: Photographs) -> dict[str, dict[str, measuring.Tally]]:
    """Small images in the place of large ones."""
    assert photographs.short_side > 1000
    return {
        name: {size: measuring.tally(torch.rand(9), 200 * torch.rand(9)) for size in ("256", "1040")}
        for name in (measuring.STILL, *networks)
    }
