"""What a run says of itself: log.jsonl, one line of numbers a report, and TensorBoard's files where it is installed."""

import json
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import numpy as np


class Record:
    """Writes each report to RUN/log.jsonl and, with tensorboard installed, to RUN/tensorboard."""

    def __init__(self, run: Path) -> None:
        run.mkdir(parents=True, exist_ok=True)
        self.last: dict[str, Any] = {}
        self._file = (run / "log.jsonl").open("a", encoding="utf-8")
        self._board = _board(run / "tensorboard")

    def __call__(self, line: dict[str, Any]) -> None:
        self.last = line
        rounded = {k: round(v, 5) if isinstance(v, float) else v for k, v in line.items()}
        self._file.write(json.dumps(rounded | {"time": round(time.time())}) + "\n")
        self._file.flush()
        if self._board is not None:
            group = "validation" if "motion" in line else "training"
            for name, value in line.items():
                if isinstance(value, float):
                    self._board.add_scalar(f"{group}/{name.replace(' ', '_')}", value, line["step"])

    def pictures(self, step: int, pictures: list[np.ndarray]) -> None:
        """Pictures (H x W x 3, uint8) of validation pairs, to TensorBoard."""
        if self._board is not None:
            for number, picture in enumerate(pictures, start=1):
                self._board.add_image(f"validation/pair{number}", picture, step, dataformats="HWC")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._file.close()
        if self._board is not None:
            self._board.close()


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))
