"""The other networks of the family compute what the public implementations compute (SPEC 11, 14)."""

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import glunet
import golden
from glunet.network.checkpoint import official_config, our_key, our_state
from glunet.network.family import build

# Official name, ours, sizes, trained with grey levels cut to whole numbers, entries and parameters (SPEC 7).
NETWORKS = {
    "SemanticGLUNet": ("semantic-glunet", True, 268, 13_600_229),
    "GLOCALNet": ("glocal-net", False, 183, 11_460_544),
    "GLOBALNet": ("global-net", False, 183, 14_130_236),
    "LOCALNet": ("local-net", False, 183, 11_883_318),
}
CASES = [
    ("SemanticGLUNet", 256, 256),
    ("SemanticGLUNet", 240, 320),
    ("GLOCALNet", 256, 256),
    ("GLOCALNet", 240, 320),
    ("GLOBALNet", 256, 256),
    ("LOCALNet", 375, 1242),
]


@pytest.fixture(scope="module")
def matcher(tmp_path_factory: pytest.TempPathFactory) -> Any:
    folder = tmp_path_factory.mktemp("official")

    @cache
    def load(name: str) -> glunet.Matcher:
        path: Path = folder / f"{name}.pth"
        torch.save({"state_dict": golden.official_state(name)}, path)
        return glunet.load(path, device="cpu", uint8_truncation=NETWORKS[name][1])

    return load


@pytest.mark.parametrize(("name", "height", "width"), CASES)
def test_golden(matcher: Any, monkeypatch: pytest.MonkeyPatch, name: str, height: int, width: int) -> None:
    source, target = (torch.from_numpy(i.copy()).permute(2, 0, 1)[None] for i in golden.pair(height, width))
    network = matcher(name).computation.inference
    decode, global_scores = network.decode, getattr(network, "global_scores", None)
    seen: dict[str, torch.Tensor] = {}

    def watched_decode(*features: Any) -> Any:
        flows = decode(*features)
        seen.update((key, value) for key, value in flows._asdict().items() if key != "extra")
        return flows

    def watched_scores(*features: Any) -> torch.Tensor:
        seen["corr4"] = global_scores(*features)
        return seen["corr4"]

    monkeypatch.setattr(network, "decode", watched_decode)
    monkeypatch.setattr(network, "global_scores", watched_scores)
    seen["flow"] = matcher(name).flow(source, target)

    semantic = name == "SemanticGLUNet"
    figures = golden.figures(name, height, width)
    for key, expected in figures.items():
        base, stride = key.rsplit("_s", 1)
        got = seen[base].numpy()[:, :: 5 if base == "corr4" else 1, :: int(stride), :: int(stride)]
        if base == "corr4":
            tolerance = (3e-3 if semantic else 1e-4) * np.abs(expected).max()
        else:
            tolerance = 2e-2 if semantic else 2e-3 if base == "flow" else 5e-3
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=key)
    assert len(figures) == 4 + semantic + (name != "LOCALNet")


@pytest.mark.parametrize("name", NETWORKS)
def test_every_official_tensor_is_accounted_for(name: str) -> None:
    network_name, _, entries, parameters = NETWORKS[name]
    shapes = golden.manifest(name)
    official = {key: torch.empty(shape) for key, shape in shapes.items()}
    assert len(official) == entries
    config = official_config(official)
    assert config.network == network_name
    ours = our_state(official, network_name)
    own = build(config).state_dict()
    assert {key: value.shape for key, value in ours.items()} == {key: value.shape for key, value in own.items()}
    unused = [key for key in official if our_key(key, network_name) is None]
    assert unused == (["deconv2.weight", "deconv2.bias"] if name.startswith("GLO") else [])
    counted = sum(value.numel() for key, value in official.items() if "running" not in key and "batches" not in key)
    assert counted == parameters
