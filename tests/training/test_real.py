"""Real sets beside a training run: which they are, what they say, and how much of the time they may take."""

import numpy as np
import pytest

from glunet.errors import GlunetError
from glunet.training import real
from glunet.training.real import RealSet, RealSets, open_real
from made_up import dataset, pair
from places import SHARED
from untrained import matcher


def test_figures_of_the_last_level_and_of_level_4():
    made = RealSet(dataset([pair("a", [3.0], size=(60, 80)), pair("b", [4.0], size=(64, 48))]))
    figures = made(matcher().network)
    assert set(figures) == {f"made-up {m}" for m in ("aepe", "pck1", "fl", "pck_0.05")} | {"made-up aepe level 4"}
    assert np.isfinite(list(figures.values())).all()
    assert figures["made-up aepe"] != figures["made-up aepe level 4"]


def test_they_take_a_twentieth_of_the_time(monkeypatch):
    clock = iter(range(0, 10_000, 10))  # each measurement takes ten seconds
    monkeypatch.setattr(real.time, "monotonic", lambda: next(clock))
    sets = RealSets([lambda network, bfloat16: {"set aepe": 1.0}])  # type: ignore[list-item]
    measured = [bool(sets(None, False, elapsed, last=False)) for elapsed in range(60, 1260, 60)]  # type: ignore[arg-type]
    assert measured[0], "the first checkpoint is measured"
    assert sets.seconds == 10 * sum(measured)
    assert sets.seconds <= real.SHARE * 1200 + 10
    assert not measured[1]
    assert sets(None, False, 61, last=True) == {"set aepe": 1.0}  # type: ignore[arg-type]


def test_all_sets_below_a_folder_and_some_pairs_of_each():
    devset = SHARED / "devset"
    if not devset.is_dir():
        pytest.skip("no development set here")
    sets = open_real(f"all:3={devset}")
    assert {"hpatches-240", "tss", "hard"} <= {one.dataset.benchmark.name for one in sets}
    assert {one.pairs for one in sets} == {3}
    (one,) = open_real(f"middlebury={devset}")
    assert one.pairs == real.PAIRS


@pytest.mark.parametrize("text", ["hpatches-240", "hpatches-240=", "hpatches-240:0=x", "hpatches-240:many=x"])
def test_what_is_no_set_is_said(text):
    with pytest.raises(GlunetError, match="names no set"):
        open_real(text)


def test_an_unknown_set_gets_the_list():
    with pytest.raises(GlunetError, match=r"there are all, .*hpatches-240"):
        open_real("mars=x")
