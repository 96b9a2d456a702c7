"""Figures that were measured once and committed: `glunet eval --check` fails when they drift."""

import hashlib
import json
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any

from glunet.errors import GlunetError
from glunet.evaluation.results import Results
from glunet.evaluation.tables import label, text, weights_hash

# Another OpenCV, another BLAS or a GPU moves figures in the third digit; a mistake moves them far more.
RELATIVE, PIXELS, SHARE = 0.02, 0.02, 0.005

Expected = dict[str, dict[str, dict[str, dict[str, float]]]]


def committed() -> Path:
    """The file in the package."""
    return Path(str(resources.files("glunet.evaluation") / "expected.json"))


def load(path: Path | None = None) -> Expected:
    """Benchmark -> which pairs -> method -> metric -> figure."""
    path = path or committed()
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError) as error:
        raise GlunetError(f"{path}: expected a JSON file of expected figures ({error}).") from error


def key_of(results: Results) -> tuple[str, str, str]:
    """Under which benchmark, pairs and method figures are kept; weights are identified by their hash."""
    names = "\n".join(sorted(score.name for score in results.scores))
    pairs = f"{len(results.scores)} pairs {hashlib.blake2b(names.encode(), digest_size=4).hexdigest()}"
    return results.benchmark.name, pairs, " ".join(filter(None, (results.method, weights_hash(results.identity))))


def record(expected: Expected, results: Sequence[Results]) -> None:
    """Add figures to `expected`, replacing those of the same key."""
    for r in results:
        benchmark, pairs, method = key_of(r)
        figures = {metric: round(r.figure(metric), 5) for metric in r.benchmark.metrics}
        expected.setdefault(benchmark, {}).setdefault(pairs, {})[method] = figures


def check(expected: Expected, results: Sequence[Results]) -> tuple[list[str], list[str]]:
    """Compare figures with those expected.

    Returns:
        What drifted, one sentence a figure, and for what there is nothing to compare with.
    """
    drifted, unknown = [], []
    for r in results:
        benchmark, pairs, method = key_of(r)
        figures: dict[str, Any] | None = expected.get(benchmark, {}).get(pairs, {}).get(method)
        if figures is None:
            unknown.append(f"{benchmark}, {method}, {pairs}")
            continue
        for metric, value in figures.items():
            got = r.figure(metric)
            if abs(got - value) > max(PIXELS if metric == "aepe" else SHARE, RELATIVE * abs(value)):
                drifted.append(
                    f"{benchmark}, {method}: {label(metric)} is {text(metric, got)}, expected {text(metric, value)}."
                )
        drifted += [f"{benchmark}, {method}: {skip.name} was skipped: {skip.reason}" for skip in r.skipped]
    return drifted, unknown


def save(expected: Expected, path: Path | None = None) -> Path:
    """Write them, sorted, so that a change shows as a small difference."""
    from glunet.flow.files import write_json

    path = path or committed()
    write_json(path, json.loads(json.dumps(expected, sort_keys=True)))
    return path
