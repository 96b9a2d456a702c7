"""How a network's time is divided: encoder, correlations, decoders, refinement, and the rest."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

from torch import nn

STAGES = ("encoder", "correlations", "decoders", "refinement", "rest")
_MODULES = {"encoder": "encoder", "decoder": "decoders", "upsample": "decoders", "refinement": "refinement"}
_METHODS = ("global_scores", "local_scores")  # warping is a part of the local ones


def known(network: Any) -> TypeGuard[nn.Module]:
    """Whether the stages of this network can be timed separately."""
    return all(hasattr(network, method) for method in _METHODS)


@contextmanager
def watched(network: nn.Module, wait: Callable[[], Any]) -> Iterator[dict[str, float]]:
    """While it lasts, the seconds that the network's parts take add up in the dictionary, by stage.

    Args:
        network: GLU-Net or its plain twin: parts are known by the names of its modules, correlations by its methods.
        wait: returns when the device has done all it was given.
    """
    seconds = dict.fromkeys(STAGES[:-1], 0.0)
    began: list[float] = []

    def start(*_: Any) -> None:
        wait()
        began.append(time.perf_counter())

    def stop(stage: str) -> None:
        wait()
        seconds[stage] += time.perf_counter() - began.pop()

    def timed(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **keywords: Any) -> Any:
            start()
            try:
                return method(*arguments, **keywords)
            finally:
                stop("correlations")

        return call

    hooks = []
    for name, module in network.named_children():
        stage = next((stage for part, stage in _MODULES.items() if name.startswith(part)), None)
        if stage is not None:
            hooks.append(module.register_forward_pre_hook(start))
            hooks.append(module.register_forward_hook(lambda *_, stage=stage: stop(stage)))
    for method in _METHODS:
        setattr(network, method, timed(getattr(network, method)))
    try:
        yield seconds
    finally:
        for hook in hooks:
            hook.remove()
        for method in _METHODS:
            delattr(network, method)


def shares(run: Callable[[], Any], network: nn.Module, wait: Callable[[], Any]) -> dict[str, float]:
    """Stage -> its share of the time of one run; they sum to 1."""
    wait()
    with watched(network, wait) as seconds:
        began = time.perf_counter()
        run()
        wait()
        whole = time.perf_counter() - began
    parts = {stage: taken / whole for stage, taken in seconds.items()}
    return parts | {"rest": 1 - sum(parts.values())}
