"""The gallery: its truths are true, and the command writes a page for whatever matcher there is."""

import re
import sys

import numpy as np
import pytest
import torch

pytest.importorskip("skimage")
pytest.importorskip("matplotlib")

from benchmarks import browser, gallery, gallery_pairs, gallery_pictures

import glunet
from glunet.flow.geometry import warp
from glunet.inference.encoded import Encoded
from glunet.match import Match, Provenance


@pytest.mark.parametrize("name", ["lying", "near", "mirrored", "video"])
def test_the_source_warped_by_the_truth_is_the_target(name):
    pair = getattr(gallery_pairs, name)()
    flow = torch.from_numpy(pair.truth.transpose(2, 0, 1)[None]).float().nan_to_num(1e6)
    warped = warp(torch.from_numpy(pair.source.copy()).permute(2, 0, 1)[None].float(), flow)[0].permute(1, 2, 0).numpy()
    known = np.isfinite(pair.truth).all(-1)
    assert known.mean() > 0.3
    apart = np.abs(warped - pair.target)[known].mean()
    assert apart < 3.5  # grey levels: the video's frames were interpolated twice
    assert np.abs(warped - np.roll(pair.target, 8, 1))[known].mean() > 2 * apart


class Lost:
    """A matcher that sees no motion, and says that it is not sure."""

    provenance = Provenance("lost")

    def encode(self, image):
        return image

    def match(self, source, target, **options):
        assert not isinstance(source, Encoded)
        return Match(np.zeros((*target.shape[:2], 2), np.float32), source.shape[:2], self.provenance)


def test_one_command_writes_the_page_and_its_pictures(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(glunet, "load", lambda weights: Lost())
    monkeypatch.setattr(browser, "missing", lambda: "not in this test")
    monkeypatch.setattr(sys, "argv", ["gallery", "--docs", str(tmp_path)])
    gallery.main()
    text = (tmp_path / "gallery.md").read_text()
    pictures = re.findall(r"\]\((images/[^)]*)\)", text)
    assert len(pictures) == len(gallery_pairs.ENTRIES)
    assert all(0 < (tmp_path / picture).stat().st_size <= gallery_pictures.LARGEST for picture in pictures)
    headings = {line[3:].lower().replace(" ", "-") for line in text.splitlines() if line.startswith("## ")}
    assert set(re.findall(r"\(#([^)]*)\)", text)) == headings
    assert text.count("glunet match pairs/") == len(pictures)
    assert "| lost |" in text
    assert "not in this test" in capsys.readouterr().err


def test_the_pairs_are_written_as_files(monkeypatch, tmp_path):
    monkeypatch.setattr(sys, "argv", ["gallery", "--pairs", str(tmp_path)])
    gallery.main()
    assert len(list(tmp_path.glob("*-source.png"))) == len(gallery_pairs.ENTRIES)
