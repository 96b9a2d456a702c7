"""Lists of pairs: which images, as files and as blocks."""

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glunet.errors import GlunetError
from glunet.images import pairs

names = st.text("ab c/.é", min_size=1).filter(lambda name: name == name.strip())
named_pairs = st.lists(st.tuples(names, names).filter(lambda pair: pair[0] != pair[1]), min_size=1, unique_by=frozenset)


@given(named_pairs)
def test_a_list_is_read_as_it_was_written(tmp_path_factory: pytest.TempPathFactory, named: list[pairs.Names]) -> None:
    file = tmp_path_factory.getbasetemp() / "pairs.txt"
    pairs.write(file, named)
    assert pairs.read(file) == named


def test_names_with_spaces_are_read_where_the_images_are_known(tmp_path: Path) -> None:
    images = ["a b.png", "c.png", "d.png"]
    file = tmp_path / "pairs.txt"
    file.write_text("# comment\na b.png c.png\n\nc.png d.png\nd.png  c.png\n")
    assert pairs.read(file, images) == [("a b.png", "c.png"), ("c.png", "d.png")]
    pairs.write(file, [("c.png", "a b.png")])
    assert pairs.read(file, images) == [("c.png", "a b.png")]
    for text, told in (
        ("c.png e.png\n", "Line 1 .* is 'c.png e.png'"),
        ("c.png c.png\n", "different"),
        ("", "no pairs"),
    ):
        file.write_text(text)
        with pytest.raises(GlunetError, match=told):
            pairs.read(file, images)
    file.write_text("a a a\n")  # which of them is in which name?
    with pytest.raises(GlunetError, match="different"):
        pairs.read(file, ["a", "a a"])


@pytest.mark.parametrize("line", ["one", "a b c", "a a", "a\tb\tc", "\ta"])
def test_a_line_that_names_no_pair_is_told(tmp_path: Path, line: str) -> None:
    file = tmp_path / "pairs.txt"
    file.write_text(f"# pairs\n{line}\n")
    with pytest.raises(GlunetError, match=r"^Line 2 of .* the names of two different images are expected"):
        pairs.read(file)


@given(st.integers(2, 30), st.integers(2, 9))
def test_an_order_for_few_images_has_the_same_pairs(count: int, room: int) -> None:
    every = pairs.every(count)
    assert sorted(pairs.by_blocks(every, room)) == every
    assert len(pairs.window(count, count)) == len(every) == count * (count - 1) // 2
    assert set(pairs.window(count, 1)) == {(i, i + 1) for i in range(count - 1)}


@given(named_pairs, st.integers(1, 9))
def test_blocks_hold_each_pair_once_as_it_came(named: list[pairs.Names], size: int) -> None:
    made = list(pairs.blocks(named, size))
    assert sorted(pair for block in made for pair in block) == sorted(named)
    assert all(len(block) == size for block in made[:-1])


def test_a_block_of_64_of_all_pairs_has_few_images() -> None:
    every = [(f"{i:03d}", f"{j:03d}") for i, j in pairs.every(100)]
    random.Random(0).shuffle(every)
    images = [len({name for pair in block for name in pair}) for block in pairs.blocks(every, 64)]
    assert np.mean(images) < 25  # of 64 pairs at random: 72
