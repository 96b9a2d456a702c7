"""What a search asks of the network."""

import cv2
import numpy as np
import skimage.data

import glunet
from glunet.inference import passes, search
from glunet.inference.nearer import Asked


def turned(degrees: float, zoom: float, size: tuple[int, int], source_size: tuple[int, int]) -> np.ndarray:
    """Target -> source: turned and zoomed about the middles."""
    (y, x), (v, u) = (((side[0] - 1) / 2, (side[1] - 1) / 2) for side in (size, source_size))
    matrix = np.vstack((cv2.getRotationMatrix2D((x, y), degrees, zoom), (0, 0, 1)))
    return np.array(((1, 0, u - x), (0, 1, v - y), (0, 0, 1))) @ matrix


def test_a_pass_of_smaller_copies_is_that_of_the_images_but_coarser():
    made = glunet.load(search="none", polish=False, enlarge_to=640)
    photo = skimage.data.astronaut()
    matrix = turned(30, 1.1, (420, 500), photo.shape[:2])
    target = passes.warped(made.encode(photo), matrix, (420, 500))
    target = made.encode(target.picture)
    source = made.encode(photo)
    searcher = made_searcher(made, source, target)
    assert searcher.reduced is not None
    full, small = searcher.again(matrix), searcher.reduced(matrix)
    for one, other in zip(full, small, strict=True):
        assert one.shape == other.shape == (420, 500, 2)
        assert np.median(np.linalg.norm(other, axis=-1)) < 1
        assert np.median(np.linalg.norm(one - other, axis=-1)) < 1
    little = made.encode(photo[:300, :400])
    assert made_searcher(made, source, little).reduced is not None, "in a frame that is not enlarged"
    plain = made.with_(enlarge_to=0)
    for size in ((200, 280), (346, 500)):  # copies would have to be encoded, which the target is already
        pair = plain.encode(photo), plain.encode(photo[: size[0], : size[1]])
        assert made_searcher(plain, *pair).reduced is None, "nothing saved"


def made_searcher(made, source, target) -> search.Searcher:
    """As a matcher makes it."""
    return passes.searcher(
        made.computation,
        (source, target),
        passes.views_of(source, target),
        lambda s, t, frame: made._answer(Asked([s], [t], True, frame=frame)).ways()[0],
        "auto",
        (),
        made.settings.plane,
    )
