"""The command line as a whole: its version, and how it ends when it is told to."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from glunet import __version__

SLOW = """
import sys, time
from glunet import loading
import glunet.matcher
from glunet import cli

class Slow:
    def __getattr__(self, name):
        print("matching", flush=True)
        time.sleep(60)

loading.load = lambda *words, **settings: Slow()
sys.argv = ["glunet", *sys.argv[1:]]
cli.main()
"""


def test_the_version_is_told():
    done = subprocess.run([sys.executable, "-m", "glunet", "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == f"glunet {__version__}"


@pytest.mark.skipif(os.name != "posix", reason="signals are told otherwise")
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_a_command_that_is_ended_leaves_nothing_half_written(tmp_path: Path, how: signal.Signals):
    for name in ("a.png", "b.png"):
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / name)
    words = ("match", "a.png", "b.png", "--out", "out")
    run = subprocess.Popen([sys.executable, "-c", SLOW, *words], cwd=tmp_path, stdout=subprocess.PIPE, text=True)
    try:
        assert run.stdout is not None
        assert run.stdout.readline().strip() == "matching"
        assert any((tmp_path / "out").iterdir()), "it writes beside, first"
        run.send_signal(how)
        began = time.monotonic()
        run.wait(timeout=20)
    finally:
        run.kill()
        run.stdout.close()
    assert run.returncode != 0
    assert time.monotonic() - began < 20
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "b.png"]


def test_a_match_never_overwrites_its_images(tmp_path: Path):
    for name in ("warped.png", "b.png"):
        Image.fromarray(np.zeros((40, 50, 3), np.uint8)).save(tmp_path / name)
    words = [sys.executable, "-m", "glunet", "match", "warped.png", "b.png", "--out", "."]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "would overwrite 'warped.png'" in done.stderr
    assert len(list(tmp_path.iterdir())) == 2
