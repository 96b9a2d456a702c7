"""The loop: it learns, it resumes exactly, it keeps what it has."""

import dataclasses
import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import torch

from glunet.errors import GlunetError
from glunet.loading import encoder_state, read_weights
from glunet.network.glunet import GLUNetConfig
from glunet.training.estimate import seconds_a_view, views_first
from glunet.training.loop import compile_decoders, schedule, train
from glunet.training.loss import descriptor_loss, level_error, loss
from glunet.training.recipes import RECIPES, Settings, Stage
from glunet.training.scenes import SceneParameters, Truth
from glunet.training.state import read_state, write_state
from narrow import Noise

pytestmark = pytest.mark.usefixtures("narrow")
STAGES = (
    Stage("global", 0.4, (4,), batch=2, refresh=0.3),
    Stage("all", 0.7, (4, 3, 2, 1), batch=2, refresh=0.3, coarse=2),
    Stage(
        "large", 1.0, (4, 3, 2, 1), batch=2, refresh=0.3, frames=((256, 264),), extra=0.5, robust=True, detach=True,
        passes=2,
    ),
)  # fmt: skip
SETTINGS = Settings(
    steps=10, stages=STAGES, warmup=2, validation_pairs=4, pool_memory=1, bf16=False, every=1e9, norm_batches=2,
    scenes=dataclasses.replace(SceneParameters(), objects=1),
)  # fmt: skip


class Stopped(Exception):
    pass


def test_a_killed_run_goes_on_with_the_same_losses(tmp_path: Path) -> None:
    """Killed after the checkpoint of step 4, and again in the last stage."""
    lines: list[dict] = []
    numbers = train(Noise(), Noise(4), tmp_path / "whole", SETTINGS, report=lines.append)
    assert numbers["aepe1"] > 0

    class Clock:
        """Checkpoints after every step; stops after some."""

        def __init__(self, steps: int) -> None:
            self.steps = steps

        def __call__(self, line: dict) -> None:
            if "aepe4" in line and line["step"] >= self.steps:
                raise Stopped

    often = dataclasses.replace(SETTINGS, every=0.0)
    for steps in (4, 8):
        with pytest.raises(Stopped):
            train(Noise(), Noise(4), tmp_path / "parts", often, report=Clock(steps))
    again = train(Noise(), Noise(4), tmp_path / "parts", SETTINGS)
    assert again == numbers
    whole, parts = (torch.load(tmp_path / name / "state.pt", weights_only=True) for name in ("whole", "parts"))
    assert whole["step"] == parts["step"] == 10
    for key, value in whole["network"].items():
        assert torch.equal(value, parts["network"][key]), key
    assert not list((tmp_path / "parts").glob(".part*"))
    network, metadata = read_weights(tmp_path / "whole" / "weights.safetensors")
    assert network.config == GLUNetConfig("residual", "residual", "bilinear")
    assert metadata["training"]["steps"] == 10
    assert metadata["validation"]["aepe1"] == pytest.approx(numbers["aepe1"], abs=1e-3)
    assert (tmp_path / "whole" / "weights.safetensors").stat().st_size < 8e6, "the encoder is not in it"
    json.dumps(metadata)


def test_it_learns_the_global_level(tmp_path: Path) -> None:
    stages = (Stage("global", 1.0, (4,), batch=8, refresh=0.0),)
    calm = dataclasses.replace(SceneParameters(), objects=0, shares=(0, 1, 0, 0), any_angle=0)
    settings = dataclasses.replace(SETTINGS, steps=60, stages=stages, warmup=5, scenes=calm)
    errors: list[float] = []

    def report(line: dict) -> None:
        errors.extend([line["error"]] if "error" in line else [])

    train(Noise(), Noise(4), tmp_path, settings, report=report)
    assert len(errors) == 3
    assert errors[-1] < 0.6 * errors[0]


def test_a_level_that_is_held_stays_as_it_is(tmp_path: Path) -> None:
    """The others learn around it, in several passes, with what BatchNorm knows already."""
    start = dataclasses.replace(SETTINGS, steps=1, stages=(Stage("all", 1.0, (4, 3, 2, 1), batch=2, refresh=0.3),))
    train(Noise(), Noise(4), tmp_path / "start", start)
    stages = (Stage("frozen", 1.0, (4, 3, 2, 1), batch=2, refresh=0.3, coarse=2, detach=True, frozen=(4,), passes=2),)
    init = tmp_path / "start" / "weights.safetensors"
    train(
        Noise(),
        Noise(4),
        tmp_path / "frozen",
        dataclasses.replace(start, steps=3, stages=stages, freeze_norms=True),
        init=init,
    )
    before, after = (
        read_weights(tmp_path / run / "weights.safetensors")[0].state_dict() for run in ("start", "frozen")
    )
    changed = {name.split(".")[0] for name, value in after.items() if not torch.equal(value, before[name])}
    assert changed >= {"decoder3", "refinement3", "decoder2", "decoder1", "refinement1"}
    assert "decoder4" not in changed
    wrong = (dataclasses.replace(stages[0], detach=False),)
    with pytest.raises(GlunetError, match="detach"):
        train(Noise(), Noise(4), tmp_path / "wrong", dataclasses.replace(start, stages=wrong))


def test_an_encoder_that_learns_is_saved_with_the_weights(tmp_path: Path) -> None:
    stages = (dataclasses.replace(STAGES[0], until=1.0),)
    train(Noise(), Noise(4), tmp_path, dataclasses.replace(SETTINGS, steps=2, stages=stages, encoder_lr=1e-3))
    network, metadata = read_weights(tmp_path / "weights.safetensors")
    assert "encoder" not in metadata
    learned, given = network.state_dict(), encoder_state()
    assert any(not torch.allclose(learned[key], value, atol=1e-3) for key, value in given.items())


def test_a_gradient_that_is_not_finite_is_skipped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from glunet.training import loop

    real, calls = loop.step_loss, []

    def sometimes(*args: object) -> tuple[torch.Tensor, float]:
        value, error = real(*args)  # type: ignore[arg-type]
        calls.append(1)
        return (value * float("nan"), error) if len(calls) == 2 else (value, error)

    monkeypatch.setattr(loop, "step_loss", sometimes)
    stages = (dataclasses.replace(STAGES[0], until=1.0),)
    train(Noise(), Noise(4), tmp_path, dataclasses.replace(SETTINGS, steps=4, stages=stages))
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert all(value.isfinite().all() for value in state["network"].values() if value.is_floating_point())
    assert len(calls) == 4


def test_a_hopeless_run_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from glunet.training import loop

    real = loop.step_loss
    monkeypatch.setattr(loop, "HOPELESS", 3)
    monkeypatch.setattr(loop, "step_loss", lambda *args: (real(*args)[0] * float("inf"), 0.0))
    with pytest.raises(GlunetError, match="last 3 steps were not finite"):
        train(Noise(), Noise(4), tmp_path, dataclasses.replace(ONE, steps=9))


def test_decoders_are_compiled_on_cuda_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    compiled: list[torch.nn.Module] = []
    monkeypatch.setattr(torch.nn.Module, "compile", lambda module, *args: compiled.append(module))
    assert not Settings().compile
    train(Noise(), Noise(4), tmp_path, dataclasses.replace(ONE, steps=1, compile=True))
    assert not compiled
    network = read_weights(tmp_path / "weights.safetensors")[0]
    assert compile_decoders(network, torch.device("cuda"))
    assert compiled == [network.decoder4, network.decoder3, network.decoder2, network.decoder1]


def test_a_folder_of_another_network_is_refused(tmp_path: Path) -> None:
    settings = dataclasses.replace(SETTINGS, steps=1, stages=(dataclasses.replace(STAGES[0], until=1.0),))
    train(Noise(), Noise(4), tmp_path, settings)
    before = (tmp_path / "state.pt").read_bytes()
    with pytest.raises(GlunetError, match="another network"):
        train(Noise(), Noise(4), tmp_path, dataclasses.replace(settings, config=GLUNetConfig()))
    assert (tmp_path / "state.pt").read_bytes() == before
    with pytest.raises(GlunetError, match="either by minutes or by steps"):
        train(Noise(), Noise(4), tmp_path, dataclasses.replace(settings, minutes=1))


ONE = dataclasses.replace(SETTINGS, steps=2, stages=(dataclasses.replace(STAGES[0], until=1.0),))


def test_a_stop_request_saves_before_all_else(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """SIGTERM in the second of four steps; killed at last while it validates, it goes on at the third."""
    from glunet.training import loop

    whole = train(Noise(), Noise(4), tmp_path / "whole", dataclasses.replace(ONE, steps=4))
    real, calls = loop.step_loss, []

    def asked(*args: object) -> tuple[torch.Tensor, float]:
        calls.append(1)
        if len(calls) == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args)  # type: ignore[arg-type]

    def killed(*args: object) -> None:
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(loop, "step_loss", asked)
        patch.setattr(loop, "estimate_statistics", killed)
        with pytest.raises(Stopped):
            train(Noise(), Noise(4), tmp_path / "parts", dataclasses.replace(ONE, steps=4))
    assert len(calls) == 2
    state = read_state(tmp_path / "parts" / "state.pt")
    assert state is not None
    assert state["step"] == 2
    assert train(Noise(), Noise(4), tmp_path / "parts", dataclasses.replace(ONE, steps=4)) == whole


def test_a_finished_run_is_left_as_it_is(tmp_path: Path) -> None:
    numbers = train(Noise(), Noise(4), tmp_path, ONE)
    weights = tmp_path / "weights.safetensors"
    before = weights.stat().st_mtime_ns
    assert train(Noise(), Noise(4), tmp_path, ONE) == pytest.approx(numbers, abs=1e-4)
    assert weights.stat().st_mtime_ns == before
    # Killed between its last state and its weights, it makes them anew.
    weights.unlink()
    (tmp_path / ".part-1234abcd-weights.safetensors").write_bytes(b"half")
    assert train(Noise(), Noise(4), tmp_path, ONE) == numbers
    assert read_weights(weights)[1]["training"]["steps"] == 2
    assert sorted(p.name for p in tmp_path.iterdir()) == ["state.pt", "weights.safetensors"]


def test_a_full_disk_is_said_and_leaves_the_checkpoint(tmp_path: Path) -> None:
    path = tmp_path / "state.pt"
    write_state(path, {"step": 1})
    resource = pytest.importorskip("resource")
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(GlunetError, match=r"is the disk full.*The last checkpoint is whole; make room"):
            write_state(path, {"step": 2, "network": torch.zeros(100_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("content", [b"", b"no state", b"PK"])
def test_a_damaged_state_is_said(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.pt").write_bytes(content)
    with pytest.raises(GlunetError, match="or damaged; pass a new folder as --out, or remove it"):
        train(Noise(), Noise(4), tmp_path, ONE)


def test_the_first_step_is_announced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many views as are then made, of a new run and of one that goes on."""
    from glunet.training import pool

    made: list[int] = []

    def make_views(*args: Any, **options: Any) -> Any:
        made.append(args[1] * args[2])
        return real(*args, **options)

    real = pool.make_views
    monkeypatch.setattr(pool, "make_views", make_views)
    settings = dataclasses.replace(
        ONE, steps=1, pool_memory=1 << 27, stages=(dataclasses.replace(ONE.stages[0], refresh=2.0),)
    )
    announced = views_first(settings)
    train(Noise(), Noise(4), tmp_path, settings)
    assert announced == sum(made) - 16, "but for the scenes that the step itself adds"
    made.clear()
    settings = dataclasses.replace(settings, steps=2)
    state = read_state(tmp_path / "state.pt")
    assert state is not None
    announced = views_first(settings, state)
    train(Noise(), Noise(4), tmp_path, settings)
    assert announced == sum(made) - 32
    assert state["bf16"] is False
    assert seconds_a_view(Noise(), settings, torch.device("cpu")) > 0


def test_schedule_warms_up_and_decays() -> None:
    settings = Settings(steps=1000, warmup=50)
    values = [schedule(step, step / 1000, settings) for step in range(1000)]
    assert values[0] == pytest.approx(1 / 50)
    assert max(values) == values[49]
    assert values[-1] == pytest.approx(settings.lr_end / settings.lr, rel=0.05)
    for recipe in RECIPES.values():
        assert [s.until for s in recipe.stages] == sorted(s.until for s in recipe.stages)
        assert recipe.stages[-1].until == 1.0


def test_loss_by_hand() -> None:
    flow = torch.zeros(1, 2, 1, 4)
    true = Truth(
        flow=torch.tensor([[[[3.0, 0.0, 3.0, 0.0]], [[4.0, 0.0, 4.0, 1.0]]]]),
        in_view=torch.tensor([[[True, True, True, False]]]),
        visible=torch.tensor([[[True, True, False, False]]]),
    )
    # Errors 5, 0, 5 (covered: 0.3), 1 (out of view: 0.1).
    assert level_error(flow, true).item() == pytest.approx((5 + 0 + 1.5 + 0.1) / 2.4, abs=1e-3)
    robust = (2 * 5.01**0.5 + 2 * 0.011**0.5 + 0.6 * 5.01**0.5 + 0.2 * 1.01**0.5) / 2.4
    assert level_error(flow, true, robust=True).item() == pytest.approx(robust, abs=1e-3)
    assert loss([flow] * 5, [true] * 5).item() == pytest.approx(5.5 * 6.6 / 2.4, abs=1e-2)


def test_descriptor_loss_by_hand() -> None:
    """Certain of the right position, it is zero; of the position beside it, large; between two, each counts half."""
    right = torch.full((1, 16, 4, 4), -50.0)
    right[0, torch.arange(16), torch.arange(16) // 4, torch.arange(16) % 4] = 50.0  # each position stays where it is
    seen = torch.ones(1, 4, 4, dtype=torch.bool)

    def at(x: float, visible: torch.Tensor = seen) -> float:
        flow = torch.tensor((x, 0.0)).view(1, 2, 1, 1).expand(1, 2, 4, 4)
        return float(descriptor_loss(right, Truth(flow, seen, visible)))

    assert at(0) == pytest.approx(0, abs=1e-4)
    assert at(64) == pytest.approx(200, rel=1e-3)  # a cell of 64 px of 256: 100 each way
    assert at(32) == pytest.approx(100, rel=1e-3)
    assert at(64, ~seen) == 0, "nothing is to be learned where nothing is visible"


def test_a_run_does_not_go_on_with_other_photographs(tmp_path: Path) -> None:
    class Others(Noise):
        def fingerprint(self) -> str:
            return "others"

    settings = dataclasses.replace(SETTINGS, steps=1)
    train(Noise(), Noise(4), tmp_path, settings)
    with pytest.raises(GlunetError, match="other photographs"):
        train(Others(), Noise(4), tmp_path, dataclasses.replace(SETTINGS, steps=2))


def test_few_steps_from_weights_that_exist_stay_small() -> None:
    """Warm-up is not cut short: a step or two at the peak rate make good weights worse."""
    few = dataclasses.replace(RECIPES["finetune"], minutes=None, steps=3)
    assert max(schedule(step, step / 3, few) for step in range(3)) <= 0.03
    fresh = dataclasses.replace(RECIPES["full"], minutes=None, steps=30)
    assert max(schedule(step, step / 30, fresh) for step in range(30)) > 0.5


def test_a_rate_below_the_end_does_not_rise() -> None:
    low = dataclasses.replace(SETTINGS, lr=1e-6, steps=100)
    rates = [low.lr * schedule(step, step / 100, low) for step in range(100)]
    assert max(rates) <= 1e-6
