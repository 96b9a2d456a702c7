"""Pictures of a match: what a notebook shows, and lines that begin and end where they should."""

import io

import numpy as np
import pytest
from PIL import Image

from glunet.errors import GlunetError
from glunet.images.drawing import LARGEST
from glunet.match import Match, Provenance
from untrained import matcher


def shifted(size: tuple[int, int] = (60, 80), other: tuple[int, int] = (60, 80)) -> Match:
    flow = np.broadcast_to(np.array((4, -3), np.float32), (*size, 2)).copy()
    pictures = (np.full((*other, 3), 90, np.uint8), np.full((*size, 3), 30, np.uint8))
    back = np.broadcast_to(np.array((-4, 3), np.float32), (*other, 2)).copy()
    return Match(flow, other, Provenance("test"), back, pictures=pictures)


def test_a_notebook_gets_a_png():
    for match in (shifted(), Match(shifted().flow, (60, 80), Provenance("test"))):
        with Image.open(io.BytesIO(match._repr_png_())) as picture:
            assert picture.format == "PNG"
            assert picture.size == match.show().size
    with pytest.raises(GlunetError, match="does not know its images"):
        match.draw()


def test_lines_join_what_belongs_together():
    page = np.asarray(shifted().draw(1))
    assert page.shape == (60, 172, 3)
    (target,), (source,), _ = shifted().sample(1)
    for x, y in (target, (source[0] + 92, source[1])):
        around = page[int(y) - 2 : int(y) + 4, int(x) - 2 : int(x) + 4].reshape(-1, 3)
        assert (np.ptp(around, axis=1) > 0).any()  # a colour, where the images are grey
    assert (page[0, 0] == 30).all()
    assert (page[0, 100] == 90).all()


def test_shapes_of_pages():
    assert shifted((60, 300), (60, 300)).draw(5).size == (300, 132)  # below each other
    assert max(shifted((1500, 1500), (1500, 1500)).draw(5).size) == LARGEST


def test_a_match_knows_its_images():
    source, target = (np.random.default_rng(0).integers(0, 256, (40, 50, 3)).astype(np.uint8) for _ in range(2))
    match = matcher().match(source, target)
    assert np.array_equal(match.pictures[0], source)
    assert np.array_equal(match.pictures[1], target)
    assert np.array_equal(match.reverse.pictures[0], target)
    assert match.draw(10, least=0).size == (112, 40)
