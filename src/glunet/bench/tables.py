"""The measurement as tables."""

from collections.abc import Callable
from typing import Any

from glunet.bench.stages import STAGES
from glunet.evaluation.tables import Table

Line = dict[str, Any]


def machine_lines(result: dict[str, Any]) -> list[str]:
    """The machine and what ran on it, a sentence each."""
    machine, settings = result["machine"], result["settings"]
    threads = ", ".join(f"{count} of {name}" for name, count in machine["threads"].items())
    instructions = f" ({', '.join(machine['instructions'])})" if machine["instructions"] else ""
    memory = f", {machine['memory'] / 1e9:.0f} GB of memory free" if machine["memory"] else ""
    bounds = f"at most {settings['repeat']} rounds and about {settings['seconds']:g} s a size"
    lines = [
        f"{machine['processor']}{instructions}, {machine['cores']} cores{memory}; threads: {threads}",
        f"glunet {result['glunet']}, torch {machine['torch']}, Python {machine['python']}, {machine['system']}",
        f"weights: {settings['weights']}; {bounds}",
    ]
    return [f"{machine['gpu']}; DIS on the CPU", *lines] if machine["gpu"] else lines


def left_out(result: dict[str, Any]) -> list[str]:
    """What was not measured, and why, a sentence each."""
    return [
        f"{item['row']}{' at ' + item['size'] if item['size'] else ''}: {item['why']}" for item in result["left_out"]
    ]


def tables(result: dict[str, Any]) -> list[Table]:
    """All tables; those for which nothing was measured are left out."""
    found = [
        _by_size(result, "Seconds a pair", lambda line: _spread(line["seconds"])),
        _by_size(result, "Times as fast as the plain twin", lambda line: _spread(line["times_as_fast"])),
        _by_size(
            result, "Times as fast as the published network, run plainly", lambda line: _spread(line["times_published"])
        ),
        _by_size(
            result,
            f"Pairs a second, {result['settings']['batch']} at once",
            lambda line: _spread(line.get("pairs_per_second")),
        ),
        _by_size(result, "Peak memory in MB, and its share of the plain twin's", _memory(result)),
        _start_up(result),
        _stages(result),
        _floor(result),
        _rates(result),
    ]
    return [table for table in found if table.rows]


def _by_size(result: dict[str, Any], title: str, cell: Callable[[Line], str], notes: tuple[str, ...] = ()) -> Table:
    """A line a row, a column a size."""
    titles = {line["row"]: line["title"] for size in result["sizes"] for line in size["rows"]}
    order = [name for name in result["settings"]["rows"] if name in titles]
    cells = {name: [""] * len(result["sizes"]) for name in order}
    for column, size in enumerate(result["sizes"]):
        for line in size["rows"]:
            cells[line["row"]][column] = cell(line)
    lines = tuple((titles[name], *cells[name]) for name in order if any(cells[name]))
    return Table(title, ("", *(_label(size) for size in result["sizes"])), lines)


def _memory(result: dict[str, Any]) -> Callable[[Line], str]:
    from glunet.bench.rows import twin_of

    def bytes_of(line: Line) -> int | None:
        return line.get("device_memory") or line.get("memory")

    twins = {
        (line["row"], id(other)): bytes_of(line)
        for size in result["sizes"]
        for line in size["rows"]
        for other in size["rows"]
        if line["row"] == twin_of(other["row"])
    }

    def cell(line: Line) -> str:
        own, twin = bytes_of(line), twins.get((twin_of(line["row"]), id(line)))
        if own is None:
            return ""
        return f"{own / 1e6:.0f}" + (f" ({own / twin:.2f})" if twin else "")

    return cell


def _start_up(result: dict[str, Any]) -> Table:
    found = result.get("start_up", {"rows": [], "height": 0, "width": 0})
    keys = {"import_torch": "import torch", "import_glunet": "glunet", "load": "load", "first": "first pair"}
    lines = tuple(
        (
            f"{line['title']} ({line['starts']})",
            *(_spread(line[key]) for key in keys),
            _spread(line["load_and_first"]),
        )
        for line in found["rows"]
    )
    head = ("(fresh processes)", *keys.values(), "load + first pair")
    return Table(f"Start-up at {_label(found)}, in seconds", head, lines)


def _stages(result: dict[str, Any]) -> Table:
    lines = tuple(
        (f"{line['title']}, {_label(size)}", *(f"{100 * line['stages'][stage]:.0f}" for stage in STAGES))
        for size in result["sizes"]
        for line in size["rows"]
        if "stages" in line
    )
    note = "Of one run besides the timing; correlations with the warping, decoders with their upsampling."
    return Table("Where the time goes, in percent", ("", *STAGES), lines, (note,))


def _floor(result: dict[str, Any]) -> Table:
    lines = []
    for size in result["sizes"]:
        for line in size["rows"]:
            if "times_floor" not in line:
                continue
            floor = size["published_floor" if line["row"].startswith("published") else "floor"]
            lines.append(
                (
                    f"{line['title']}, {_label(size)}",
                    f"{sum(floor['operations'].values()) / 1e9:.0f}",
                    _number(floor["seconds"]["float32"]),
                    f"{line['times_floor']['float32']:.2f}",
                    _number(floor["seconds"]["any"]),
                    f"{line['times_floor']['any']:.2f}",
                )
            )
    head = ("", "GFLOP", "floor s, float32", "times that", "floor s, any type", "times that")
    return Table("The floor, and the distance to it", head, tuple(lines))


def _rates(result: dict[str, Any]) -> Table:
    lines = tuple((rate["dtype"], rate["layout"], f"{rate['rate'] / 1e9:.0f}") for rate in result["rates"])
    return Table("VGG's convolutions on this machine", ("type", "layout", "GFLOP/s"), lines)


def _label(size: dict[str, Any]) -> str:
    return f"{size['height']}x{size['width']}"


def _spread(values: dict[str, float] | None) -> str:
    if values is None:
        return ""
    return f"{_number(values['median'])} ({_number(values['least'])}–{_number(values['most'])})"  # noqa: RUF001


def _number(value: float) -> str:
    """Three digits."""
    return f"{value:.3g}" if value < 1000 else f"{value:.0f}"
