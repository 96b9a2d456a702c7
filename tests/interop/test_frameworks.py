"""vismatch and hloc find the matcher in their places."""

import importlib
import inspect
import sys
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch

import glunet
from glunet.errors import GlunetError
from glunet.interop.frameworks import HLOC, register_with_hloc, vismatch_matcher

SHIFT = (12, 5)  # right and down: where a place of image0 is in image1


@pytest.fixture(scope="module")
def pair() -> dict[str, torch.Tensor]:
    photo = torch.from_numpy(skimage.data.astronaut()).permute(2, 0, 1)[None] / 255
    x, y = SHIFT
    return {
        "image0": photo[..., 100 + y : 260 + y, 80 + x : 272 + x].contiguous(),
        "image1": photo[..., 100:260, 80:272].contiguous(),
    }


def on_shift(points0: np.ndarray, points1: np.ndarray) -> None:
    assert len(points0) > 100
    assert np.percentile(np.linalg.norm(points1 - points0 - SHIFT, axis=1), 95) < 1


HLOC_BASE = '''
from torch import nn


class BaseModel(nn.Module):
    """What hloc's own does, as far as a matcher sees it."""

    default_conf, required_inputs = {}, []

    def __init__(self, conf):
        super().__init__()
        self.conf = {**self.default_conf, **conf}
        self._init(self.conf)

    def forward(self, data):
        assert set(self.required_inputs) <= set(data)
        return self._forward(data)
'''


def test_hloc_finds_it_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pair) -> None:
    """hloc is not on the package index: this stands for its two modules that matter here."""
    for name, content in (("matchers", ""), ("utils", ""), ("utils/base_model.py", HLOC_BASE), ("__init__.py", "")):
        path = tmp_path / "hloc" / name
        path = path if path.suffix else path / "__init__.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    monkeypatch.syspath_prepend(tmp_path)
    importlib.invalidate_caches()
    try:
        register_with_hloc()
        where = f"hloc.matchers.{HLOC['model']['name']}"
        module = __import__(where, fromlist=[""])
        found = [kind for _, kind in inspect.getmembers(module, inspect.isclass) if kind.__module__ == where]
        (model,) = found
        answer = model({**HLOC["model"], "points": 800}).eval()(pair)
    finally:
        for name in [name for name in sys.modules if name.split(".")[0] == "hloc"]:
            del sys.modules[name]
    assert set(answer) == {"keypoints0", "keypoints1", "scores"}
    on_shift(answer["keypoints0"].numpy(), answer["keypoints1"].numpy())
    assert torch.equal(answer["keypoints1"], answer["keypoints1"].round())  # hloc refines in image0
    assert 100 < len(answer["scores"]) <= 800


def test_vismatch_takes_it(pair) -> None:
    pytest.importorskip("vismatch")
    found = vismatch_matcher(glunet.load(), ransac_reproj_thresh=2)(pair["image0"][0], pair["image1"][0])
    on_shift(found["matched_kpts0"], found["matched_kpts1"])
    assert found["num_inliers"] > 0.9 * len(found["matched_kpts0"])
    assert np.allclose(found["H"][:2, 2], SHIFT, atol=1)
    assert len(found["matched_confidences"]) == len(found["matched_kpts0"])


@pytest.mark.parametrize("missing", ["vismatch", "hloc"])
def test_what_is_not_there_is_named(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    with pytest.raises(GlunetError, match=f"{missing} cannot be imported"):
        register_with_hloc() if missing == "hloc" else vismatch_matcher(glunet.load())
