"""glunet bench: the plain twin agrees with the network, and the command says what it measured and what it did not."""

import itertools
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from benchmarks import performance
from torch.utils.flop_counter import FlopCounterMode

import golden
from glunet import cli, loading
from glunet.bench import floor, footprint, measure, rows, stages
from glunet.bench.timing import in_turns, ratios
from glunet.bench.twin import PlainTwin
from glunet.matcher import Matcher
from glunet.network.glunet import GLUNet, GLUNetConfig
from glunet.network.threelevel import ThreeLevelNet
from untrained import network

CPU = torch.device("cpu")
CONFIGS = [
    GLUNetConfig(),
    GLUNetConfig("residual", "residual", "bilinear"),
    GLUNetConfig("residual", "residual", "bilinear", adapter="all"),
    GLUNetConfig("residual", radius=2, mutual=False),
]


def moving(config: GLUNetConfig) -> GLUNet:
    """Random weights whose every level moves the flow."""
    torch.manual_seed(0)
    network = GLUNet(config).eval()
    for name, module in network.named_modules():
        if name.endswith(("predict_flow", "conv7")):
            torch.nn.init.normal_(module.weight, std=0.01)
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.8, 1.2)
    return network


def twin_of(network: GLUNet) -> PlainTwin:
    twin = PlainTwin(network.config)
    twin.load_state_dict(network.state_dict())
    return twin.eval()


# The twin


@pytest.mark.parametrize("config", CONFIGS)
@torch.inference_mode()
def test_the_twin_gives_the_flow_of_the_network(config: GLUNetConfig) -> None:
    network = moving(config)
    images = [torch.randn(1, 3, 264, 328) for _ in range(2)] + [torch.randn(1, 3, 256, 256) for _ in range(2)]
    flows = network(*images, extra_levels=2)
    plain = twin_of(network).flows(*images, extra_levels=2)
    for ours, its in zip([flows.flow4, flows.flow3, *flows.extra, flows.flow2, flows.flow1], plain, strict=True):
        assert its.std() > 0.1
        torch.testing.assert_close(ours, its, rtol=1e-4, atol=2e-3)


@torch.inference_mode()
def test_the_twin_takes_images_as_the_matcher_does() -> None:
    """Frames, resizing and units: at a size that is no frame."""
    pair = rows.make_pair(90, 301, CPU)
    made = Matcher(network(wide=True), "wide")
    ours, its = made.flow(pair.source, pair.target), twin_of(made.network)(pair.source, pair.target)
    assert its.shape == (1, 2, 90, 301)
    torch.testing.assert_close(ours, its, rtol=1e-4, atol=2e-3)


@torch.inference_mode()
def test_the_twin_gives_the_flow_of_the_public_implementation(tmp_path: Path) -> None:
    path = tmp_path / "official.pth"
    torch.save(golden.official_state("GLUNet"), path)
    twin = twin_of(loading.read_weights(path)[0])
    source, target = (torch.from_numpy(i.copy()).permute(2, 0, 1)[None] for i in golden.pair(240, 320))
    figures = golden.figures("DM_GLUNet", 240, 320)
    ((key, expected),) = ((k, v) for k, v in figures.items() if k.startswith("flow_s"))
    stride = int(key.rsplit("_s", 1)[1])
    got = twin(source, target).numpy()[..., ::stride, ::stride]
    np.testing.assert_allclose(got, expected, rtol=0, atol=2e-3)


# Its parts


def test_runs_take_turns_and_end_in_time() -> None:
    ticks = itertools.count()  # each look at the clock is a second later
    order: list[tuple[int, str]] = []
    runs = {name: lambda number, name=name: order.append((number, name)) for name in "ab"}
    taken = in_turns(runs, repeat=9, seconds=20, clock=lambda: float(next(ticks)))
    assert order[:4] == [(0, "a"), (0, "b"), (1, "b"), (1, "a")]
    assert 2 < len(taken["a"]) == len(taken["b"]) < 9
    assert next(ticks) <= 21
    assert len(in_turns(runs, repeat=9, seconds=0, fewest=2)["a"]) == 2
    assert ratios([2.0, 9.0], [1.0, 3.0]) == {"median": 2.5, "least": 2.0, "most": 3.0}


@pytest.mark.parametrize("kind", ["exact", "fast", "twin"])
def test_stages_are_shares_of_the_whole(kind: str) -> None:
    made = network(wide=True)
    timed = twin_of(made) if kind == "twin" else Matcher(made, "wide", speed=kind).computation.inference
    images = [torch.randn(1, 3, 256, 256)] * 4

    @torch.inference_mode()
    def run() -> None:
        timed.flows(*images) if kind == "twin" else timed(*images)

    before = dict(vars(timed))
    parts = stages.shares(run, timed, lambda: None)
    assert tuple(parts) == stages.STAGES
    assert sum(parts.values()) == pytest.approx(1)
    assert all(0 < share < 1 for share in parts.values())
    assert parts["encoder"] > 0.3
    assert vars(timed).keys() == before.keys()  # nothing is left behind
    assert not timed.encoder._forward_hooks


def test_stages_of_another_network_are_not_known() -> None:
    with torch.device("meta"):
        assert not stages.known(ThreeLevelNet())
    assert not stages.known(None)


@pytest.mark.parametrize("config", CONFIGS[:2])
def test_operations_are_those_that_torch_counts(config: GLUNetConfig) -> None:
    """Except for the correlations: the twin's local ones are products and sums that no counter sees."""
    with torch.device("meta"):
        twin = PlainTwin(config).eval()
        high, low = torch.empty(1, 3, 1088, 264), torch.empty(1, 3, 256, 256)
    with FlopCounterMode(display=False) as counter:
        twin.flows(high, high, low, low, extra_levels=1)
    counted = counter.get_flop_counts()["Global"]
    convolutions = sum(count for kind, count in counted.items() if "convolution" in str(kind))
    work = floor.operations(twin, 1088, 264)
    own = work["encoder"] + work["decoders"] + work["refinement"]
    if config.upsampling == "transposed":  # 2 to 2 channels, too little to be counted
        own += 2 * 4 * 4 * 2 * 2 * (16 * 16 + 136 * 33)
    assert own == pytest.approx(convolutions, rel=1e-9)
    assert work["correlations"] == 2 * 512 * 16**4 + 2 * 81 * (256 * (1024 + 136 * 33 + 68 * 16) + 128 * 272 * 66)


def test_an_equal_frame_counts_once() -> None:
    with torch.device("meta"):
        twin = PlainTwin(CONFIGS[0])
    small, larger = (floor.operations(twin, side, side)["encoder"] for side in (256, 264))
    assert small < 0.6 * larger


def test_rates_have_all_kinds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(floor, "CHANNELS", ((64, 32), (128, 16)))  # bfloat16 takes a minute where it is emulated
    rates = floor.convolution_rates(CPU, rounds=1)
    assert [(r["dtype"], r["layout"]) for r in rates[:2]] == [("float32", "NCHW"), ("float32", "channels_last")]
    assert all(1e8 < rate["rate"] < 1e15 for rate in rates)


def test_a_process_knows_its_peak() -> None:
    before = footprint.peak_bytes()
    if before is None:
        pytest.skip("this system does not tell")
    held = torch.ones(before, dtype=torch.uint8)  # more than any test before has left free
    after = footprint.peak_bytes()
    assert before < after
    assert after > held.numel()


# The command


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """`run(...)` -> exit code, stdout, stderr of `glunet bench ...` in an empty folder."""
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.chdir(tmp_path)

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glunet", "bench", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def quick(monkeypatch):
    """Without the seconds that the rate takes."""
    fake = [{"dtype": "float32", "layout": "NCHW", "rate": 1e11}, {"dtype": "bfloat16", "layout": "NCHW", "rate": 2e11}]
    monkeypatch.setattr(floor, "convolution_rates", lambda device: fake)


def test_figures_as_json_and_as_a_page(run, quick, monkeypatch) -> None:
    monkeypatch.setattr(measure, "STARTS", 1)
    words = ("--sizes", "40x64", "--rows", "exact,twin", "--repeat", 2, "--batch", 2, "--seconds", 90, "--json", "-")
    code, printed, _ = run(*words)
    assert code == 0
    result = json.loads(printed)
    assert {
        "glunet",
        "date",
        "machine",
        "settings",
        "rates",
        "sizes",
        "start_up",
        "left_out",
        "command",
    } <= result.keys()
    assert result["machine"]["threads"]["torch"] == torch.get_num_threads()
    (size,) = result["sizes"]
    assert (size["height"], size["width"]) == (40, 64)
    lines = {line["row"]: line for line in size["rows"]}
    assert list(lines) == ["exact", "twin"]
    for line in lines.values():
        seconds = line["seconds"]
        assert len(seconds["all"]) == 2  # two rounds at least
        assert 0 < seconds["least"] <= seconds["median"] <= seconds["most"]
        if sys.platform == "linux":
            assert line["memory"] > 1_000_000
    pairs = zip(lines["twin"]["seconds"]["all"], lines["exact"]["seconds"]["all"], strict=True)
    assert lines["exact"]["times_as_fast"]["most"] == max(twin / exact for twin, exact in pairs)
    assert lines["exact"]["pairs_per_second"]["median"] > 0
    assert sum(lines["exact"]["stages"].values()) == pytest.approx(1)
    work = sum(size["floor"]["operations"].values())
    assert size["floor"]["seconds"] == {"float32": work / 1e11, "any": work / 2e11}
    assert lines["twin"]["times_floor"]["float32"] == pytest.approx(lines["twin"]["seconds"]["median"] * 1e11 / work)
    starts = {line["row"]: line for line in result["start_up"]["rows"]}
    assert starts["exact"]["starts"] == 1
    assert starts["exact"]["load_and_first"]["median"] >= starts["exact"]["first"]["least"]
    Path("bench.json").write_text(printed)
    monkeypatch.setattr(sys, "argv", ["performance", "bench.json", "p.md", "--note", "On a train."])
    performance.main()
    written = Path("p.md").read_text()
    assert written.startswith("# Performance\n\nWritten by `glunet bench --sizes 40x64")
    for heading in ("Seconds a pair", "Times as fast", "Pairs a second", "Peak memory", "Start-up", "floor", "Where"):
        assert f"## {heading}" in written or heading in written
    assert written.count("On a train.") == 1


def test_what_cannot_be_had_is_named(run, quick, monkeypatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision.models.optical_flow", None)
    words = ("--sizes", "32x32", "--rows", "exact,dis,raft-small", "--repeat", 1, "--batch", 0, "--no-memory")
    code, printed, _ = run(*words)
    assert code == 0
    assert "glunet, exact" in printed
    assert "left out: raft-small: it needs torchvision" in printed


def test_what_takes_too_long_is_left_out(run, quick) -> None:
    words = (
        "--sizes",
        "32x32,4000x4000",
        "--rows",
        "exact",
        "--repeat",
        1,
        "--seconds",
        0.5,
        "--batch",
        0,
        "--no-memory",
        "--json",
        "-",
    )
    code, printed, _ = run(*words)
    assert code == 0
    result = json.loads(printed)
    assert [len(size["rows"]) for size in result["sizes"]] == [1, 0]
    assert [item["size"] for item in result["left_out"]] == ["4000x4000"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--sizes", "520"), "The size '520' is not understood"),
        (("--sizes", "0x520"), "The size '0x520' is out of range"),
        (("--sizes", "-5x520"), "The size '-5x520' is not understood"),
        (("--sizes", "520x99999"), "32 to 8192 pixels"),
        (("--sizes", ","), "No size was given"),
        (("--rows", "raft"), "There is no row 'raft'"),
        (("--weights", "nothing"), "Weights 'nothing'"),
        (("--device", "abacus"), "Device 'abacus' cannot be used"),
        (("--json", "missing/p.json"), "missing"),
    ],
)
def test_a_mistake_is_one_sentence(run, words, said) -> None:
    code, printed, told = run(*words)
    assert code == 2
    assert said in told
    assert len(told.strip().splitlines()) == 1
    assert not printed
