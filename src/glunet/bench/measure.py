"""The whole measurement, as one dictionary that is written as JSON and shown as tables."""

import dataclasses
import datetime
import json
import math
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from glunet import __version__
from glunet.bench import floor, footprint, rows, stages
from glunet.bench.rows import ROWS, Pair
from glunet.bench.timing import in_turns, ratios, spread
from glunet.bench.twin import PlainTwin
from glunet.errors import GlunetError
from glunet.inference.frames import hnet_size
from glunet.inference.memory import available_bytes, human, needed_bytes
from glunet.loading import find, read_network

Say = Callable[[str], Any]

WARM = 2.0  # seconds; what takes longer is not run once in advance on a CPU: its first run costs little more
STARTS = 3  # fresh processes of the rows whose start-up is of interest
OPTIONAL = {"twin", "dis", "raft-small", "raft-large"}  # are left out, with a word, where they cannot be had


@dataclasses.dataclass(frozen=True)
class Settings:
    """What to measure.

    Attributes:
        sizes: (height, width) of the images.
        device: where the networks compute.
        weights: a name or file, as `glunet.load` takes it.
        rows: names of `glunet.bench.rows.ROWS`.
        repeat: rounds at each size, at most.
        seconds: for the rounds of one size, about; two rounds there are, but a row that takes longer is left out.
        batch: pairs at once for the throughput; 0 for none.
        fresh: also start fresh processes, for start-up and memory.
    """

    sizes: tuple[tuple[int, int], ...]
    device: torch.device
    weights: str = "glunet"
    rows: tuple[str, ...] = rows.DEFAULT
    repeat: int = 5
    seconds: float = 30.0
    batch: int = 4
    fresh: bool = True


def measure(settings: Settings, say: Say = lambda text: None) -> dict[str, Any]:
    """Everything, in a dictionary of plain values: seconds, bytes, operations (docs/performance.md explains each).

    Args:
        say: called with what is done now.

    Raises:
        GlunetError: if the weights cannot be used.
    """
    result: dict[str, Any] = {
        "glunet": __version__,
        "date": datetime.date.today().isoformat(),
        "settings": dataclasses.asdict(settings) | {"device": str(settings.device)},
    }
    find(settings.weights)
    with tempfile.TemporaryDirectory() as folder:
        published = Path(folder) / "published.safetensors"
        if any(ROWS[name].published for name in settings.rows):
            rows.save_published(published)
        files = {name: str(published if ROWS[name].published else settings.weights) for name in settings.rows}
        say("loading")
        runs, left_out = _make(settings, files)
        result["machine"] = machine(settings.device)
        say("the rate of convolutions")
        result["rates"] = floor.convolution_rates(settings.device)
        result["sizes"] = []
        known: dict[str, float] = {}  # seconds a pixel
        for size in sorted(settings.sizes, key=lambda size: size[0] * size[1]):
            timed, without = _at_size(settings, runs, size, known, say)
            result["sizes"].append(timed)
            left_out += without
        _floors(files, result)
        if settings.fresh:
            left_out += _fresh(settings, files, result, say)
    result["left_out"] = left_out
    return result


def machine(device: torch.device) -> dict[str, Any]:
    """What the figures hang on."""
    flags, name = "", platform.processor() or platform.machine()
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        info = dict(line.split(":", 1) for line in lines if ":" in line)
        info = {key.strip(): value.strip() for key, value in info.items()}
        name, flags = info.get("model name", name), info.get("flags", "")
    except OSError:
        pass
    threads = {"torch": torch.get_num_threads()}
    if sys.modules.get("cv2") is not None:
        threads["OpenCV"] = sys.modules["cv2"].getNumThreads()
    return {
        "processor": name,
        "instructions": [flag for flag in ("avx2", "avx512f", "avx512_bf16", "amx_bf16") if flag in flags.split()],
        "cores": os.cpu_count(),
        "threads": threads,
        "memory": available_bytes(torch.device("cpu")),
        "system": platform.system(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "gpu": torch.cuda.get_device_name(device) if device.type == "cuda" else None,
    }


def _make(settings: Settings, files: dict[str, str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    runs, left_out = {}, []
    for name in settings.rows:
        try:
            runs[name] = rows.make(name, files[name], settings.device)
        except GlunetError as error:
            if name not in OPTIONAL:
                raise
            left_out.append({"row": name, "size": None, "why": str(error)})
    return runs, left_out


def _at_size(
    settings: Settings, runs: dict[str, Any], size: tuple[int, int], known: dict[str, float], say: Say
) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Times, throughput and stages at one size, and what is left out there.

    `known`, the seconds that each row took for a pixel of the frame at smaller sizes, is brought up to date.
    """
    (height, width), left_out = size, []
    label, wait = f"{height}x{width}", floor.waiting(settings.device)
    pixels = math.prod(hnet_size(height, width))
    pairs = [rows.make_pair(height, width, settings.device, seed=seed) for seed in (1, 2)]

    def run(name: str, pair: Pair) -> None:
        runs[name](pair)
        wait()

    chosen = []
    for name in runs:
        guess = known[name] * pixels if name in known else None
        try:
            rows.check_memory(name, height, width, settings.device)
            if guess is not None and guess > settings.seconds:
                raise GlunetError(f"a pair would take about {guess:.0f} s, more than the {settings.seconds:g} s asked.")
            if guess is None or guess < WARM or settings.device.type == "cuda":
                say(f"{label}: warming up, {ROWS[name].title}")
                run(name, pairs[1])
            chosen.append(name)
        except GlunetError as error:
            left_out.append({"row": name, "size": label, "why": str(error)})
    taken = in_turns(
        {name: partial(_alternating, run, name, pairs) for name in chosen},
        settings.repeat,
        settings.seconds,
        say=lambda number, name: say(f"{label}: round {number + 1} of {settings.repeat}, {ROWS[name].title}"),
    )
    medians = {name: spread(seconds)["median"] for name, seconds in taken.items()}
    known.update({name: median / pixels for name, median in medians.items()})
    lines = {name: {"row": name, "title": ROWS[name].title} | _times(name, taken) for name in taken}

    for name in taken:
        network = runs[name].network() if isinstance(runs[name], rows.Flow) else None
        if stages.known(network) and medians[name] <= settings.seconds / 2:
            say(f"{label}: stages, {ROWS[name].title}")
            lines[name]["stages"] = stages.shares(partial(run, name, pairs[0]), network, wait)

    if settings.batch > 1:
        left_out += _at_once(settings, size, run, lines, medians, say)
    return {"height": height, "width": width, "rows": list(lines.values())}, left_out


def _at_once(
    settings: Settings,
    size: tuple[int, int],
    run: Callable[[str, Pair], None],
    lines: dict[str, dict[str, Any]],
    medians: dict[str, float],
    say: Say,
) -> list[dict[str, Any]]:
    """Adds the pairs a second of several at once to the lines of the rows that take them; what is left out."""
    batching = [name for name in lines if ROWS[name].batches]
    several = settings.batch * sum(medians[name] for name in batching)
    needed, available = 2 * needed_bytes(size, size, settings.batch), available_bytes(settings.device)
    label, why = f"{size[0]}x{size[1]}", ""
    if several > settings.seconds:
        why = f"{settings.batch} pairs by each row would take about {several:.0f} s."
    elif available is not None and needed > available:
        why = f"{settings.batch} pairs may need {human(needed)} of memory, but {human(available)} is available."
    if why or not batching:
        return [{"row": "pairs at once", "size": label, "why": why}] if why else []
    many = [rows.make_pair(*size, settings.device, settings.batch)]
    if settings.device.type == "cuda":  # what is made for each shape is made now
        for name in batching:
            run(name, many[0])
    taken = in_turns(
        {name: partial(_alternating, run, name, many) for name in batching},
        min(3, settings.repeat),
        settings.seconds,
        fewest=1,
        say=lambda number, name: say(f"{label}: {settings.batch} pairs at once, {ROWS[name].title}"),
    )
    for name, seconds in taken.items():
        lines[name]["pairs_per_second"] = spread([settings.batch / second for second in seconds])
    return []


def _alternating(run: Callable[[str, Pair], None], name: str, pairs: list[Pair], number: int) -> None:
    """Not twice the same pair in turn, so that nothing remembered helps."""
    run(name, pairs[number % len(pairs)])


def _times(name: str, taken: dict[str, list[float]]) -> dict[str, Any]:
    """Seconds, and ratios: to the twin with the same decoders, and of the package's network to the published one."""

    def times(other: str) -> dict[str, float] | None:
        return ratios(taken[other], taken[name]) if other in taken and other != name else None

    return {
        "seconds": spread(taken[name]) | {"all": taken[name]},
        "times_as_fast": times(rows.twin_of(name)),
        "times_published": None if ROWS[name].published else times("published-twin"),
    }


def _floors(files: dict[str, str], result: dict[str, Any]) -> None:
    """Operations, their time at the best rates, and how many times as long each row takes; by size."""
    rates = result["rates"]
    best = {
        "float32": max(rate["rate"] for rate in rates if rate["dtype"] == "float32"),
        "any": max(rate["rate"] for rate in rates),
    }
    for published in (False, True):
        file = next((files[name] for name in files if ROWS[name].published == published), None)
        network = None if file is None else read_network(file)[0]
        if network is None or network.config.network != "glunet":
            continue
        with torch.device("meta"):
            twin = PlainTwin(network.config)
        for timed in result["sizes"]:
            work = floor.operations(twin, timed["height"], timed["width"])
            total = sum(work.values())
            floors = {key: total / rate for key, rate in best.items()}
            timed["published_floor" if published else "floor"] = {"operations": work, "seconds": floors}
            for line in timed["rows"]:
                of_paper = line["row"].removeprefix("published-") in ("exact", "fast", "twin")
                if of_paper and ROWS[line["row"]].published == published:
                    median = line["seconds"]["median"]
                    line["times_floor"] = {key: median / seconds for key, seconds in floors.items()}


def _fresh(settings: Settings, files: dict[str, str], result: dict[str, Any], say: Say) -> list[dict[str, Any]]:
    """Memory of each row at each size, and start-up at one size, each in a process of its own; what is left out."""
    left_out: list[dict[str, Any]] = []
    for timed in result["sizes"]:
        height, width = timed["height"], timed["width"]
        # As many matches for each row: the second finds what the first has left of the C library's memory.
        matches = 2 if all(line["seconds"]["median"] < WARM for line in timed["rows"]) else 1
        for line in timed["rows"]:
            say(f"{height}x{width}: memory, {line['title']}")
            try:
                own = fresh(line["row"], files[line["row"]], settings.device, height, width, matches)
            except GlunetError as error:
                left_out.append({"row": line["row"], "size": f"{height}x{width}", "why": str(error)})
                continue
            line |= {key: own[key] for key in ("memory", "device_memory")}
            line["start_up"] = {key: own[key] for key in ("import_torch", "import_glunet", "load", "first")}
    # A single start tells little: some more at the size that is nearest to 520 x 520.
    timed = min(result["sizes"], key=lambda size: abs(size["height"] * size["width"] - 520 * 520))
    result["start_up"] = {"height": timed["height"], "width": timed["width"], "rows": []}
    for line in timed["rows"]:
        if "start_up" not in line:
            continue
        starts = [line["start_up"]]
        for _ in range(STARTS - 1 if line["row"] in ("exact", "fast", "match", "twin") else 0):
            say(f"start-up, {line['title']}")
            starts.append(
                fresh(line["row"], files[line["row"]], settings.device, timed["height"], timed["width"], matches=1)
            )
        seconds = {key: spread([start[key] for start in starts]) for key in line["start_up"]}
        both = spread([start["load"] + start["first"] for start in starts])
        result["start_up"]["rows"].append(
            {"row": line["row"], "title": line["title"], "starts": len(starts), **seconds, "load_and_first": both}
        )
    return left_out


def fresh(row: str, weights: str, device: torch.device, height: int, width: int, matches: int) -> dict[str, Any]:
    """`footprint.measure` in a process of its own.

    Raises:
        GlunetError: if the process ends without an answer.
    """
    asked = {"row": row, "weights": weights, "device": str(device), "matches": matches}
    package = str(Path(__file__).parents[2])  # it may be a source tree that is not installed
    paths = [package, *filter(None, [os.environ.get("PYTHONPATH")])]
    done = subprocess.run(
        [sys.executable, "-P", footprint.__file__, json.dumps(asked | {"height": height, "width": width})],
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(paths)},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise GlunetError(f"A process that measured memory ended with {done.returncode} ({last}).")
    return json.loads(done.stdout.splitlines()[-1])
