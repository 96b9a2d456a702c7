"""glunet train as a person meets it: photographs in, weights, report and preview out; mistakes in one sentence."""

import dataclasses
import json
import os
import signal
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import layouts
from glunet.cli import app
from glunet.errors import GlunetError
from glunet.inference import speed
from glunet.loading import read_weights
from glunet.training import recipes, report


@pytest.fixture
def photos(smooth_pictures, narrow: None) -> Path:
    """Ten smooth pictures, a text that is called one, and a narrow network that keeps this quick."""
    folder = smooth_pictures(10)
    (folder / "not.jpg").write_text("a text")
    return folder


def test_trains_reports_and_goes_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, settings in recipes.RECIPES.items():
        quick = dataclasses.replace(settings, validation_pairs=4, norm_batches=2, bf16=False)
        stages = tuple(dataclasses.replace(s, batch=2, coarse=min(2, s.coarse)) for s in settings.stages)
        monkeypatch.setitem(recipes.RECIPES, name, dataclasses.replace(quick, stages=stages))
    monkeypatch.setattr(report, "PAIRS", 4)
    run = tmp_path / "run"
    layouts.hpatches_240(tmp_path / "hpatches")
    command = ["train", str(photos), "--out", str(run), "--steps", "2", "--device", "cpu"]
    command += ["--validate-on", f"hpatches-240={tmp_path / 'hpatches'}"]
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "1 images left out" in done.output
    assert "9 photographs to learn from, 1 held back to validate on; the largest has 160 x 120 pixels" in done.output
    assert "the first step in about" in done.output
    assert str(run / "weights.safetensors") in done.output.replace("\n", "")
    assert read_weights(run / "weights.safetensors")[1]["training"]["steps"] == 2
    page = (run / "report.md").read_text()
    assert "| AEPE |" in page
    assert "nan" not in page
    for number in (1, 2, 3):
        with Image.open(run / f"pair{number}.png") as picture:
            assert picture.size == (5 * 256, 256)
    check_validation(run, done.output)
    # The same command again has nothing left to do, and starting from the result compares before and after.
    again = CliRunner().invoke(app, command, catch_exceptions=False)
    assert again.exit_code == 0
    assert "report" in again.output
    tuned = ["train", str(photos), "--out", str(tmp_path / "tuned"), "--steps", "1", "--device", "cpu", "--init"]
    done = CliRunner().invoke(app, [*tuned, str(run / "weights.safetensors")], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    assert "a warm restart from" in done.output
    assert "| | before | after |" in (tmp_path / "tuned" / "report.md").read_text()


def test_ctrl_c_says_how_to_go_on(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from glunet.training import loop

    quick = dataclasses.replace(recipes.RECIPES["full"], validation_pairs=4, norm_batches=2, bf16=False)
    stages = (dataclasses.replace(quick.stages[0], batch=2, until=1.0),)
    monkeypatch.setitem(recipes.RECIPES, "full", dataclasses.replace(quick, stages=stages))
    monkeypatch.setattr(report, "PAIRS", 4)
    real = loop.step_loss

    def interrupted(*args: Any) -> Any:
        os.kill(os.getpid(), signal.SIGINT)
        return real(*args)

    monkeypatch.setattr(loop, "step_loss", interrupted)
    command = ["train", str(photos), "--out", str(tmp_path / "my run"), "--steps", "5", "--device", "cpu"]
    monkeypatch.setattr("sys.argv", ["glunet", *command])
    monkeypatch.setattr(speed, "bfloat16_pays", lambda device: False)
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    said = " ".join(done.output.split())
    assert f"The same command goes on from there: glunet train {photos} --out '{tmp_path / 'my run'}'" in said
    assert not (tmp_path / "my run" / "report.md").exists(), "who wants to stop does not wait for a report"
    monkeypatch.setattr(loop, "step_loss", real)
    monkeypatch.setattr(speed, "bfloat16_pays", lambda device: True)
    done = CliRunner().invoke(app, command, catch_exceptions=False)
    assert "going on at step 1" in done.output
    assert "(in float32)" in done.output, "as it began"
    assert "step 5: AEPE" in done.output
    assert (tmp_path / "my run" / "report.md").exists()


def check_validation(run: Path, output: str) -> None:
    """The real set's figures stand beside the synthetic ones, pictures in TensorBoard's file."""
    assert "also validated on hpatches-240, 5 of 5 pairs" in output
    last = json.loads((run / "log.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 2
    assert last["motion"] > 0
    assert last["hpatches-240 aepe"] > 0
    assert 0 <= last["hpatches-240 pck5"] <= 1
    assert f"hpatches-240 AEPE {last['hpatches-240 aepe']:.2f}" in output
    saved = read_weights(run / "weights.safetensors")[1]["validation"]
    assert saved["hpatches-240 aepe"] == pytest.approx(last["hpatches-240 aepe"], abs=1e-4)
    pytest.importorskip("tensorboard")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    board = EventAccumulator(str(run / "tensorboard")).Reload()
    assert "validation/hpatches-240_aepe" in board.Tags()["scalars"]
    for number in (1, 2, 3):
        (picture,) = board.Images(f"validation/pair{number}")
        assert (picture.step, picture.width, picture.height) == (2, 5 * 256, 256)
        with Image.open(run / f"pair{number}.png") as page, Image.open(BytesIO(picture.encoded_image_string)) as shown:
            # The page's weights are float16 by then, its target, source and truth the same.
            assert np.array_equal(np.asarray(page)[:, :512], np.asarray(shown)[:, :512])
            assert np.array_equal(np.asarray(page)[:, -256:], np.asarray(shown)[:, -256:])


def test_little_memory_is_said(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from glunet.inference import memory

    monkeypatch.setattr(memory, "available_bytes", lambda device: 400_000)
    done = CliRunner().invoke(app, ["train", str(photos), "--out", str(tmp_path / "run"), "--init", "nothing"])
    assert "no file and no name" in str(done.exception)
    assert "Of these 0 MB stay in memory" in " ".join(done.output.split())


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
        (["--out", "run", "--validate-on", "hpatches-240"], "expected NAME=ROOT"),
        (["--out", "run", "--validate-on", "kitty=photos"], "no evaluation set 'kitty' to validate on"),
        (["--out", "run", "--validate-on", "hpatches-240=nowhere"], "nowhere: no such folder"),
        (["--out", "run", "--device", "abacus"], "cannot be used here"),
    ],
)
def test_mistakes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], sentence: str
) -> None:
    monkeypatch.chdir(tmp_path)
    layouts.pf_willow(tmp_path / "willow")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(GlunetError, match=sentence):
        CliRunner().invoke(app, ["train", str(photos), *arguments], catch_exceptions=False)
    left = [p for p in sorted(tmp_path.rglob("*")) if p not in before and p.is_file()]
    assert not left


def test_a_folder_with_too_few(tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.new("RGB", (100, 100)).save(photos / "one.png")
    with pytest.raises(GlunetError, match="1 usable photographs; expected at least 8"):
        CliRunner().invoke(app, ["train", str(photos), "--out", str(tmp_path / "run")], catch_exceptions=False)


@pytest.mark.parametrize(("words", "told"), [
    (("--out", "file"), "is a file"),
    (("--out", "photos/run"), "lies among the photographs"),
    (("--preview", "photos/sheet.png"), "lies among the photographs"),
    (("--out", "run", "--lr", "0"), "positive learning rate"),
])  # fmt: skip
def test_what_cannot_go_well_is_said_before_anything_is_read(tmp_path, monkeypatch, words, told) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_text("")
    (tmp_path / "photos").mkdir()
    with pytest.raises(GlunetError, match=told):
        CliRunner().invoke(app, ["train", "photos", *words], catch_exceptions=False)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "photos"]


def test_a_compressed_tar_is_called_so(tmp_path) -> None:
    packed = tmp_path / "photos.tar.gz"
    packed.write_bytes(b"x")
    with pytest.raises(GlunetError, match="compressed"):
        CliRunner().invoke(app, ["train", str(packed), "--out", str(tmp_path / "run")], catch_exceptions=False)


def test_of_worse_weights_those_before_are_kept(tmp_path) -> None:
    import torch

    from glunet.loading import read_weights, save_weights
    from glunet.training.report import keep_the_better

    network, metadata = read_weights("glunet")
    worse = {key: torch.zeros_like(value) for key, value in network.state_dict().items() if "encoder" not in key}
    weights = tmp_path / "weights.safetensors"
    save_weights(weights, worse, network.config, metadata)
    last = keep_the_better(weights, "glunet")
    assert float(read_weights(last)[0].decoder2.predict_flow.weight.detach().abs().sum()) == 0
    kept = read_weights(weights)[0]
    assert torch.equal(kept.decoder2.predict_flow.weight, network.decoder2.predict_flow.weight)
