"""One command from photographs to a file of weights: the runs and their order, and what the file says of itself."""

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

import glunet
from glunet.loading import network_state, read_network, save_weights
from glunet.network.family import build
from glunet.training.recipes import RECIPES, SMALL, for_time
from places import ROOT

sys_path = str(ROOT / "tools")


@pytest.fixture
def make_weights(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.syspath_prepend(sys_path)
    import make_weights

    return make_weights


@pytest.fixture
def photographs(tmp_path: Path) -> tuple[Path, Path]:
    folders = tmp_path / "photos", tmp_path / "held"
    random = np.random.default_rng(0)
    for folder in folders:
        folder.mkdir()
        for number in range(9):
            small = Image.fromarray(random.integers(0, 255, (24, 32, 3), np.uint8))
            small.resize((320, 240), Image.Resampling.BICUBIC).save(folder / f"{folder.name}-{number}.png")
    return folders


def test_runs_follow_each_other(make_weights, photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each run starts from the one before; adapters come before the global level alone; both calibrations come last."""
    commands: list[list[str]] = []

    def pretend(*words: object) -> None:
        command = [str(word) for word in words]
        commands.append(command)
        if "train" in command:
            out = Path(command[command.index("--out") + 1])
            out.mkdir()
            start = command[command.index("--init") + 1] if "--init" in command else None
            network = read_network(start)[0] if start else build(SMALL)
            save_weights(out / "weights.safetensors", network_state(network), network.config, {"passes": 2})

    monkeypatch.setattr(make_weights, "run", pretend)
    out = tmp_path / "work"
    words = [photographs[0], "--validation", photographs[1], "--out", out, "--minutes", 100]
    monkeypatch.setattr(sys, "argv", ["make_weights.py", *map(str, words)])
    make_weights.main()
    recipes = [command[command.index("--recipe") + 1] for command in commands[:5]]
    assert recipes == ["full", "global", "fine", "semantic", "uncertainty"]
    assert "--init" not in commands[0]
    starts = [Path(command[command.index("--init") + 1]).relative_to(out) for command in commands[1:5]]
    assert [str(start) for start in starts] == [
        "adapted.safetensors",
        "global/weights.safetensors",
        "fine/weights.safetensors",
        "semantic/weights.safetensors",
    ]
    assert sum(float(command[command.index("--minutes") + 1]) for command in commands[:5]) == 100
    assert ["--learned" in command for command in commands[5:]] == [False, True]

    path = out / "glunet.safetensors"
    with safe_open(path, framework="pt") as file:
        made = json.loads(file.metadata()["glunet"])["made"]
    assert set(made) == {"command", "commit", "photographs"}
    assert str(photographs[0]) in made["command"]
    assert glunet.load(path, device="cpu").network.config.adapter == "all"


def test_adapters_change_nothing_at_first(make_weights, tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = build(SMALL)
    path = tmp_path / "a.safetensors"
    save_weights(path, network_state(network), network.config, {})
    network = read_network(path)[0].eval()
    adapted = read_network(make_weights.with_adapters(path, tmp_path / "b.safetensors"))[0].eval()
    images = torch.rand(2, 3, 256, 256)
    with torch.no_grad():
        before, after = (n.decode(*(n.encode(i[None], i[None]) for i in images)).flow1 for n in (network, adapted))
    assert torch.allclose(before, after, atol=0.05)


def test_a_short_run_begins_small() -> None:
    import dataclasses

    short = for_time(dataclasses.replace(RECIPES["full"], minutes=2.0))
    assert {stage.batch for stage in short.stages} == {8}
    assert all(len(stage.frames) == 1 for stage in short.stages)
    assert for_time(RECIPES["full"]) == RECIPES["full"]


@pytest.mark.fuzz
@pytest.mark.timeout(1200)
def test_two_minutes_of_all_of_it(make_weights, photographs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing stands in for anything, and the file at the end loads. On a slow CPU two minutes are a dozen steps."""
    out = tmp_path / "work"
    words = [photographs[0], "--validation", photographs[1], "--out", out, "--minutes", 2, "--scenes", 8]
    monkeypatch.setattr(sys, "argv", ["make_weights.py", *map(str, words), "--different", "4", "--skip", "semantic"])
    make_weights.main()
    match = glunet.load(out / "glunet.safetensors").match(*(np.zeros((64, 64, 3), np.uint8),) * 2)
    assert match.confidence_kind == "calibrated"
