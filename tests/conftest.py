"""What several test files use: the command as a user types it, and folders of small pictures."""

import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from PIL import Image

from glunet import cli, loading
from narrow import narrow_network

# How long an example takes says more about the machine than about the code.
settings.register_profile("shared machines", deadline=None)
settings.load_profile("shared machines")

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Networks that are made or read here are narrow: for what takes long and does not depend on it."""
    narrow_network(monkeypatch.setattr)


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """`command("match", ...)` -> exit code, stdout, stderr of `glunet match ...`."""

    def call(*words: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["glunet", *map(str, words)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        return (end.value.code or 0, *capsys.readouterr())

    return call


@pytest.fixture
def command_with(command: Command, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, object], Command]:
    """`command_with("video", matcher)` -> `glunet video`, with this in place of what it would load."""

    def made(name: str, matcher: object) -> Command:
        monkeypatch.setattr(loading, "load", lambda weights, device, **settings: matcher)
        return partial(command, name)

    return made


@pytest.fixture
def smooth_pictures(tmp_path: Path) -> Callable[[int], Path]:
    """`smooth_pictures(9)` -> a folder with nine, 160 x 120."""

    def make(count: int) -> Path:
        folder = tmp_path / "photos"
        folder.mkdir()
        random = np.random.default_rng(0)
        for number in range(count):
            small = Image.fromarray(random.integers(0, 255, (9, 12, 3), np.uint8))
            small.resize((160, 120), Image.Resampling.BICUBIC).save(folder / f"{number}.png")
        return folder

    return make
