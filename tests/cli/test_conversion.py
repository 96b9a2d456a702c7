"""Official checkpoints as files of ours: nothing lost, nothing unsaid."""

import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

import golden
from glunet import cli
from glunet.cli.conversion import convert, describe
from glunet.errors import GlunetError
from glunet.loading import read_network

NAMES = {"SemanticGLUNet": "semantic-glunet", "GLOBALNet": "global-net", "LOCALNet": "local-net", "GLUNet": "glunet"}


def checkpoint(folder: Path, name: str) -> Path:
    torch.manual_seed(0)
    path = folder / f"{name}.pth"
    state = {
        key: torch.zeros(shape, dtype=torch.int64) if key.endswith("batches_tracked") else torch.rand(shape)
        for key, shape in golden.manifest(name).items()
    }
    torch.save({"epoch": 3, "state_dict": state}, path)
    return path


@pytest.mark.parametrize("name", NAMES)
def test_the_same_network_comes_out(name: str, tmp_path: Path) -> None:
    official, out = checkpoint(tmp_path, name), tmp_path / "ours.safetensors"
    description = convert(official, out)
    assert description["network"] == NAMES[name]
    assert sum(description["tensors"].values()) == len(golden.manifest(name))
    assert description["tensors"]["never used"] == (2 if name == "GLOBALNet" else 0)
    (network, _), (again, metadata) = read_network(official), read_network(out)
    assert network.config == again.config
    for key, value in network.state_dict().items():
        assert torch.equal(again.state_dict()[key], value), key
    assert metadata["converted_from"]["file"] == f"{name}.pth"
    assert metadata["iterative_refinement"] is (name in ("GLUNet", "SemanticGLUNet"))
    ours = describe(out)
    assert ours["kind"] == "safetensors of glunet"
    assert ours["parameters"] == description["parameters"]
    assert ours["trained"] == ours["parameters"] - 7_635_264


def test_half_is_half_the_size(tmp_path: Path) -> None:
    official = checkpoint(tmp_path, "GLOCALNet")
    convert(official, tmp_path / "half.safetensors", half=True)
    assert (tmp_path / "half.safetensors").stat().st_size < 0.55 * official.stat().st_size
    with safe_open(tmp_path / "half.safetensors", framework="pt") as file:
        assert file.get_tensor("decoder4.final.weight").dtype == torch.float16


def test_the_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def run(*words: object) -> str:
        monkeypatch.setattr(sys, "argv", ["glunet", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        return capsys.readouterr().out

    official, out = checkpoint(tmp_path, "GLOCALNet"), tmp_path / "ours.safetensors"
    said = run("convert", official, out)
    assert "glocal-net, 11,460,478 parameters; tensors: 160 used, 21 counters of batches, 2 never used" in said
    assert str(out) in said
    said = run("info", out)
    assert "network: glocal-net" in said
    assert "parameters: 11,460,478" in said
    assert "kind: official checkpoint" in run("info", official)


def test_mistakes_are_said(tmp_path: Path) -> None:
    official, out = checkpoint(tmp_path, "GLOCALNet"), tmp_path / "ours.safetensors"
    with pytest.raises(GlunetError, match=r"does not end in \.safetensors"):
        convert(official, tmp_path / "ours.pth")
    convert(official, out)
    with pytest.raises(GlunetError, match="safetensors file already"):
        convert(out, tmp_path / "b.safetensors")
    state = torch.load(official, weights_only=True)["state_dict"]
    del state["upfeat3.bias"]
    torch.save(state, tmp_path / "torn.pth")
    with pytest.raises(GlunetError, match=r"lacks 1 of the network's tensors, the first 'upsample_features3\.bias'"):
        convert(tmp_path / "torn.pth", tmp_path / "b.safetensors")
    assert not (tmp_path / "b.safetensors").exists()
