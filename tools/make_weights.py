"""From photographs to a file of weights like the package's, in one command that goes on where it was stopped.

    python tools/make_weights.py PHOTOS... --validation HELD_BACK --out WORK --minutes 600

runs `glunet train` by its recipes, one after the other: all levels from VGG-16, then with adapters the global level
further, the levels around it, levels 4 and 3 also from different photographs of one kind of thing, and the
uncertainty head. Then both confidences are calibrated on the photographs held back, and WORK/glunet.safetensors is
written: its metadata names this command, the commit and a hash of the photographs. Of a few minutes it learns next to
nothing: that is to see that all works.
"""

from __future__ import annotations

import argparse
import json
import shlex
import subprocess
import sys
from pathlib import Path

from safetensors import safe_open
from safetensors.torch import load_file, save_file

ROOT = Path(__file__).parent.parent
# Recipe and its share of the time. Large motion hangs on the global level, which is the last to stop getting better.
RUNS = {"full": 0.45, "global": 0.1, "fine": 0.2, "semantic": 0.15, "uncertainty": 0.1}


def with_adapters(weights: Path, out: Path) -> Path:
    """The same network with adapters of all levels, which at first change nothing."""
    from glunet.loading import network_state, read_network, save_weights
    from glunet.network.family import adapted

    network = adapted(read_network(str(weights))[0], "all")
    save_weights(out, network_state(network), network.config, {})
    return out


def commit() -> str:
    """Of this tree; with a plus where it has changes."""
    done = subprocess.run(["git", "describe", "--always", "--dirty=+"], capture_output=True, text=True, cwd=ROOT)
    return done.stdout.strip() or "unknown"


def ship(weights: Path, out: Path, photographs: list[Path]) -> None:
    """The file with what a person must know of it."""
    from ship_weights import CARD

    from glunet.flow.files import writing
    from glunet.training.photographs import Photographs, find

    with safe_open(weights, framework="pt") as file:
        metadata = json.loads(file.metadata()["glunet"])
    made = {
        "command": shlex.join(["python", "tools/make_weights.py", *sys.argv[1:]]),
        "commit": commit(),
        "photographs": Photographs(find(photographs)).fingerprint(),
    }
    card = {name: value for name, value in CARD.items() if name not in ("data", "licence")}
    content = {"name": out.stem} | card | metadata | {"made": made}
    with writing(out) as part:
        save_file(load_file(weights), part, metadata={"glunet": json.dumps(content)})
        part.chmod(0o644)


def run(*words: object) -> None:
    """A command of this Python, shown first; the whole ends where one fails."""
    command = [str(word) for word in words]
    print("$", shlex.join(["python", *command]), flush=True)
    subprocess.run([sys.executable, *command], check=True, cwd=ROOT)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("photographs", type=Path, nargs="+", help="folders or tar files to learn from")
    parser.add_argument("--validation", type=Path, nargs="+", required=True, help="others, never learned from")
    parser.add_argument("--out", type=Path, required=True, help="a folder; each run has one of its own in it")
    parser.add_argument("--minutes", type=float, required=True, help="of training in all")
    parser.add_argument(
        "--skip", nargs="*", default=[], choices=list(RUNS), help="recipes: semantic, where few show the same kind"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scenes", type=int, default=36, help="for the calibration")
    parser.add_argument("--different", type=int, default=200, help="pairs of different photographs for the verdict")
    given = parser.parse_args()
    photographs, held_back, folder = (
        [path.resolve() for path in given.photographs],
        [path.resolve() for path in given.validation],
        given.out.resolve(),
    )
    folder.mkdir(parents=True, exist_ok=True)
    weights: Path | None = None
    shares = {recipe: share for recipe, share in RUNS.items() if recipe not in given.skip}
    for recipe, share in shares.items():
        if recipe == "global" and weights is not None:
            weights = with_adapters(weights, folder / "adapted.safetensors")
        start = ["--init", weights] if weights is not None else []
        minutes = round(share / sum(shares.values()) * given.minutes, 3)
        fixed = ["--recipe", recipe, "--minutes", minutes, "--seed", given.seed]
        held = [word for path in held_back for word in ("--validation", path)]
        run("-m", "glunet", "train", *photographs, *held, "--out", folder / recipe, *start, *fixed)
        weights = folder / recipe / "weights.safetensors"
    assert weights is not None
    for how in ((), ("--learned",)):
        sizes = ("--scenes", given.scenes, "--different", given.different)
        run("-m", "benchmarks.calibrate", weights, held_back[0], *sizes, *how)
    ship(weights, folder / "glunet.safetensors", photographs)
    print(folder / "glunet.safetensors")


if __name__ == "__main__":
    main()
