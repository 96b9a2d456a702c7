"""The command line: what `glunet match` writes, `info`, help, and how long the start takes."""

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from glunet import __version__, loading
from glunet.cli.match import measure
from glunet.flow.files import read_flow
from glunet.match import Match, Provenance
from glunet.matcher import Matcher
from untrained import matcher


@pytest.fixture
def run(monkeypatch, command):
    """`run("match", ...)` -> exit code, stdout, stderr; in this process, with an untrained network."""

    def made(name: str, device: str, **settings: Any) -> Matcher:
        return matcher(**{key: value for key, value in settings.items() if value is not None})

    monkeypatch.setattr(loading, "load", made)
    return command


@pytest.fixture
def pair(tmp_path) -> tuple[Path, Path]:
    random = np.random.default_rng(0)
    paths = tmp_path / "source.png", tmp_path / "target.jpg"
    for path, size in zip(paths, ((50, 70, 3), (40, 60, 3)), strict=True):
        Image.fromarray(random.integers(0, 256, size).astype(np.uint8)).save(path)
    return paths


@pytest.mark.parametrize("suffix", ["flo", "npz"])
def test_match_writes_everything_and_says_so(run, pair, tmp_path, suffix):
    out = tmp_path / "new" / "out"
    code, printed, errors = run("match", *pair, "--out", out, "--flow-format", suffix, "--uint8-truncation")
    assert (code, errors) == (0, "")
    expected = {f"flow.{suffix}", "warped.png", "flow-picture.png", "confidence.png", "sheet.png", "numbers.json"}
    assert {path.name for path in out.iterdir()} == expected | ({"flow.flo.json"} if suffix == "flo" else set())
    assert sorted(printed.split()) == sorted(str(path) for path in out.iterdir())

    numbers = json.loads((out / "numbers.json").read_text())
    assert numbers["source_size"] == [50, 70]
    assert numbers["target_size"] == [40, 60]
    assert numbers["settings"]["uint8_truncation"] is True
    assert numbers["seconds"]["match"] > 0
    assert 0 <= numbers["in_view"] <= 1
    stored = read_flow(out / f"flow.{suffix}")
    assert stored.flow.shape == (40, 60, 2)
    assert numbers["mean_displacement"] == pytest.approx(np.hypot(*stored.flow.transpose(2, 0, 1)).mean(), abs=1e-3)
    for name in ("warped.png", "flow-picture.png", "sheet.png"):
        with Image.open(out / name) as picture:
            told = json.loads(picture.text["glunet"])
        assert told == stored.metadata
        assert told["weights"] == "untrained"
    with Image.open(out / "warped.png") as picture:
        assert picture.size == (60, 40)


def test_passes_and_pyramid_are_asked_for_and_told(run, pair, tmp_path):
    asked = ("--passes", 2, "--pyramid", "--enlarge-to", 300, "--no-plane")
    assert run("match", *pair, "--out", tmp_path / "out", *asked)[0] == 0
    settings = json.loads((tmp_path / "out" / "numbers.json").read_text())["settings"]
    assert (settings["passes"], settings["pyramid"], settings["enlarge_to"]) == (2, True, 300)
    assert "plane" not in settings, "off, as in the paper"
    code, _, errors = run("match", *pair, "--out", tmp_path / "none", "--passes", 0)
    assert code != 0
    assert "1 (as in the paper) or more" in errors
    assert not (tmp_path / "none").exists()


def test_a_page_alone_or_with_the_rest(run, pair, tmp_path):
    page, out = tmp_path / "view.html", tmp_path / "out"
    assert run("match", *pair, "--html", page) == (0, f"{page}\n", "")
    assert "source.png" in page.read_text(encoding="utf-8")
    code, printed, _ = run("match", *pair, "--html", page, "--out", out)
    assert code == 0
    assert printed.split() == [*sorted(str(path) for path in out.iterdir()), str(page)]


@pytest.mark.parametrize("words", [[], ["--html", "view.png"], ["--html", "view.html", "--points", "points.csv"]])
def test_where_the_results_go_is_said(run, pair, words):
    code, printed, errors = run("match", *pair, *words)
    assert (code, printed) == (2, "")
    assert "--html" in errors or "--out" in errors


def test_match_again_into_the_same_folder(run, pair, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("stays")
    for _ in range(2):
        assert run("match", *pair, "--out", out)[0] == 0
    assert len(list(out.iterdir())) == 8
    assert (out / "mine.txt").read_text() == "stays"


def test_points_are_looked_up(run, pair, tmp_path):
    points = tmp_path / "points.csv"
    points.write_text("x,y\n10,20\n59.5,39\n")
    out = tmp_path / "out"
    assert run("match", *pair, "--out", out, "--points", points)[0] == 0
    lines = (out / "matches.csv").read_text().splitlines()
    assert lines[0] == "x_target,y_target,x_source,y_source,confidence"
    assert [line.split(",")[:2] for line in lines[1:]] == [["10", "20"], ["59.5", "39"]]
    assert (out / "confidence.png").exists()
    points.write_text("10,20\n60,5\n")
    code, _, errors = run("match", *pair, "--out", tmp_path / "none", "--points", points)
    assert code == 2
    assert "(60, 5) is outside the target" in errors
    assert not (tmp_path / "none").exists()
    assert run("match", *pair, "--out", out, "--points", tmp_path / "no.csv")[0] == 2
    assert run("match", *pair, "--out", out, "--no-confidence", "--target-mask", pair[0])[0] == 2  # of another size


def test_measure_on_a_known_shift():
    random = np.random.default_rng(0)
    source = random.integers(0, 256, (40, 60, 3)).astype(np.uint8)
    flow = np.broadcast_to(np.array((3, 4), np.float32), (36, 57, 2)).copy()
    numbers = measure(Match(flow, (40, 60), Provenance("test")), source, source[4:, 3:])
    assert numbers["mean_displacement"] == numbers["max_displacement"] == 5
    assert numbers["in_view"] == 1
    assert numbers["photometric_difference"]["after"] == pytest.approx(0, abs=0.01)
    assert numbers["photometric_difference"]["before"] > 50
    away = measure(Match(flow + 1000, (40, 60), Provenance("test")), source, source[4:, 3:])
    assert away["photometric_difference"] == {"before": None, "after": None}


def test_info(run):
    code, printed, _ = run("info")
    assert code == 0
    assert f"glunet {__version__}" in printed
    assert "cpu" in printed
    assert "CC BY 4.0" in printed


@pytest.mark.parametrize("name", ["match", "eval", "info", "view"])
def test_help_has_an_example(run, name):
    code, printed, _ = run(name, "--help")
    assert code == 0
    assert f"Example: glunet {name}" in " ".join(printed.split())


@pytest.mark.parametrize("words", [["match", "a.png"], ["match", "--nothing"], ["nothing"]])
def test_wrong_usage(run, words):
    code, printed, errors = run(*words)
    assert code == 2
    assert printed == ""
    assert errors.startswith("glunet: ")
    assert errors.count("\n") == 1
    assert "Traceback" not in errors


def test_start_is_quick():
    """Neither help nor `import glunet` loads what is heavy; seconds are asserted with room for a busy machine."""
    code = "import sys, glunet, glunet.cli; print([m for m in ('torch', 'numpy', 'PIL', 'rich') if m in sys.modules])"
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout.strip() == "[]"
    began = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "glunet", "--help"], capture_output=True, text=True)
    assert time.perf_counter() - began < 5
    assert done.returncode == 0
    assert "match" in done.stdout


def test_lazy_names():
    code = """if True:
        import glunet
        from glunet.loading import weights as inner
        from glunet import GlunetError, Match, Matcher, load
        assert glunet.weights is inner and callable(glunet.load)
        assert set(glunet.__all__) <= set(dir(glunet))
        try:
            glunet.nothing
        except AttributeError as error:
            assert "nothing" in str(error)
        else:
            raise SystemExit("no AttributeError")
    """
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
