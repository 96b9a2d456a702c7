"""Evaluation: benchmarks of the field, metrics, and what one would use instead::

    from glunet.evaluation import benchmark, evaluate, method

    results = evaluate(benchmark("tss").open("TSS_CVPR2016"), method("glunet"))
    results.figure("pck_0.05")

A figure is an error in pixels or a share, 0..1.
"""

from glunet.evaluation.cache import Cache
from glunet.evaluation.datasets import BENCHMARKS, benchmark
from glunet.evaluation.datasets.base import Benchmark, Dataset
from glunet.evaluation.methods import Glunet, method
from glunet.evaluation.results import Results
from glunet.evaluation.run import evaluate
from glunet.evaluation.run_all import evaluate_all

__all__ = [
    "BENCHMARKS",
    "Benchmark",
    "Cache",
    "Dataset",
    "Glunet",
    "Results",
    "benchmark",
    "evaluate",
    "evaluate_all",
    "method",
]
