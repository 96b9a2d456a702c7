"""Evaluation in two steps: predictions, kept where they are not lost, and figures made from them."""

import time
from collections.abc import Callable, Iterator

from glunet.errors import GlunetError
from glunet.evaluation.baselines import Flow, Image, Method
from glunet.evaluation.cache import Cache, Key, content_key
from glunet.evaluation.datasets.base import Dataset, Pair, Sample
from glunet.evaluation.results import Results, Score, Skip
from glunet.evaluation.scoring import check_sample, score

Progress = Callable[[int, int, list[Score]], None]


def evaluate(
    dataset: Dataset,
    method: Method,
    limit: int | None = None,
    cache: Cache | None = None,
    progress: Progress | None = None,
) -> Results:
    """Measure a method on a dataset. Prints nothing.

    Args:
        dataset: an opened benchmark, `benchmark("tss").open(root)`.
        method: see `baselines.Method`.
        limit: at most so many pairs, spread evenly over the set.
        cache: where predictions are kept and found again; None makes every one anew.
        progress: called after every pair with pairs done, pairs in all and the scores so far.

    Returns:
        The scores, and which pairs could not be measured and why.

    Raises:
        GlunetError: not one pair could be measured, or the method's answer is of another size or not finite.
    """
    pairs = dataset.limited(limit)
    if dataset.benchmark.flipping:
        method = method.with_flipping()
    scores: list[Score] = []
    skipped: list[Skip] = []
    predict = _Predictor(method, cache)

    for batch in _batches(pairs, method.batch, skipped):
        for (pair, sample), flow in zip(batch, predict(batch), strict=True):
            scores.append(score(dataset.benchmark, pair, sample, flow))
        if progress is not None:
            progress(len(scores) + len(skipped), len(pairs), scores)
    if not scores:
        raise GlunetError(
            f"{dataset.benchmark.name}: none of {len(pairs)} pairs could be measured; the first: {skipped[0].reason}"
        )
    return Results(
        benchmark=dataset.benchmark,
        method=method.name,
        identity=method.identity,
        pairs_found=len(dataset.pairs),
        units_found=len({pair.unit or pair.name for pair in dataset.pairs}),
        scores=tuple(scores),
        skipped=tuple(skipped),
        limited=len(pairs) < len(dataset.pairs),
        seconds=predict.seconds / predict.matched if predict.matched else None,
    )


def _batches(pairs: tuple[Pair, ...], size: int, skipped: list[Skip]) -> Iterator[list[tuple[Pair, Sample]]]:
    """Runs of consecutive pairs of one size of source and target; pairs that cannot be read are noted in `skipped`."""
    batch: list[tuple[Pair, Sample]] = []
    for pair in pairs:
        try:
            sample = pair.load()
            check_sample(sample)
        except GlunetError as error:
            skipped.append(Skip(pair.name, str(error)))
            continue
        if batch and (len(batch) >= size or _shape(sample) != _shape(batch[0][1])):
            yield batch
            batch = []
        batch.append((pair, sample))
    if batch:
        yield batch


def _shape(sample: Sample) -> tuple[tuple[int, ...], tuple[int, ...]]:
    return sample.source.shape, sample.target.shape


class _Predictor:
    """Flows of batches, out of the cache where they are there, with the time that new ones took."""

    def __init__(self, method: Method, cache: Cache | None) -> None:
        self.method, self.cache = method, cache
        self.seconds, self.matched = 0.0, 0
        # KITTI's occ and noc are two truths of the same images: the last batch's flows are kept for the next.
        self.recent: dict[Key, Flow] = {}

    def __call__(self, batch: list[tuple[Pair, Sample]]) -> list[Flow]:
        keys = [content_key(sample.source, sample.target) for _, sample in batch]
        known: dict[Key, Flow] = {}
        missing: dict[Key, tuple[Image, Image]] = {}
        for key, (_, sample) in zip(keys, batch, strict=True):
            flow = self.recent.get(key)
            if flow is None and self.cache is not None:
                flow = self.cache.load(self.method.identity, key, sample.target.shape[:2])
            if flow is None:
                missing[key] = (sample.source, sample.target)
            else:
                known[key] = flow
        if missing:
            start = time.perf_counter()
            flows = self.method.match_many(list(missing.values()))
            self.seconds += time.perf_counter() - start
            self.matched += len(missing)
            for key, flow in zip(missing, flows, strict=True):
                known[key] = flow
                if self.cache is not None:
                    self.cache.save(self.method.identity, key, flow)
        self.recent = known
        return [known[key] for key in keys]
