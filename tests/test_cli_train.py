"""glunet train as a person meets it: photographs in, weights, report and preview out; mistakes in one sentence."""

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from glunet import weight_files
from glunet.cli import app
from glunet.errors import GlunetError
from glunet.network import encoder
from glunet.training import recipes, report
from glunet.weight_files import read_weights


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Ten smooth pictures, a text that is called one, and a narrow encoder that keeps this quick."""
    monkeypatch.setattr(encoder, "LEVELS", ((8,), (8,), (12, 12), (16, 16, 16), (24, 24, 24)))
    torch.manual_seed(0)
    state = {f"encoder.{key}": value for key, value in encoder.VGG16Pyramid().state_dict().items()}
    monkeypatch.setattr(weight_files, "_encoder_file", lambda: state)
    folder = tmp_path / "photos"
    folder.mkdir()
    random = np.random.default_rng(0)
    for number in range(10):
        small = Image.fromarray(random.integers(0, 255, (9, 12, 3), np.uint8))
        small.resize((160, 120), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
    (folder / "not.jpg").write_text("a text")
    return folder


def test_trains_reports_and_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, settings in recipes.RECIPES.items():
        quick = dataclasses.replace(settings, validation_pairs=4, norm_batches=2, bf16=False)
        stages = tuple(dataclasses.replace(stage, batch=2) for stage in settings.stages)
        monkeypatch.setitem(recipes.RECIPES, name, dataclasses.replace(quick, stages=stages))
    monkeypatch.setattr(report, "PAIRS", 4)
    run = tmp_path / "run"
    command = ["train", str(photos), "--out", str(run), "--steps", "2", "--device", "cpu"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "1 images left out" in done.output
    assert "9 photographs to learn from, 1 held back" in done.output
    assert str(run / "weights.safetensors") in done.output.replace("\n", "")
    assert read_weights(run / "weights.safetensors")[1]["training"]["steps"] == 2
    page = (run / "report.md").read_text()
    assert "| AEPE |" in page
    assert "nan" not in page
    for number in (1, 2, 3):
        with Image.open(run / f"pair{number}.png") as picture:
            assert picture.size == (5 * 256, 256)
    assert (run / "log.jsonl").read_text().count("\n") >= 1
    # The same command again has nothing left to do, and starting from the result compares before and after.
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert again.exit_code == 0
    tuned = ["train", str(photos), "--out", str(tmp_path / "tuned"), "--steps", "1", "--device", "cpu", "--init"]
    done = CliRunner().invoke(app, [*tuned, str(run / "weights.safetensors")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "| | before | after |" in (tmp_path / "tuned" / "report.md").read_text()


def test_preview_is_a_picture(photos: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["train", str(photos), "--preview", str(tmp_path / "sheet.png")])
    assert done.exit_code == 0, done.output
    assert "mean displacement" in done.output
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert sheet.width > 1000
        assert np.asarray(sheet).std() > 20


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--out", "run", "--recipe", "quick"], "Recipe 'quick' is unknown"),
        (["--out", "run", "--steps", "3", "--minutes", "2"], "bounded by one of them"),
        ([], "--out is missing"),
        (["--preview", "sheet.jpg"], "is no .png"),
        (["--out", "run", "--init", "nothing"], "no file and no name of weights"),
        (["--out", "run", "--device", "abacus"], "cannot be used here"),
    ],
)
def test_mistakes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(GlunetError, match=sentence):
        CliRunner().invoke(app, ["train", str(photos), *arguments], catch_exceptions=False)
    left = [p for p in sorted(tmp_path.rglob("*")) if p not in before and p.is_file() and p.name != "log.jsonl"]
    assert not left


def test_a_folder_with_too_few(tmp_path: Path) -> None:
    Image.new("RGB", (100, 100)).save(tmp_path / "one.png")
    with pytest.raises(GlunetError, match="1 usable photographs; expected at least 8"):
        CliRunner().invoke(app, ["train", str(tmp_path), "--out", str(tmp_path / "run")], catch_exceptions=False)
