"""Matches the blocks of a list, in this process or by Ray Data's actors; the code of a block is the same."""

import json
import logging
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glunet.batch import results
from glunet.batch.images import Store
from glunet.errors import GlunetError, needed
from glunet.flow.files import write_flow, write_json
from glunet.flow.geometry import Size
from glunet.images.folders import smaller
from glunet.images.pairs import Names, blocks
from glunet.inference import shelf
from glunet.inference.many import Pair
from glunet.loading import load

_HEAD = "_batch.json"  # with "_" before it: what reads folders of Parquet passes over these
_FLOWS = "_flows"
_ON_GPU = 8  # pairs at once; on a CPU one by one is no slower, and takes less memory


@dataclass(frozen=True)
class Job:
    """What every worker has to know.

    Attributes:
        images: folder or address (`glunet.batch.images.Store`).
        out: folder of the results, which all workers see.
        weights, device, settings: as for `glunet.load`.
        size: longer side that images are brought down to for matching, pixels; None for no limit.
        points, least: how many points a pair keeps at most, and their lowest confidence (`Match.sample`).
        flows: keep flows too, as .npz, at the size of matching.
        workers: how many processes share a machine's memory.
    """

    images: str
    out: Path
    weights: str = "glunet"
    device: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    size: int | None = 1024
    points: int = 1000
    least: float = 0.5
    flows: bool = False
    workers: int = 1

    def identity(self) -> dict[str, Any]:
        """What decides about the results, for JSON."""
        made_by = load(self.weights, "cpu", **self.settings).provenance
        return {
            "images": self.images,
            "weights": [made_by.weights, made_by.sha256],
            "settings": self.settings,
            "size": self.size,
            "points": self.points,
            "least": self.least,
            "flows": self.flows,
        }


class Done(NamedTuple):
    """One block.

    Attributes:
        pairs, failed: how many pairs, and of how many there is only the reason.
        reason: of the first that failed; "" where none did.
        worker: number of the process.
        problem: why the block could not be written; "" where it was.
    """

    pairs: int
    failed: int
    reason: str
    worker: int
    problem: str = ""


class BlockMatcher:
    """Matches blocks of pairs, one after the other, and keeps encoded images between them."""

    def __init__(self, job: Job) -> None:
        self.job = job
        self.matcher = load(job.weights, job.device, **job.settings)
        self.store = Store(job.images)
        self.sizes: dict[str, Size] = {}  # of the files
        self.shelf = shelf.Shelf(self.matcher.encode, self._pixels, shelf.room(self.matcher.device, job.workers))

    def _pixels(self, name: str) -> np.ndarray:
        pixels = self.store.read(name)
        self.sizes[name] = (pixels.shape[0], pixels.shape[1])
        return smaller(pixels, self.job.size)

    def __call__(self, block: dict[str, Any]) -> dict[str, Any]:
        """Matches a block and writes it, unless it is there already (of a worker that died after it had written).

        Args:
            block: "source" and "target", names of equal number.

        Returns:
            `Done` as a dictionary, as Ray Data wants it.
        """
        pairs = [(str(a), str(b)) for a, b in zip(block["source"], block["target"], strict=True)]
        path = results.file_of(self.job.out, pairs)
        if path.exists():
            return Done(len(pairs), 0, "", os.getpid())._asdict()
        try:
            rows = self._rows(pairs)
            results.write_rows(path, rows, self.matcher.provenance.as_dict())
        except GlunetError as error:  # of writing: those of a pair are in its row
            return Done(len(pairs), 0, "", os.getpid(), str(error))._asdict()
        reasons = [row["error"] for row in rows if row.get("error")]
        return Done(len(pairs), len(reasons), reasons[0] if reasons else "", os.getpid())._asdict()

    def _rows(self, pairs: list[Names]) -> list[dict[str, Any]]:
        rows: list[dict[str, Any]] = [{}] * len(pairs)
        bad: dict[str, str] = {}
        sent: list[int] = []

        def usable(name: str) -> Any:
            if name in bad:
                raise GlunetError(bad[name])
            try:
                return self.shelf[name]
            except GlunetError as error:
                bad[name] = f"'{name}': {error}"
                raise GlunetError(bad[name]) from error

        def opened() -> Iterator[Pair]:
            for number, (source, target) in enumerate(pairs):
                try:
                    pair = usable(source), usable(target)
                except GlunetError as error:
                    rows[number] = results.failed(pairs[number], str(error))
                    continue
                sent.append(number)
                yield pair

        at_once = 1 if self.matcher.device.type == "cpu" else _ON_GPU
        for outcome in self.matcher.match_many(opened(), batch=at_once):
            pair = pairs[sent[outcome.number]]
            if outcome.match is None:
                reason = str(outcome.error).removeprefix(f"Pair {outcome.number}: ")
                rows[sent[outcome.number]] = results.failed(pair, reason)
                continue
            count, least = self.job.points, self.job.least
            row = results.row(pair, outcome.match, self.sizes[pair[0]], self.sizes[pair[1]], count, least)
            if self.job.flows:
                name = f"{_FLOWS}/{results.digest([pair])}.npz"
                write_flow(self.job.out / name, outcome.match.flow, outcome.match.metadata())
                row["flow"] = name
            rows[sent[outcome.number]] = row
        return rows


def run(
    job: Job,
    pairs: Sequence[Names],
    block: int = 64,
    ray: str | None = None,
    watch: Callable[[Done], None] = lambda done: None,
) -> int:
    """Matches what is not in the folder of results yet.

    Args:
        block: pairs in a block: a file of results, and what is matched again when a worker dies.
        ray: address of a Ray cluster, or "local" for one on this machine; None for this process alone.
        watch: called as each block is written.

    Returns:
        How many pairs were there before.

    Raises:
        GlunetError: results of other settings are in the folder; no such images; a block that cannot be written
            (those before it stay, and another run goes on from there); a missing library.
    """
    results.arrow()
    Store(job.images)
    if block < 1:
        raise GlunetError(f"Blocks of {block} pairs were asked for: ask for 1 or more.")
    _begin(job)
    before = {frozenset(pair) for written in results.written(job.out) for pair in written}
    left = [pair for pair in pairs if frozenset(pair) not in before]
    todo = list(blocks(left, block))
    done = _by_ray(job, todo, ray) if ray is not None else _here(job, todo)
    try:
        for made in done:
            if made.problem:
                raise GlunetError(f"{made.problem} What was written stays: the same command goes on from there.")
            watch(made)
    finally:
        done.close()
        _clear(job.out)
    missing = sum(len(part) for part in todo if not results.file_of(job.out, part).exists())
    if missing:
        raise GlunetError(f"{missing} pairs are not in '{job.out}': is it one folder for all workers? Run it again.")
    return len(pairs) - len(left)


def _begin(job: Job) -> None:
    """Makes the folder, or finds that it is of the same job."""
    head, identity = job.out / _HEAD, job.identity()
    try:
        (job.out / _FLOWS if job.flows else job.out).mkdir(parents=True, exist_ok=True)
        before = json.loads(head.read_text(encoding="utf-8")) if head.exists() else None
    except (OSError, ValueError) as error:
        raise GlunetError(f"The folder '{job.out}' cannot be used ({error}): choose another.") from error
    if before is None:
        if any(job.out.glob("*.parquet")):
            raise GlunetError(f"'{job.out}' holds Parquet files of something else: choose another folder.")
        write_json(head, identity)
        return
    other = [key for key in identity if before.get(key) != json.loads(json.dumps(identity[key]))]
    if other:
        raise GlunetError(f"'{job.out}' was begun with another {', '.join(other)}: run with the same, or elsewhere.")
    _clear(job.out)


def _clear(out: Path) -> None:
    """Removes what a worker that was killed had half written."""
    for folder in (out, out / _FLOWS):
        for part in folder.glob(".part-*"):
            part.unlink(missing_ok=True)


def _here(job: Job, todo: list[list[Names]]) -> Generator[Done, None, None]:
    if not todo:
        return
    matcher = BlockMatcher(job)
    for part in todo:
        yield Done(**matcher(_columns(part)))


def _columns(pairs: list[Names]) -> dict[str, list[str]]:
    return {"source": [source for source, _ in pairs], "target": [target for _, target in pairs]}


def _by_ray(job: Job, todo: list[list[Names]], address: str) -> Generator[Done, None, None]:
    """One actor a worker; Ray Data starts one that died again, and its block with it.

    An actor has at most two blocks, one in work and one that waits: the rest of the list stays here.
    """
    if not todo:
        return
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would report to its makers
    with needed("--ray needs Ray", "ray"):
        import ray
        import ray.data
    own = not ray.is_initialized()
    if own:
        try:
            cpus = {"num_cpus": max(job.workers, os.cpu_count() or 1)} if address == "local" else {}  # else it knows
            ray.init(address, log_to_driver=False, logging_level=logging.WARNING, **cpus)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise GlunetError(f"There is no Ray cluster at '{address}' ({error}): check the address.") from error
    try:
        ray.data.DataContext.get_current().enable_progress_bars = False  # ours counts pairs
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        gpus = {"num_gpus": 1} if job.device != "cpu" and ray.cluster_resources().get("GPU", 0) else {}
        found = ray.data.from_items([_columns(part) for part in todo], override_num_blocks=len(todo)).map(
            BlockMatcher,
            fn_constructor_args=(job,),
            compute=ray.data.ActorPoolStrategy(size=job.workers, max_tasks_in_flight_per_actor=2),
            num_cpus=1,
            **gpus,
        )
        for row in found.iter_rows():
            yield Done(**row)
    finally:
        if own:
            ray.shutdown()
