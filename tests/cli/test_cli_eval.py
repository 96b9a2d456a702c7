"""glunet eval: what it writes, what it says, and how it ends."""

import importlib.util
import json
import sys
from pathlib import Path

import pytest

import layouts
from glunet import cli, loading
from glunet.evaluation import BENCHMARKS
from places import ROOT
from untrained import matcher


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """`run(...)` -> exit code, stdout, stderr of `glunet eval ...`, with an untrained network, in an empty folder."""
    monkeypatch.setattr(
        loading, "load", lambda name, device=None, flipping=False, **settings: matcher(flipping=flipping)
    )
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glunet", "eval", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def sets(tmp_path) -> Path:
    layouts.middlebury(tmp_path / "sets" / "middlebury")
    layouts.tss(tmp_path / "sets" / "TSS_CVPR2016")
    return tmp_path / "sets"


def test_one_set_beside_what_one_would_use_instead(run, sets):
    code, printed, _ = run("middlebury", sets / "middlebury", "--out", "out")
    assert code == 0
    for word in ("glunet", "DIS", "SIFT + MAGSAC", "no motion", "AEPE px", "1 of 8 sequences: not comparable"):
        assert word in printed
    results = json.loads(Path("out/results.json").read_text())["results"]
    assert [r["method"] for r in results] == ["glunet", "network", "DIS", "SIFT + MAGSAC", "no motion"]
    # Everything moves by (-6.5, 3.25).
    assert results[4]["headline"]["value"] == pytest.approx((6.5**2 + 3.25**2) ** 0.5)
    assert results[3]["part"] == "1 of 8 sequences: not comparable with published figures"
    assert "| no motion | 7.27 |" in Path("out/results.md").read_text()
    assert list(Path("out/predictions").rglob("*.npy"))


def test_a_second_run_takes_what_is_kept(run, sets):
    run("middlebury", sets / "middlebury", "--method", "glunet")
    assert "cached" in run("middlebury", sets / "middlebury", "--method", "glunet")[1]
    assert "cached" not in run("middlebury", sets / "middlebury", "--method", "glunet", "--no-cache")[1]


def test_all_sets_in_one_table(run, sets):
    code, printed, _ = run("all", sets, "--method", "glunet", "--method", "identity", "--limit", 1, "--page", "page.md")
    assert code == 0
    assert "one network: weights abababababab" in printed
    page = Path("page.md").read_text()
    assert "Written by `glunet eval all ROOT`" in page
    for title in ("Motorcycle (stereo), AEPE px", "Middlebury flow, AEPE px", "TSS, PCK@0.05 %"):
        assert f"| {title} |" in page


def test_mirrored_targets_are_tried_where_the_protocol_does(run, sets):
    def identity(*words: str) -> str:
        run("tss", sets / "TSS_CVPR2016", "--method", "glunet", "--no-cache", "--limit", 1, *words)
        return json.loads(Path("glunet-eval/results.json").read_text())["results"][0]["identity"]

    assert "flipping" in identity()
    assert "flipping" in identity("--flipping")
    assert "flipping" not in identity("--no-flipping")


def test_pictures_of_the_worst(run, sets):
    code, printed, _ = run("tss", sets / "TSS_CVPR2016", "--method", "identity", "--worst", 2)
    assert code == 0
    pictures = sorted(Path("glunet-eval/worst").glob("*.png"))
    assert len(pictures) == 2
    assert all(str(path) in printed for path in pictures)


def test_check_passes_and_fails(run, sets, monkeypatch, tmp_path):
    from glunet.evaluation import expected

    words = ("middlebury", sets / "middlebury", "--method", "identity")
    assert run(*words, "--record", "figures.json")[0] == 0
    monkeypatch.setattr(expected, "committed", lambda: tmp_path / "figures.json")
    code, printed, _ = run(*words, "--check")
    assert code == 0
    assert "check: 1 of 1 results agree" in printed
    Path("figures.json").write_text(Path("figures.json").read_text().replace('"aepe": 7.2', '"aepe": 8.2'))
    code, printed, _ = run(*words, "--check")
    assert code == 1
    assert "DRIFT: middlebury, no motion: AEPE px is 7.27, expected 8.27." in printed
    code, _, errors = run("middlebury", sets / "middlebury", "--method", "dis", "--check")
    assert code == 2
    assert "nothing to check" in errors


def test_list_says_where_to_get_each(run):
    code, printed, _ = run("--list")
    assert code == 0
    said = " ".join(printed.split())
    for benchmark in BENCHMARKS.values():
        for what in (benchmark.name, benchmark.origin, benchmark.licence, benchmark.layout):
            assert " ".join(what.split()) in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "no evaluation set named"),
        (("kitty", "."), "no evaluation set 'kitty'"),
        (("tss",), "tss needs the folder it lies in"),
        (("tss", "nowhere"), "nowhere: no such folder"),
        (("tss", "."), "no pairs of tss found; expected ROOT/{FG3DCar,JODS,PASCAL}"),
        (("all",), "'all' needs the folder"),
        (("motorcycle", "--method", "raff"), "no method 'raff'"),
    ],
)
def test_mistakes_are_one_sentence(run, words, said):
    code, printed, errors = run(*words)
    assert code == 2
    assert said in errors
    assert errors.count("\n") == 1
    assert "Traceback" not in printed + errors
    assert not Path("glunet-eval").exists()


def test_a_set_that_is_there_but_broken_is_told_at_the_end(run, sets):
    (sets / "middlebury/other-gt-flow/Venus/flow10.flo").unlink()
    code, printed, errors = run("all", sets, "--method", "identity")
    assert code == 2
    assert "Middlebury flow was not measured" in errors
    assert "TSS, PCK@0.05 %" in printed
    assert "Middlebury flow was not measured" in Path("glunet-eval/results.md").read_text()


def test_the_worked_example_of_one_s_own_pairs(run, tmp_path):
    pytest.importorskip("skimage")
    path = ROOT / "docs" / "examples" / "pairs" / "make.py"
    spec = importlib.util.spec_from_file_location("make", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.make(tmp_path / "mine")
    code, printed, _ = run("pairs", tmp_path / "mine", "--method", "dis", "--method", "sift")
    assert code == 0
    for group in ("planar", "stereo", "cut"):
        assert group in printed
    dis, sift = json.loads(Path("glunet-eval/results.json").read_text())["results"]
    # One homography is right for the plane; the same pair of truths as the built-in set; nothing moves in the third.
    assert sift["figures"]["planar"]["aepe"] < 0.5
    assert dis["figures"]["stereo"]["aepe"] == pytest.approx(2.63, abs=0.1)
    assert sift["figures"]["cut"]["aepe"] < 0.5
