"""The page of a match: what is in the file. What a browser makes of it is in test_view_browser.py."""

import base64
import json
import re
import zlib
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from PIL import Image

from glunet.errors import GlunetError
from glunet.images.page import UNKNOWN, build, pack, page, payload, percent, quantise
from viewed import SIZE, SOURCE_SIZE, match


def unpack(packed: bytes, width: int, height: int) -> tuple[np.ndarray, np.ndarray]:
    """As page.js does it: H x W x 2 steps, and percent."""
    planes = np.frombuffer(zlib.decompress(packed), np.uint8).reshape(5, height, width)

    def summed(plane: np.ndarray) -> np.ndarray:
        return np.add.accumulate(np.add.accumulate(plane, 1, plane.dtype), 0, plane.dtype)

    words = [summed(planes[i].astype(np.uint16) | planes[i + 1].astype(np.uint16) << 8) for i in (0, 2)]
    return np.stack(words, -1).view(np.int16), summed(planes[4])


def stored(text: str) -> dict:
    found = re.search(r'id="match">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


@given(
    st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
        lambda size: st.tuples(arrays(np.int16, (*size, 2)), arrays(np.uint8, size))
    )
)
def test_what_is_packed_is_unpacked(planes):
    steps, confidence = planes
    again, trust = unpack(pack(steps, confidence), steps.shape[1], steps.shape[0])
    np.testing.assert_array_equal(again, steps)
    np.testing.assert_array_equal(trust, confidence)


def test_the_page_knows_flow_and_confidence_of_each_pixel():
    made = match()
    told = stored(page(made))
    steps, trust = unpack(base64.b64decode(told["field"]), SIZE[1], SIZE[0])
    assert told["step"] == 1 / 8
    assert np.abs(steps / 8 - made.flow).max() <= 1 / 16
    assert 0.1 < (trust == 0).mean() < 0.9
    assert (trust[made.confidence > 0] > 0).all()
    # A whole percent divides the pixels on the page as it does in match.at.
    for least in (1, 25, 50, 75):
        points = np.stack(np.nonzero(trust >= least)[::-1], -1)
        assert not np.isnan(made.at(points, least=least / 100 if least > 1 else 0)[0]).any()
    assert told["sizes"] == {"source": [140, 100], "target": [160, 120]}
    assert told["verdict"]["same"] is made.verdict.same
    assert told["xs"] == list(range(SIZE[1]))


@given(arrays(np.float32, (3, 4), elements=st.floats(0, 1, width=32)))
def test_percent_is_rounded_down_and_never_to_none(confidence):
    whole = percent(confidence)
    assert ((whole == 0) == (confidence == 0)).all()
    assert (whole <= np.maximum(confidence * 100 + 1e-3, 1)).all()
    assert (whole > confidence * 100 - 1.001).all()


@given(arrays(np.float32, (3, 4, 2), elements=st.floats(-20000, 20000, width=32)), arrays(bool, (3, 4)))
def test_every_match_fits_into_steps(flow, matched):
    steps, step = quantise(flow, matched)
    known = (steps != UNKNOWN).all(-1)
    assert known[matched].all()
    assert np.abs(steps[known] * step - flow[known]).max(initial=0) <= step / 2
    assert step == 1 / 8 or np.abs(flow[matched]).max() / (step / 2) > 32767


def test_what_is_no_match_makes_no_step_coarser():
    flow = np.float32([[[4000, 1], [np.nan, 0], [1e9, 0], [-4095.5, 4095.875]]])
    steps, step = quantise(flow, np.array([[True, False, False, True]]))
    assert step == 1 / 8
    assert (steps[0, 1:3] == UNKNOWN).all()
    np.testing.assert_array_equal(steps[0, [0, 3]] / 8, flow[0, [0, 3]])


def test_a_large_target_is_shown_reduced_with_numbers_of_the_original():
    made = match()
    told = payload(made, longest=40)
    assert told["shown"] == {"source": (40, 29), "target": (40, 30)}
    steps, _ = unpack(base64.b64decode(told["field"]), 40, 30)
    x, y = 7, 11
    at = int(told["xs"][x]), int(told["ys"][y])
    assert at == (30, 46)  # the pixels in the middle of 4 x 4
    assert np.abs(steps[y, x] / 8 - made.flow[at[1], at[0]]).max() <= 1 / 16


def test_a_match_of_reduced_copies_tells_of_the_originals():
    """Twice as large a source, three times as large a target: pixel areas stay aligned."""
    made = match()
    sizes = (tuple(2 * side for side in SOURCE_SIZE), tuple(3 * side for side in SIZE))
    told = payload(made, sizes=sizes)
    steps, _ = unpack(base64.b64decode(told["field"]), SIZE[1], SIZE[0])
    x, y = 50, 60
    assert (told["xs"][x], told["ys"][y]) == (3 * (x + 0.5) - 0.5, 3 * (y + 0.5) - 0.5)
    there = np.array((told["xs"][x], told["ys"][y])) + steps[y, x] * told["step"]
    np.testing.assert_allclose(there, 2 * (made.map[y, x] + 0.5) - 0.5, atol=1 / 16 + 1e-4)
    assert told["matched"]["source"] == SOURCE_SIZE[::-1]


def test_without_a_way_back_the_page_says_less():
    told = payload(match(backward=None))
    assert told["confidence"]["kind"] == "in view"
    assert told["confidence"]["least"] == 0
    assert told["verdict"] == {"same": None, "text": "no verdict: matched in one direction only"}
    assert payload(match(calibration=None))["confidence"]["kind"] == "consistency"


def test_the_file_names_nothing_outside_and_forbids_it():
    text = page(match())
    assert not re.findall(r"https?://|//[a-z]+\.[a-z]|url\(|@import", text)
    policy = re.search(r'Content-Security-Policy" content="([^"]*)"', text)
    assert policy
    assert policy[1].startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy[1]
    assert "connect-src" not in policy[1]


def test_names_of_files_cannot_break_the_page():
    name = "</script><script>alert(1)</script>{{style}}\u2028'\".png"
    text = page(match(), (name, "<b>&.png"))
    assert stored(text)["names"]["source"] == name
    assert "<script>alert" not in text
    assert "<b>&.png" not in text


def test_match_saves_it(tmp_path):
    path = tmp_path / "view.html"
    assert match().save(path) == [path]
    assert path.read_text(encoding="utf-8") == page(match())
    with pytest.raises(GlunetError, match="does not know its images"):
        match(pictures=None).save(path)
    with pytest.raises(GlunetError, match="cannot be written"):
        match().save(tmp_path / "none" / "view.html")


def test_a_photograph_of_1000_x_750_is_a_page_of_less_than_4_mb():
    data = pytest.importorskip("skimage.data")
    left, right, _ = data.stereo_motorcycle()
    pictures = tuple(np.asarray(Image.fromarray(view).resize((1000, 750))) for view in (right, left))
    bent = match()
    flow = np.stack([np.asarray(Image.fromarray(bent.flow[..., i]).resize((1000, 750))) for i in range(2)], -1)
    back = -flow + np.random.default_rng(0).normal(0, 0.1, flow.shape).astype(np.float32)
    large = replace(bent, flow=flow, backward=back, source_size=(750, 1000), pictures=pictures)
    assert len(page(large)) < 4_000_000


def test_a_page_from_the_server_may_ask_it():
    assert "connect-src 'self'" in build("view", None, {"bytes": 1})
    assert 'id="match">null<' in build("match", None)  # where "Save this page" puts the match
