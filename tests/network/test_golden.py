"""The networks compute what the public implementations compute, key by key and level by level (SPEC 14)."""

from pathlib import Path

import numpy as np
import pytest
import torch

import glunet
import golden
from glunet.inference.frames import extra_levels, hnet_size, prepare
from glunet.loading import read_weights

CASES = [
    ("GLUNet", "GLUNet", 256, 256),
    ("GLUNet", "GLUNet", 375, 1242),
    ("DM_GLUNet", "GLUNet", 256, 256),
    ("DM_GLUNet", "GLUNet", 240, 320),
    ("DM_GLUNet", "GLUNet", 375, 1242),
    ("DM_GLUNet_interp", "DM_GLUNet_interp", 256, 256),
    ("DM_GLUNet_star", "DM_GLUNet_star", 256, 256),
]


@pytest.fixture(scope="module")
def checkpoints(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("official")
    paths = {name: folder / f"{name}.pth" for name in {case[1] for case in CASES}}
    for name, path in paths.items():
        torch.save(golden.official_state(name), path)
    return paths


def tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None]


@pytest.mark.parametrize(("name", "manifest", "height", "width"), CASES)
def test_golden(checkpoints: dict[str, Path], name: str, manifest: str, height: int, width: int) -> None:
    truncation = not name.startswith("DM")
    source, target = map(tensor, golden.pair(height, width))
    network, metadata = read_weights(checkpoints[manifest])
    assert metadata["iterative_refinement"]
    network.eval()
    size = hnet_size(height, width)
    target_high, target_low = prepare(target.float(), size, truncation)
    source_high, source_low = prepare(source.float(), size, truncation)
    with torch.inference_mode():
        flows = network(target_high, source_high, target_low, source_low, extra_levels(height, width))
    matcher = glunet.load(checkpoints[manifest], device="cpu", uint8_truncation=truncation)
    seen = {**{key: value for key, value in flows._asdict().items() if key != "extra"}}
    seen |= {f"extra{i}_flow": flow for i, flow in enumerate(flows.extra)}
    seen["flow"] = matcher.flow(source, target)
    checked = 0
    for key, expected in golden.figures(name, height, width).items():
        base, stride = key.rsplit("_s", 1)
        if base not in seen:
            continue
        got = seen[base].numpy()[..., :: int(stride), :: int(stride)]
        tolerance = golden.TOLERANCE if base == "flow" else 5e-3
        np.testing.assert_allclose(got, expected, rtol=0, atol=tolerance, err_msg=key)
        checked += 1
    assert checked == 5 + len(flows.extra)


def test_correlations_agree(checkpoints: dict[str, Path]) -> None:
    """The global correlation as decoder4 reads it, and level 3's local one."""
    source, target = map(tensor, golden.pair(256, 256))
    network = read_weights(checkpoints["GLUNet"])[0].eval()
    with torch.inference_mode():
        features = [
            network.encode(high, low) for high, low in (prepare(i.float(), (256, 256)) for i in (target, source))
        ]
        scores4 = network.global_scores(*features)
        flow4 = network.level4(*features)
        scores3 = network.local_scores(features[0].level3, features[1].level3, network.upsample_flow4(flow4), 1 / 8)
    expected = golden.figures("GLUNet", 256, 256)
    for got, key in ((scores4, "corr4_s4"), (scores3, "corr3_s4")):
        want = expected[key]
        np.testing.assert_allclose(got.numpy()[:, ::5, ::4, ::4], want, rtol=0, atol=1e-4 * np.abs(want).max())
