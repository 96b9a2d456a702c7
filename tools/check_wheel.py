"""Try an installed wheel as a stranger would: its contents, its commands, and one match with the weights inside.

Usage, in an empty environment into which the wheel was installed, from a folder outside the tree:
    python -I check_wheel.py glunet-*.whl
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import zipfile
from pathlib import Path

import numpy as np
from PIL import Image

SHIFT_X, SHIFT_Y = 24, -14


def check_contents(wheel: Path) -> None:
    """Everything a user needs is inside, and nothing else: no tests, no pictures."""
    names = zipfile.ZipFile(wheel).namelist()
    needed = {
        "py.typed": any(n == "glunet/py.typed" for n in names),
        "weights": any(n.startswith("glunet/weights/") and n.endswith(".safetensors") for n in names),
        "the page": {f"glunet/images/page.{kind}" for kind in ("html", "css", "js")} <= set(names),
        "LICENSE": any(n.endswith("/LICENSE") for n in names),
        "NOTICE": any(n.endswith("/NOTICE") for n in names),
    }
    missing = [name for name, present in needed.items() if not present]
    assert not missing, f"the wheel lacks {missing}"
    allowed = (".py", ".typed", ".safetensors", ".json", ".html", ".css", ".js")
    strangers = [n for n in names if not (n.startswith("glunet/") and n.endswith(allowed)) and ".dist-info/" not in n]
    assert not strangers, f"the wheel carries {strangers}"
    megabytes = wheel.stat().st_size / 1e6
    print(f"{wheel.name}: {len(names)} files, {megabytes:.1f} MB")


def make_pictures(folder: Path) -> tuple[Path, Path]:
    """Two views of one invented scene, cut from it so that the flow is (SHIFT_X, SHIFT_Y) everywhere."""
    rng = np.random.default_rng(0)
    scene = np.zeros((400, 480, 3), np.float32)
    for cells, strength in ((6, 60.0), (20, 40.0), (80, 25.0)):
        coarse = Image.fromarray(rng.integers(0, 256, (cells, cells, 3), dtype=np.uint8))
        scene += strength / 128 * (np.asarray(coarse.resize((480, 400), Image.Resampling.BICUBIC), np.float32) - 128)
    scene = np.clip(scene + 128, 0, 255).astype(np.uint8)
    target, source = folder / "target.png", folder / "source.png"
    Image.fromarray(scene[40:360, 40:440]).save(target)
    Image.fromarray(scene[40 - SHIFT_Y : 360 - SHIFT_Y, 40 - SHIFT_X : 440 - SHIFT_X]).save(source)
    return source, target


def glunet(*arguments: object) -> None:
    """The command, as installed beside this Python."""
    command = [str(Path(sys.executable).parent / "glunet"), *map(str, arguments)]
    start = time.perf_counter()
    done = subprocess.run(command, capture_output=True, text=True)
    print(f"glunet {arguments[0]}: {time.perf_counter() - start:.2f} s, exit code {done.returncode}")
    assert done.returncode == 0, done.stdout + done.stderr


def main() -> None:
    check_contents(Path(sys.argv[1]))

    import glunet as package

    installed = Path(package.__file__)
    assert installed.is_relative_to(sys.prefix), f"glunet comes from {installed}, not from the wheel"
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source, target = make_pictures(folder)
        glunet("--help")
        glunet("info")
        glunet("match", source, target, "--out", folder / "out", "--html", folder / "view.html")
        print("written:", ", ".join(sorted(p.name for p in (folder / "out").iterdir())))

        match = package.load().match(source, target)
        assert match.flow.shape == (320, 400, 2)
        error = np.linalg.norm(match.flow[40:-40, 40:-40] - np.float32([SHIFT_X, SHIFT_Y]), axis=-1).mean()
        no_motion = float(np.hypot(SHIFT_X, SHIFT_Y))
        print(f"a shift of ({SHIFT_X}, {SHIFT_Y}) px is found to {error:.2f} px (no motion: {no_motion:.1f} px)")
        assert error < no_motion / 2, "the weights in the wheel do not match a plain shift"


if __name__ == "__main__":
    sys.dont_write_bytecode = True
    main()
