"""What is kept of each matched pair, as it is done: a run that ends early loses none, another goes on from there."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glunet.errors import GlunetError
from glunet.flow.files import write_json, writing

_HEAD = "made-by.json"


class Kept(NamedTuple):
    """One pair: what `collect` found, and the keypoints that it added to both images.

    Attributes:
        pair: numbers of target and source.
        matches, scores, verdict: as `collect.Matched` has them.
        points, point_scores: for target and source, the new keypoints, (M, 2) and (M,) float32.
    """

    pair: tuple[int, int]
    matches: np.ndarray
    scores: np.ndarray
    verdict: str
    points: tuple[np.ndarray, np.ndarray]
    point_scores: tuple[np.ndarray, np.ndarray]


class Journal:
    """A folder with a file for each pair, in the order in which they were matched.

    Args:
        folder: made where it is missing.
        identity: of images and settings, as JSON has it; another one is not gone on with.
        resume: go on with what is there; else it is removed.

    Raises:
        GlunetError: if what is there is of other images or settings, or the folder cannot be made.
    """

    def __init__(self, folder: Path, identity: dict[str, Any], resume: bool) -> None:
        self.folder, self.count = folder, 0
        head = folder / _HEAD
        if folder.exists() and not resume:
            shutil.rmtree(folder)
        if head.exists():
            before = json.loads(head.read_text(encoding="utf-8"))
            other = [key for key in identity if before.get(key) != json.loads(json.dumps(identity[key]))]
            if other:
                raise GlunetError(
                    f"'{folder}' was begun with another {', '.join(other)}: run with the same, or without --resume."
                )
        folder.mkdir(parents=True, exist_ok=True)
        write_json(head, identity)

    def __iter__(self) -> Iterator[Kept]:
        """What earlier runs kept; a file that was cut off ends it."""
        while True:
            path = self._path(self.count)
            try:
                with np.load(path) as file:
                    kept = Kept(
                        (int(file["pair"][0]), int(file["pair"][1])),
                        file["matches"],
                        file["scores"],
                        str(file["verdict"]),
                        (file["points0"], file["points1"]),
                        (file["scores0"], file["scores1"]),
                    )
            except (OSError, ValueError, KeyError, EOFError):
                return
            self.count += 1
            yield kept

    def keep(self, kept: Kept) -> None:
        """Writes one pair.

        Raises:
            GlunetError: if it cannot be written; those before it stay.
        """
        with writing(self._path(self.count)) as part, part.open("wb") as file:
            np.savez(
                file,
                pair=np.array(kept.pair),
                matches=kept.matches,
                scores=kept.scores,
                verdict=np.array(kept.verdict),
                points0=kept.points[0],
                points1=kept.points[1],
                scores0=kept.point_scores[0],
                scores1=kept.point_scores[1],
            )
        self.count += 1

    def remove(self) -> None:
        """When all is written elsewhere."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:06d}.npz"
