"""glunet eval: figures on the benchmarks of the field, beside what one would use instead."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glunet.cli import options
from glunet.cli.progress import progress
from glunet.errors import GlunetError

if TYPE_CHECKING:
    from glunet.evaluation.baselines import Method
    from glunet.evaluation.cache import Cache
    from glunet.evaluation.datasets.base import Dataset
    from glunet.evaluation.results import Results
    from glunet.evaluation.tables import Table

DatasetOption = Annotated[
    str | None, typer.Argument(help="A set (see --list), or 'all' for every set below ROOT.", metavar="DATASET")
]
RootOption = Annotated[
    Path | None,
    typer.Argument(help="The folder the set lies in; for 'all' the folder that holds the sets' folders."),
]
MethodOption = Annotated[
    list[str] | None,
    typer.Option(help="glunet, network (no search, no polish), identity, sift, dis, farneback or raft."),
]
LimitOption = Annotated[int | None, typer.Option(min=1, help="At most so many pairs of a set, spread evenly.")]
OutOption = Annotated[Path, typer.Option(help="Where results.json, results.md, predictions and pictures go.")]
DeviceOption = Annotated[str | None, typer.Option(help="cpu, cuda, ...; by default the best there is.")]
FlippingOption = Annotated[
    bool | None,
    typer.Option(
        "--flipping/--no-flipping", help="Try each target mirrored as well; by default on tss only, as published."
    ),
]
WorstOption = Annotated[int, typer.Option(min=0, help="Pictures of so many of the first method's worst pairs.")]
CachedOption = Annotated[bool, typer.Option("--cache/--no-cache", help="Keep predictions in OUT/predictions.")]
CheckOption = Annotated[bool, typer.Option("--check", help="Compare with the committed figures; fail on a drift.")]
RecordOption = Annotated[Path | None, typer.Option(help="Add the figures to this file of expected ones.")]
PageOption = Annotated[Path | None, typer.Option(help="Write the tables to this page as well (docs/benchmarks.md).")]
ListSetsOption = Annotated[bool, typer.Option("--list", help="Which sets there are, where to get them, and go.")]


def evaluate(
    dataset: DatasetOption = None,
    root: RootOption = None,
    weights: options.WeightsOption = "glunet",
    method: MethodOption = None,
    limit: LimitOption = None,
    out: OutOption = Path("glunet-eval"),
    device: DeviceOption = None,
    flipping: FlippingOption = None,
    speed: options.SpeedOption = None,
    search: options.SearchOption = None,
    polish: options.PolishOption = None,
    enlarge_to: options.EnlargeOption = None,
    worst: WorstOption = 0,
    cached: CachedOption = True,
    check: CheckOption = False,
    record: RecordOption = None,
    page: PageOption = None,
    list_sets: ListSetsOption = False,
) -> None:
    """Measure on a benchmark: errors, beside SIFT + MAGSAC, DIS and no motion.

    Predictions are kept, so that a killed run goes on where it was and a second one takes seconds.

    Example: glunet eval hpatches-240 data/hpatches-sequences-release
    """
    from rich.console import Console

    from glunet.evaluation import Cache, benchmark, methods, tables

    console = Console(soft_wrap=False)
    if list_sets:
        _print_list(console)
        return
    if dataset is None:
        raise GlunetError("no evaluation set named: give one (glunet eval --list shows them) or 'all'.")
    if dataset != "all":
        benchmark(dataset).open(root)  # what is wrong with it is reported before the network is loaded
    elif root is None:
        raise GlunetError("'all' needs the folder that holds the sets' folders: glunet eval all ROOT.")
    cache = Cache(out / "predictions") if cached else None
    names = dict.fromkeys(method or methods.DEFAULT)
    chosen = [methods.method(name, weights, device, speed, flipping, search, polish, enlarge_to) for name in names]
    by_benchmark, failed, datasets = _measure(dataset, root, chosen, limit, cache)

    printed = [tables.of_all(by_benchmark, failed)] if dataset == "all" else []
    details = [table for results in by_benchmark for table in tables.of_benchmark(results)]
    for table in printed or details:
        console.print(table.rich())
    for path in _write(out, by_benchmark, failed, printed + details, page, f"glunet eval {dataset} ROOT"):
        console.print(f"wrote {path}", soft_wrap=True)
    if worst:
        from glunet.evaluation.worst import write_worst

        for results in by_benchmark:
            opened = datasets[results[0].benchmark.name]
            for path in write_worst(opened, chosen[0], results[0], worst, out / "worst", cache):
                console.print(f"wrote {path}", soft_wrap=True)

    _compare(console, [r for results in by_benchmark for r in results], failed, record, check)


def _compare(console: Any, results: "list[Results]", failed: list[str], record: Path | None, check: bool) -> None:
    """Adds figures to a file of expected ones, and compares them with the committed ones, as far as that is asked."""
    from glunet.evaluation import expected

    if record is not None:
        figures = expected.load(record) if record.exists() else {}
        expected.record(figures, results)
        console.print(f"wrote {expected.save(figures, record)}", soft_wrap=True)
    if check:
        _check(console, results, failed)
    elif failed:
        raise GlunetError(" ".join(failed))


def _measure(
    name: str, root: Path | None, methods: "list[Method]", limit: int | None, cache: "Cache | None"
) -> "tuple[list[list[Results]], list[str], dict[str, Dataset]]":
    """Results by set and method, with a progress bar that shows the running headline figure."""
    from glunet.evaluation import benchmark, evaluate, evaluate_all
    from glunet.evaluation.results import figure
    from glunet.evaluation.tables import label, text

    with progress(running=True) as bar:
        tasks: dict[tuple[str, str], Any] = {}

        def watch(b: Any, m: Any, done: int, total: int, scores: Any) -> None:
            key = (b.name, m.name)
            if key not in tasks:
                tasks[key] = bar.add_task(f"{b.name}, {m.name}", total=total, running="")
            running = ""
            if scores:
                metric = b.metrics[0]
                running = f"{label(metric)} {text(metric, figure(b, scores, metric))}"
            bar.update(tasks[key], completed=done, running=running)
            if done == total:
                bar.update(tasks[key], visible=False)

        if name == "all":
            return evaluate_all(root or Path(), methods, limit, cache, watch)
        opened = benchmark(name).open(root)
        results = [
            evaluate(opened, m, limit, cache, lambda *state, m=m: watch(opened.benchmark, m, *state)) for m in methods
        ]
        return [results], [], {name: opened}


def _write(
    out: Path,
    by_benchmark: "list[list[Results]]",
    failed: list[str],
    shown: "list[Table]",
    page: Path | None,
    command: str,
) -> list[Path]:
    from glunet import __version__
    from glunet.flow.files import write_json, writing

    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise GlunetError(f"{out}: cannot be made ({error.strerror}); choose another place with --out.") from error
    heading = (
        f"# Benchmarks\n\nWritten by `{command}` (glunet {__version__}), not by hand."
        " A flow points from target to source; errors in pixels, shares in percent.\n"
    )
    markdown = "\n".join([heading, *(table.markdown() for table in shown)])
    content = {
        "glunet": __version__,
        "results": [r.to_json() for results in by_benchmark for r in results],
        "not_measured": failed,
    }
    write_json(out / "results.json", content)
    written = [out / "results.json"]
    for path in (out / "results.md", *([page] if page is not None else [])):
        with writing(path) as part:
            part.write_text(markdown, encoding="utf-8")
        written.append(path)
    return written


def _check(console: Any, results: "list[Results]", failed: list[str]) -> None:
    from glunet.evaluation import expected

    drifted, unknown = expected.check(expected.load(), results)
    for sentence in unknown:
        console.print(f"nothing committed to compare with: {sentence}", soft_wrap=True)
    for sentence in (*drifted, *failed):
        console.print(f"DRIFT: {sentence}", soft_wrap=True)
    compared = len(results) - len(unknown)
    if not compared:
        raise GlunetError("none of these figures is among the committed ones, so that there is nothing to check.")
    if drifted or failed:
        raise typer.Exit(1)
    console.print(f"check: {compared} of {len(results)} results agree with the committed figures.")


def _print_list(console: Any) -> None:
    from glunet.evaluation import BENCHMARKS

    for benchmark in BENCHMARKS.values():
        console.print(f"[bold]{benchmark.name}[/bold]  {benchmark.title}, {benchmark.task}", highlight=False)
        whole = f" ({benchmark.full} {benchmark.unit})" if benchmark.full else ""
        for key, value in (
            ("figures", f"{', '.join(benchmark.metrics)}{whole}"),
            ("layout", benchmark.layout),
            ("protocol", benchmark.protocol),
            ("from", benchmark.origin),
            ("licence", benchmark.licence),
        ):
            console.print(f"  {key}: {value}", highlight=False, markup=False)
