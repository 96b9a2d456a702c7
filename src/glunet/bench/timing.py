"""Seconds, taken in turns: what runs beside what it is compared with is slowed by the same neighbours."""

import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

Clock = Callable[[], float]


def in_turns(
    runs: Mapping[str, Callable[[int], Any]],
    repeat: int,
    seconds: float,
    fewest: int = 2,
    say: Callable[[int, str], Any] = lambda number, name: None,
    clock: Clock = time.perf_counter,
) -> dict[str, list[float]]:
    """Every run once a round, round after round, each round starting with another.

    Args:
        runs: name -> what to time; it is given the number of the round and returns when all work is done.
        repeat: rounds at most.
        seconds: no round is begun that would end later, going by the slowest one; but there are `fewest`.
        say: called with what comes next: the number of the round, from 0, and the name.

    Returns:
        name -> seconds of each round.
    """
    names = list(runs)
    taken: dict[str, list[float]] = {name: [] for name in names}
    began, slowest = clock(), 0.0
    for number in range(repeat):
        start = clock()
        if number >= fewest and start - began + slowest > seconds:
            break
        shift = number % len(names) if names else 0
        for name in names[shift:] + names[:shift]:
            say(number, name)
            before = clock()
            runs[name](number)
            taken[name].append(clock() - before)
        slowest = max(slowest, clock() - start)
    return taken


def spread(values: list[float]) -> dict[str, float]:
    """Median, least and most."""
    return {"median": statistics.median(values), "least": min(values), "most": max(values)}


def ratios(of: list[float], to: list[float]) -> dict[str, float]:
    """`of` / `to` round by round: median, least and most."""
    return spread([a / b for a, b in zip(of, to, strict=True)])
