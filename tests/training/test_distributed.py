"""Two processes that train together through torchrun, on this machine's CPU (gloo)."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from glunet.errors import GlunetError
from glunet.network.glunet import GLUNet
from glunet.training import loop
from glunet.training.averaging import train_mode
from glunet.training.pool import Pool, encoder_alone
from glunet.training.ranks import Alone, join
from glunet.training.validation import fixed_pairs, validate
from narrow import Noise, narrow_network
from places import TESTS
from two_ranks import SETTINGS, STAGES


def together(out: Path, *arguments: str) -> tuple[list[dict[str, Any]], str]:
    """What both ranks told, and all that they printed."""
    pytest.importorskip("lightning_fabric")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(TESTS), *sys.path])}
    done = subprocess.run(
        [*command, str(TESTS / "two_ranks.py"), str(out), *arguments],
        env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    return [torch.load(out / f"{rank}.pt", weights_only=True) for rank in (0, 1)], done.stdout


def assert_equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> None:
    assert a.keys() == b.keys()
    for key in a:
        assert torch.equal(a[key], b[key]), key


def test_two_ranks_learn_as_one_from_different_scenes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (first, second), _ = together(tmp_path)
    assert_equal(first["network"], second["network"])
    assert_equal(first["gradients"], second["gradients"])
    assert first["numbers"] == second["numbers"]
    scenes = [set(map(tuple, told["scenes"])) for told in (first, second)]
    assert len(scenes[0]) == len(first["scenes"]) > 2
    assert not scenes[0] & scenes[1]
    assert sorted(p.name for p in (tmp_path / "run").iterdir()) == ["state.pt", "weights.safetensors"]
    state = torch.load(tmp_path / "run" / "state.pt", weights_only=True)
    assert (state["step"], state["ranks"]) == (3, 2)
    for key, value in state["network"].items():
        assert torch.equal(value, first["network"][key]), key

    # Stopped after its second step and taken up again, it comes to the same.
    assert first["stopped"] == second["stopped"] == 2
    assert first["again"] == second["again"] == first["numbers"]
    parts = torch.load(tmp_path / "parts" / "state.pt", weights_only=True)
    assert_equal(parts["network"], state["network"])

    # The gradient of the first step is the mean of what each rank's own scenes give one process.
    narrow_network(monkeypatch.setattr)
    torch.manual_seed(SETTINGS.seed)
    network = loop._start(SETTINGS, None)
    network.encoder.requires_grad_(False)
    gradients: list[dict[str, Tensor]] = []
    for rank in (0, 1):
        pool = Pool(
            encoder_alone(network.encoder, torch.float32), Noise(), SETTINGS.scenes, memory=SETTINGS.pool_memory,
            seed=SETTINGS.seed + (7919 + 104729) * 256, part=(rank, 2),
        )  # fmt: skip
        while len(pool) < 2 * STAGES[0].batch and not pool.full:
            pool.refresh()
        train_mode(network, freeze_norms=True)
        network.zero_grad()
        loop.step_loss(network, pool.batch(STAGES[0].batch, 0), STAGES[0], 0)[0].backward()
        gradients.append({n: p.grad.clone() for n, p in network.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == first["gradients"].keys()
    differ = 0
    for key, value in first["gradients"].items():
        torch.testing.assert_close(value, (gradients[0][key] + gradients[1][key]) / 2, rtol=1e-3, atol=1e-4)
        differ += not torch.allclose(gradients[0][key], gradients[1][key], rtol=0.1)
    assert differ > 10

    # Both ranks' shares of the fixed pairs count as one set.
    averaged = GLUNet(SETTINGS.config)
    averaged.load_state_dict(averaged.state_dict() | network.state_dict() | state["averaged"])
    alone = validate(averaged, fixed_pairs(network, Noise(4), SETTINGS.validation_pairs))
    assert alone == pytest.approx(first["numbers"], rel=1e-4)


def test_a_stop_request_to_one_stops_both_and_one_clock_counts(tmp_path: Path, smooth_pictures) -> None:
    photos = smooth_pictures(9)
    (first, second), output = together(tmp_path, str(photos))
    assert first["steps"] == second["steps"] == 3
    assert_equal(first["network"], second["network"])
    assert torch.load(tmp_path / "run" / "state.pt", weights_only=True)["step"] == 3
    assert output.count("Stopped before the end") == output.count("8 photographs to learn from") == 1
    lines = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [3]
    assert lines[0]["minutes"] < 10, "the clock of rank 1 would say days"


def test_alone_nothing_of_it_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "lightning_fabric", None)
    for name in ("TORCHELASTIC_RUN_ID", "WORLD_SIZE"):
        monkeypatch.delenv(name, raising=False)
    assert type(join("cpu")) is Alone
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "1")
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert type(join("cpu")) is Alone
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(GlunetError, match=r"pip install 'glunet\[train\]'"):
        join("cpu")
