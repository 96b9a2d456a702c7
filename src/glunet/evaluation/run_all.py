"""Every set that lies in a folder of folders, found by the names they come in; any folder with a pairs.csv, too."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from glunet.errors import GlunetError
from glunet.evaluation.baselines import Method
from glunet.evaluation.cache import Cache
from glunet.evaluation.datasets import BENCHMARKS
from glunet.evaluation.datasets.base import Benchmark, Dataset
from glunet.evaluation.datasets.pairs_csv import PAIRS
from glunet.evaluation.results import Results, Score
from glunet.evaluation.run import evaluate

# Benchmark, method, pairs done, pairs in all, scores so far.
Watch = Callable[[Benchmark, Method, int, int, list[Score]], None]


def find(root: str | Path) -> list[tuple[Benchmark, Path | None]]:
    """The benchmarks whose folder is in `root`, in the order of the registry, and those that need none.

    Then every folder that holds a pairs.csv, under its own name.

    Raises:
        GlunetError: no such folder.
    """
    root = Path(root)
    if not root.is_dir():
        raise GlunetError(f"{root}: no such folder; expected one that holds the sets' own folders.")
    found: list[tuple[Benchmark, Path | None]] = []
    for benchmark in BENCHMARKS.values():
        folder = next((root / name for name in benchmark.folders if (root / name).is_dir()), None)
        if folder is not None or not benchmark.needs_root:
            found.append((benchmark, folder))
    for folder in sorted(root.iterdir()):
        if (folder / "pairs.csv").is_file():
            found.append((replace(PAIRS, name=folder.name, title=folder.name), folder))
    return found


def evaluate_all(
    root: str | Path,
    methods: Sequence[Method],
    limit: int | None = None,
    cache: Cache | None = None,
    watch: Watch | None = None,
) -> tuple[list[list[Results]], list[str], dict[str, Dataset]]:
    """Measure methods on every set below `root`.

    Returns:
        Results by benchmark and method; one sentence for every set that is there but could not be measured; and the
        opened datasets by name.
    """
    by_benchmark: list[list[Results]] = []
    failed: list[str] = []
    datasets: dict[str, Dataset] = {}
    for benchmark, folder in find(root):
        try:
            dataset = benchmark.open(folder)
            results = [evaluate(dataset, m, limit, cache, _watcher(watch, benchmark, m)) for m in methods]
        except GlunetError as error:
            failed.append(f"{benchmark.title} was not measured: {error}")
            continue
        by_benchmark.append(results)
        datasets[benchmark.name] = dataset
    return by_benchmark, failed, datasets


def _watcher(
    watch: Watch | None, benchmark: Benchmark, method: Method
) -> Callable[[int, int, list[Score]], None] | None:
    if watch is None:
        return None
    return lambda done, total, scores: watch(benchmark, method, done, total, scores)
