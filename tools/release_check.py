"""The wheel in empty environments: the newest of all that it needs under each Python, and the oldest under the oldest.

    python tools/release_check.py dist/glunet-*.whl --folder build/release [--python /path/to/python3.13 ...]

Of Python 3.11 to 3.14 those that this machine has are tried, the others named. The oldest are the lower bounds of
pyproject.toml, which so are claims that something checks. Each environment takes as much of the disk as its torch.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]
VERSIONS = ("3.11", "3.12", "3.13", "3.14")


def lower_bounds() -> list[str]:
    """torch>=2.6 -> torch==2.6.*"""
    wanted = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["dependencies"]
    return [re.sub(r">=(.+)", r"==\1.*", one) for one in wanted]


def version(python: str) -> str | None:
    """3.12, or None where that does not run."""
    told = "import sys; print('%d.%d' % sys.version_info[:2])"
    try:
        done = subprocess.run([python, "-c", told], capture_output=True, text=True)
    except OSError:
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def check(python: str, wheel: Path, wanted: list[str], folder: Path) -> bool:
    """Whether the wheel works in an environment made of `wanted`."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        subprocess.run([python, "-m", "venv", folder], check=True)
        inside = str(folder / "bin" / "python")
        install = [inside, "-m", "pip", "install", "--quiet", "--no-input", "--disable-pip-version-check"]
        subprocess.run([*install, *wanted, str(wheel)], check=True)
        shown = "import cv2, numpy, torch; print(*(m.__name__ + ' ' + m.__version__ for m in (torch, numpy, cv2)))"
        subprocess.run([inside, "-I", "-c", shown], check=True, cwd=folder)
        subprocess.run([inside, "-I", str(ROOT / "tools" / "check_wheel.py"), str(wheel)], check=True, cwd=folder)
    except (subprocess.CalledProcessError, OSError) as error:
        print(error, file=sys.stderr)
        return False
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return True


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("wheel", type=Path)
    parser.add_argument("--folder", type=Path, required=True, help="where environments are made, and removed")
    parser.add_argument("--python", nargs="*", help="by default python3.11 to python3.14")
    parser.add_argument("--only", choices=("newest", "oldest"), help="one of the two")
    given = parser.parse_args()
    wheel = given.wheel.resolve()
    found = {version(name): name for name in given.python or [f"python{v}" for v in VERSIONS]}
    found.pop(None, None)
    if not found:
        sys.exit("none of these Pythons is on this machine; name one with --python.")
    runs = [(v, found[v], [], "newest") for v in sorted(found, key=str)]
    oldest = min(found, key=lambda v: int(str(v).split(".")[1]))
    runs.append((oldest, found[oldest], lower_bounds(), "oldest"))
    results = []
    for number, python, wanted, name in runs:
        if given.only in (None, name):
            print(f"Python {number}, {name}: {' '.join(wanted) or 'whatever pip takes'}", flush=True)
            passed = check(python, wheel, wanted, given.folder.resolve() / f"{number}-{name}")
            results.append((f"Python {number}, {name}", passed))
    for v in VERSIONS if not given.python else ():
        if v not in found:
            print(f"Python {v}: not tried, it is not on this machine")
    for name, passed in results:
        print(f"{name}: {'passed' if passed else 'FAILED'}")
    sys.exit(not all(passed for _, passed in results))


if __name__ == "__main__":
    main()
