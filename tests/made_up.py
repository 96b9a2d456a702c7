"""A set that exists only in memory: pairs on which no motion is wrong by given errors."""

import numpy as np

from glunet.evaluation.datasets.base import Benchmark, Dataset, FlowTruth, Pair, Sample

GREY = np.full((20, 30, 3), 90, np.uint8)


def pair(name: str, errors: list[float], group: str = "", subgroup: str = "", size: tuple[int, int] = (20, 30)) -> Pair:
    """A pair on which no motion is wrong by the given errors, at one pixel each."""

    def load() -> Sample:
        flow = np.zeros((*size, 2), np.float32)
        valid = np.zeros(size, bool)
        for x, error in enumerate(errors):
            flow[0, x], valid[0, x] = (error, 0), True
        # Another grey in each pair, because what is alike is predicted once.
        image = np.full((*size, 3), sum(map(ord, name)) % 255, np.uint8)
        return Sample(image, image, FlowTruth(flow, valid), {"": 100})

    return Pair(name, load, group, subgroup, name)


def dataset(pairs: list[Pair], over: str = "pairs", **changes: object) -> Dataset:
    settings = {
        "name": "made-up",
        "title": "Made up",
        "task": "geometric",
        "metrics": ("aepe", "pck1", "fl", "pck_0.05"),
        "alphas": (0.05,),
        "origin": "nowhere",
        "licence": "none",
        "layout": "nothing",
        "protocol": "None.",
        "over": over,
    }
    return Dataset(Benchmark(pairs=lambda root: pairs, **(settings | changes)), tuple(pairs))  # type: ignore[arg-type]
