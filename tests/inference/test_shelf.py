"""Images that are in several pairs are encoded once, as long as there is room for them."""

import numpy as np
import pytest
import torch

from glunet.images import pairs
from glunet.inference import shelf
from glunet.inference.encoded import Encoded

SIDE = 40


class Reader:
    """Knows which images were asked for, one after the other."""

    def __init__(self) -> None:
        self.read: list[int] = []

    def __call__(self, number: int) -> np.ndarray:
        self.read.append(number)
        return np.full((SIDE, SIDE, 3), number, np.uint8)


def encode(pixels: np.ndarray) -> Encoded:
    return Encoded(torch.from_numpy(pixels).permute(2, 0, 1)[None].float(), None, None)


@pytest.mark.parametrize(("images", "again"), [(0, True), (2, True), (4, False)])
def test_images_are_kept_while_there_is_room(images: int, again: bool) -> None:
    reader = Reader()
    kept = shelf.Shelf(encode, reader, images * SIDE * SIDE)
    for i, j in pairs.by_blocks(pairs.every(4), max(2, images)):
        assert [int(kept[number].picture[0, 0, 0]) for number in (i, j)] == [i, j]
        assert len(kept._kept) <= max(2, images)
    assert len(reader.read) < 12  # two for each pair, if none were kept
    assert (len(reader.read) > 4) == again


def test_the_one_not_asked_for_the_longest_goes() -> None:
    reader = Reader()
    kept = shelf.Shelf(encode, reader, 2 * SIDE * SIDE)
    for number in (0, 1, 0, 2, 0, 1):
        _ = kept[number]
    assert reader.read == [0, 1, 2, 1]


def test_room_is_shared_by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shelf, "available_bytes", lambda device: 32_000_000)
    device = torch.device("cpu")
    assert shelf.room(device) == 30_000
    assert shelf.room(device, workers=2) == 15_000
    monkeypatch.setattr(shelf, "available_bytes", lambda device: None)
    assert shelf.room(device) == 0
