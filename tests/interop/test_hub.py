"""Weights from the hub, out of a cache on this machine and with no network."""

import sys
from pathlib import Path

import numpy as np
import pytest

import glunet
from glunet.errors import GlunetError
from glunet.interop import from_pretrained, save_pretrained
from glunet.loading import from_hub
from untrained import matcher


@pytest.fixture
def cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, narrow: None) -> Path:
    """The cache of a hub that has "somebody/photos", with weights."""
    constants = pytest.importorskip("huggingface_hub.constants")
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    commit = "0123456789abcdef0123456789abcdef01234567"
    repo = tmp_path / "models--somebody--photos"
    (repo / "refs").mkdir(parents=True)
    (repo / "refs" / "main").write_text(commit)
    save_pretrained(matcher(), repo / "snapshots" / commit)
    return tmp_path


def images() -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(0)
    return random.integers(0, 255, (80, 90, 3), np.uint8), random.integers(0, 255, (70, 90, 3), np.uint8)


def test_what_is_cached_is_loaded(cached: Path):
    found = from_hub("hf://somebody/photos")
    assert found.is_relative_to(cached)
    assert from_hub("hf://somebody/photos@main/model.safetensors") == found
    for made in (glunet.load("hf://somebody/photos", device="cpu"), from_pretrained("somebody/photos", device="cpu")):
        assert made.provenance.weights == "untrained"
        flow = made.match(*images(), confidence=False).flow
        np.testing.assert_allclose(flow, matcher().match(*images(), confidence=False).flow, atol=0.3)  # float16


def test_what_is_not_there_is_one_sentence(cached: Path):
    with pytest.raises(GlunetError, match="cannot be had from the hub") as told:
        glunet.load("hf://somebody/else")
    assert "\n" not in str(told.value)


@pytest.mark.parametrize(
    ("address", "told"),
    [("hf://photos", "OWNER/NAME"), ("hf://", "OWNER/NAME"), ("hf://a/b/weights.pth", "only .safetensors")],
)
def test_addresses_that_are_none(address: str, told: str):
    with pytest.raises(GlunetError, match=told):
        from_hub(address)


def test_without_the_library(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(GlunetError, match=r"glunet\[hub\]"):
        from_hub("hf://a/b")


def test_a_folder_keeps_settings_and_calibration(tmp_path: Path):
    made = glunet.load(device="cpu", search="none", polish=False)
    path = save_pretrained(made, tmp_path / "own")
    assert path == tmp_path / "own" / "model.safetensors"
    again = from_pretrained(tmp_path / "own", device="cpu")
    assert again.settings == made.settings
    assert (again.calibration, again.learned) == (made.calibration, made.learned)
    np.testing.assert_allclose(again.match(*images()).flow, made.match(*images()).flow, atol=1e-3)
    (tmp_path / "file").write_text("")
    with pytest.raises(GlunetError, match="name another folder"):
        save_pretrained(made, tmp_path / "file" / "own")
