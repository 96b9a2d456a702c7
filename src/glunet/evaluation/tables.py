"""Results as tables: on the screen, in Markdown, beside the published figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from glunet.evaluation.datasets.base import Benchmark
from glunet.evaluation.results import Results


@dataclass(frozen=True)
class Table:
    """A title, a row of headings, rows of text, and sentences below."""

    title: str
    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    notes: tuple[str, ...] = ()

    def markdown(self) -> str:
        lines = [f"## {self.title}", "", _row(self.head), "|" + " --- |" * len(self.head)]
        lines += [_row(row) for row in self.rows]
        if self.notes:
            lines += ["", *(f"- {note}" for note in self.notes)]
        return "\n".join(lines) + "\n"

    def rich(self) -> Any:
        """For rich's console, which is imported only here."""
        from rich.table import Table as RichTable
        from rich.text import Text

        table = RichTable(title=Text(self.title), caption=Text("\n".join(self.notes)), caption_justify="left")
        for index, heading in enumerate(self.head):
            table.add_column(Text(heading), justify="right" if index else "left", overflow="fold")
        for row in self.rows:
            table.add_row(*(Text(cell) for cell in row))
        return table


def label(metric: str) -> str:
    """A metric as a heading, with its unit."""
    if metric == "aepe":
        return "AEPE px"
    if metric == "median":
        return "median AEPE px"
    if metric == "fl":
        return "Fl %"
    if metric.startswith("auc"):
        return f"AUC@{metric.removeprefix('auc')} %"
    name, _, rest = metric.partition("_")
    if not rest:
        return f"PCK-{name.removeprefix('pck')} %"
    alpha, _, kind = rest.partition("_")
    return f"PCK@{alpha}{f' ({kind})' if kind else ''} %"


def text(metric: str, value: float | None) -> str:
    """A figure as a table shows it: pixels with two decimals, shares in percent with one."""
    if value is None:
        return ""
    return f"{value:.2f}" if metric in ("aepe", "median") else f"{100 * value:.1f}"


def of_benchmark(results: Sequence[Results]) -> list[Table]:
    """One benchmark's methods: all metrics of the whole, the headline metric of every group, and what is published.

    Args:
        results: of one benchmark, one a method.
    """
    benchmark, first = results[0].benchmark, results[0]
    notes = [benchmark.protocol, *_notes(results)]
    head = ("method", *(label(metric) for metric in benchmark.metrics), "s a pair", "pairs")
    rows = [
        (
            r.method,
            *(text(metric, r.figure(metric)) for metric in benchmark.metrics),
            f"{r.seconds:.3g}" if r.seconds is not None else "cached",
            f"{len(r.scores)}" + (f", {len(r.skipped)} skipped" if r.skipped else ""),
        )
        for r in results
    ]
    for item in benchmark.published:
        figures = [item.figures.get((benchmark.headline, metric)) for metric in benchmark.metrics]
        if any(figure is not None for figure in figures):
            rows.append((f"published: {item.method}", *map(text, benchmark.metrics, figures), "", "all"))
    notes += [f"{item.method}: {item.source}." for item in benchmark.published]
    group = "" if benchmark.headline == "all" else f", {benchmark.headline}"
    tables = [Table(f"{benchmark.title}{group}", head, tuple(rows), tuple(notes))]

    for metric in (benchmark.by_group or benchmark.metrics[:1]) if len(first.groups) > 1 else ():
        rows = [(r.method, *(text(metric, r.figure(metric, group)) for group in r.groups)) for r in results]
        for item in benchmark.published:
            figures = [item.figures.get((group, metric)) for group in first.groups]
            if any(figure is not None for figure in figures):
                rows.append((f"published: {item.method}", *(text(metric, figure) for figure in figures)))
        title = f"{benchmark.title}, {label(metric)} by group"
        tables.append(Table(title, ("method", *first.groups), tuple(rows)))
    return tables


def of_all(by_benchmark: Sequence[Sequence[Results]], missing: Sequence[str] = ()) -> Table:
    """One row a benchmark and summary figure, one column a method, and the published GLU-Net.

    Args:
        by_benchmark: for each benchmark its results, the methods in one order.
        missing: sentences on what could not be measured.
    """
    methods = list(dict.fromkeys(r.method for results in by_benchmark for r in results))
    rows, notes = [], []
    for results in by_benchmark:
        benchmark = results[0].benchmark
        values = {r.method: r for r in results}
        summary = benchmark.summary or benchmark.metrics[:1]
        shown = [(metric, benchmark.headline) for metric in summary]
        if benchmark.by_group and len(results[0].groups) > 1:
            shown += [(metric, group) for group in results[0].groups for metric in summary]
        for metric, group in shown:
            cells = [text(metric, values[m].figure(metric, group)) if m in values else "" for m in methods]
            named = "" if group == "all" else f" ({group})"
            published = _published_glunet(benchmark, metric) if group == benchmark.headline else None
            rows.append((f"{benchmark.title}{named}, {label(metric)}", *cells, text(metric, published)))
        notes += [note for note in _notes(results) if note not in notes]
    if any(row[-1] for row in rows):
        notes.append("GLU-Net published: on the whole sets, by the GLU-Net repository and Truong et al., CVPR 2020.")
    hashes = {weights_hash(r.identity) for results in by_benchmark for r in results if r.method == "glunet"}
    title = "All sets"
    if len(hashes) == 1:
        title += f", one network: weights {hashes.pop()}"
    return Table(title, ("set", *methods, "GLU-Net published"), tuple(rows), (*notes, *missing))


def weights_hash(identity: str) -> str:
    """The beginning of the weights' hash in a method's identity."""
    return identity.split("-")[1][:12] if identity.startswith("glunet-") else ""


def _published_glunet(benchmark: Benchmark, metric: str) -> float | None:
    found = (item.figures.get((benchmark.headline, metric)) for item in benchmark.published if item.method == "GLU-Net")
    return next((value for value in found if value is not None), None)


def _notes(results: Sequence[Results]) -> list[str]:
    notes = []
    benchmark = results[0].benchmark
    for part in dict.fromkeys(r.part for r in results if r.part):
        notes.append(f"{benchmark.title}: {part}.")
    for skip in dict.fromkeys(skip for r in results for skip in r.skipped):
        notes.append(f"{benchmark.title}: skipped {skip.name}: {skip.reason}")
    return notes


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cell.replace("|", "\\|").replace("\n", " ") for cell in cells) + " |"
