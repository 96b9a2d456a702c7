"""One image's keypoints: at most one a cell of a grid, so that pairs meet at the same ones."""

import numpy as np

NONE = -1


class Keypoints:
    """Points of one image. A point's number never changes.

    Attributes:
        cell: side of a cell, pixels.
        points: (N, 2) float32, x and y, pixel centres at integers.
        scores: (N,) float32, the confidence with which each was found.
    """

    def __init__(self, size: tuple[int, int], cell: int) -> None:
        self.cell = cell
        self.points = np.empty((0, 2), np.float32)
        self.scores = np.empty(0, np.float32)
        # One cell more on each side, so that every cell has neighbours.
        self._owner = np.full((-(-size[0] // cell) + 2, -(-size[1] // cell) + 2), NONE, np.int32)

    def __len__(self) -> int:
        return len(self.points)

    def nearest(self, points: np.ndarray, reach: float) -> np.ndarray:
        """For each of (M, 2) points the number of the nearest keypoint within `reach` (a cell at most), or NONE."""
        row, column = self._cells(points)
        best, distance = np.full(len(points), NONE, np.int32), np.full(len(points), np.float32(reach) + 1e-6)
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                owner = self._owner[row + down, column + right]
                there = np.flatnonzero(owner != NONE)
                away = np.linalg.norm(self.points[owner[there]] - points[there], axis=1)
                closer = away < distance[there]
                best[there[closer]], distance[there[closer]] = owner[there[closer]], away[closer]
        return best

    def add(self, points: np.ndarray, scores: np.ndarray) -> np.ndarray:
        """Takes (M, 2) points where their cell is free; returns their numbers, NONE where it is not.

        Of several in one cell, the first is taken.
        """
        row, column = self._cells(points)
        numbers = np.full(len(points), NONE, np.int32)
        free = np.flatnonzero(self._owner[row, column] == NONE)
        _, first = np.unique(row[free] * self._owner.shape[1] + column[free], return_index=True)
        taken = free[np.sort(first)]
        numbers[taken] = np.arange(len(self), len(self) + len(taken), dtype=np.int32)
        self._owner[row[taken], column[taken]] = numbers[taken]
        self.points = np.concatenate((self.points, points[taken].astype(np.float32)))
        self.scores = np.concatenate((self.scores, scores[taken].astype(np.float32)))
        return numbers

    def candidates(self, confidence: np.ndarray, least: float) -> np.ndarray:
        """In each free cell the most confident pixel near its middle, if it is at least that confident: (M, 2) float32.

        Args:
            confidence: H x W, 0..1.
        """
        rows, columns = self._owner.shape[0] - 2, self._owner.shape[1] - 2
        height, width = confidence.shape
        blocks = np.pad(confidence, ((0, rows * self.cell - height), (0, columns * self.cell - width)))
        blocks = blocks.reshape(rows, self.cell, columns, self.cell).swapaxes(1, 2)
        off = np.abs(np.arange(self.cell) - (self.cell - 1) / 2) / self.cell
        # As in `spread`: at a cell's border an eighth of confidence is given for a place further in.
        merit = np.where(blocks >= least, blocks - 0.25 * np.hypot(off[:, None], off), -1).reshape(rows, columns, -1)
        place = merit.argmax(axis=2)
        row, column = np.nonzero((self._owner[1:-1, 1:-1] == NONE) & (merit.max(axis=2) > -1))
        inside = place[row, column]
        found = np.stack((column * self.cell + inside % self.cell, row * self.cell + inside // self.cell), axis=-1)
        return found.astype(np.float32)

    def _cells(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Rows and columns of the cells of points; those half a pixel outside belong to the border's."""
        limits = np.array(self._owner.shape[::-1]) - 3
        column, row = np.clip(np.floor((points + 0.5) / self.cell).astype(np.int64), 0, limits).T + 1
        return row, column
