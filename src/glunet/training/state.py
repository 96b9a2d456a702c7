"""What a run goes on from, in RUN/state.pt; and how it is asked to stop."""

import contextlib
import logging
import os
import pickle
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch

from glunet.errors import GlunetError
from glunet.flow.files import writing
from glunet.loading import network_state
from glunet.network.family import Network

log = logging.getLogger(__name__)

State = dict[str, Any]


def write_state(path: Path, state: State) -> None:
    """Write what a run goes on from; the old file stays until the new one is whole, and on the disk.

    Raises:
        GlunetError: if it cannot be written.
    """
    try:
        with writing(path) as part:
            torch.save(state, part)
            with part.open("rb+") as file:
                os.fsync(file.fileno())
    except (RuntimeError, GlunetError) as error:  # RuntimeError is what torch makes of a full disk
        text = " ".join(str(error).split())[:200]
        raise GlunetError(
            f"{path} cannot be written, is the disk full? ({text}) "
            f"{'The last checkpoint is whole' if path.exists() else 'There is no checkpoint yet'}; make room, then "
            "give the same command again."
        ) from error


def read_state(path: Path) -> State | None:
    """What `write_state` wrote, on the CPU; None if there is no such file.

    Raises:
        GlunetError: if it is damaged, or something else.
    """
    if not path.exists():
        return None
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        if not isinstance(state, dict):
            raise ValueError("not a dictionary")
        return state
    except (RuntimeError, ValueError, EOFError, pickle.UnpicklingError, zipfile.BadZipFile) as error:
        raise _unusable(path) from error


def restore(path: Path, state: State, network: Network, averaged: Network, optimiser: torch.optim.Optimizer) -> None:
    """Put a state into its places.

    Raises:
        GlunetError: if it is another network's.
    """
    try:
        for module, name in ((network, "network"), (averaged, "averaged")):
            module.load_state_dict(network_state(module, encoder=True) | state[name])
        optimiser.load_state_dict(state["optimiser"])
    except (RuntimeError, ValueError, KeyError) as error:
        raise _unusable(path) from error
    log.info("going on at step %d", state["step"])


def _unusable(path: Path) -> GlunetError:
    return GlunetError(f"{path} is the state of another network, or damaged; pass a new folder as --out, or remove it.")


@contextlib.contextmanager
def stop_requests(patient: bool = False) -> Iterator[Callable[[], bool]]:
    """SIGTERM and Ctrl-C end the run after the step under way; a second one ends it at once.

    Args:
        patient: take no notice of a second one: torchrun hands on what every process has had from the terminal.
    """
    asked: list[int] = []

    def ask(number: int, _: object) -> None:
        if asked and not patient:
            raise KeyboardInterrupt
        if not asked:
            log.warning("asked to stop: saving after this step%s", "" if patient else "; once more ends at once")
        asked.append(number)

    try:
        before = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM)}
    except ValueError:  # not the main thread: whoever started it stops it
        before = {}
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
