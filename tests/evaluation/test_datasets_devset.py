"""Directions proved on real data: the source seen through the truth looks more like the target than without motion."""

from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch

from glunet.evaluation.baselines import Dis, Identity, SiftHomography
from glunet.evaluation.datasets import FlowTruth, PointTruth, Sample, benchmark
from glunet.evaluation.datasets.base import Benchmark
from glunet.evaluation.datasets.read import homography_flow
from glunet.evaluation.results import Results
from glunet.evaluation.run import evaluate
from glunet.evaluation.run_all import find
from glunet.flow.geometry import in_view, sample, warp
from places import SHARED

DEVSET = SHARED / "devset"
pytestmark = pytest.mark.skipif(not DEVSET.exists(), reason="needs ../shared/devset")

DENSE = ("hpatches-240", "hpatches", "hpatches-homography", "motorcycle", "middlebury", "kitti2012", "flyingchairs")


@cache
def folder(name: str) -> Path | None:
    return next((path for b, path in find(DEVSET) if b.name == name), None)


def as_tensor(image: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(image.copy()).permute(2, 0, 1)[None].float()


def dense_truth(pair: Sample) -> FlowTruth:
    if isinstance(pair.truth, FlowTruth):
        return pair.truth
    assert not isinstance(pair.truth, PointTruth)
    return FlowTruth(*homography_flow(pair.truth.matrix, pair.source.shape[:2], pair.target.shape[:2]))


@pytest.mark.parametrize("name", DENSE)
def test_the_warped_source_resembles_the_target(name: str) -> None:
    """In every pair, over the pixels whose truth points into the source."""
    for pair in benchmark(name).open(folder(name)).pairs:
        loaded = pair.load()
        truth = dense_truth(loaded)
        source, target = as_tensor(loaded.source), as_tensor(loaded.target)
        flow = torch.from_numpy(truth.flow.transpose(2, 0, 1).copy())[None]
        still = torch.from_numpy(Identity().match(loaded.source, loaded.target).transpose(2, 0, 1).copy())[None]
        region = torch.from_numpy(truth.valid)[None] & in_view(flow, loaded.source.shape[:2])
        assert region.float().mean() > 0.05
        with_truth, without = ((warp(source, f) - target).abs().mean(1)[region].mean() for f in (flow, still))
        # A flow read the wrong way round must not pass.
        against = (warp(source, 2 * still - flow) - target).abs().mean(1)[region].mean()
        assert with_truth < 0.9 * without, pair.name
        assert with_truth < against, pair.name


@cache
def encoder() -> torch.nn.Module:
    from glunet.loading import encoder_state
    from glunet.network.encoder import VGG16Pyramid

    network = VGG16Pyramid()
    network.load_state_dict({key.removeprefix("encoder."): value for key, value in encoder_state().items()})
    return network.eval()


def features(image: np.ndarray) -> torch.Tensor:
    """Unit vectors of VGG's conv3 block, 1 x 256 x h x w, stride 8."""
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    tensor = (as_tensor(image) / 255 - mean.view(1, 3, 1, 1)) / std.view(1, 3, 1, 1)
    with torch.inference_mode():
        return torch.nn.functional.normalize(encoder()(tensor, [3])[3], dim=1)


def agreement(pair: Sample) -> tuple[float, float]:
    """Mean cosine of features at corresponding points: through the truth, and without motion."""
    if isinstance(pair.truth, PointTruth):
        target, source = pair.truth.target, pair.truth.source
    else:
        truth = dense_truth(pair)
        y, x = (index[::97] for index in np.nonzero(truth.valid))
        target = np.stack((x, y), axis=1).astype(float)
        source = target + truth.flow[y, x]
    scale = np.array(pair.source.shape[1::-1]) / pair.target.shape[1::-1]
    still = (target + 0.5) * scale - 0.5
    there, here = features(pair.target), features(pair.source)

    def at(grid: torch.Tensor, points: np.ndarray) -> torch.Tensor:
        cells = (torch.from_numpy(points.T.copy()).float() + 0.5) / 8 - 0.5
        return sample(grid, cells[None, :, :, None], padding="border")[0, :, :, 0]

    values = [float((at(there, target) * at(here, points)).sum(0).mean()) for points in (source, still)]
    return values[0], values[1]


@pytest.mark.parametrize("name", ["tss", "pf-willow"])
def test_features_agree_at_the_truth(name: str) -> None:
    from glunet.loading import ENCODER
    from glunet.loading import folder as weights_folder

    if not (weights_folder() / f"{ENCODER}.safetensors").exists():
        pytest.skip("needs the encoder's weights")
    dataset = benchmark(name).open(folder(name))
    values = np.array([agreement(pair.load()) for pair in dataset.limited(12)])
    assert values[:, 0].mean() > values[:, 1].mean() + 0.01


# The columns of the table. SIFT on HPatches at its original size hangs on one hopeless pair and is left out.
TABLE = {
    "hpatches-240": (38.2, 31.7, 26.3),
    "hpatches": (115, 93, None),
    "motorcycle": (34.3, 2.6, 18.4),
    "middlebury": (2.53, 0.31, 1.40),
    "kitti2012": (2.84, 0.24, 1.11),
    "flyingchairs": (5.28, 4.91, 4.12),
    "tss": (0.08, 0.37, 0.01),
    "pf-willow": (0.28, 0.31, 0.09),
}


def digits(value: float) -> int:
    text = str(value)
    return len(text.partition(".")[2])


@pytest.mark.parametrize("name", TABLE)
def test_the_table_is_reproduced(name: str) -> None:
    """Within one of the last digit given."""
    dataset = benchmark(name).open(folder(name))
    methods = (Identity(), Dis(), SiftHomography())
    for method, figure in zip(methods, TABLE[name], strict=True):
        if figure is not None:
            got = evaluate(dataset, method).headline
            assert abs(got - figure) <= 1.01 * 10.0 ** -digits(figure), f"{method.name}: {got}"


def test_pck_of_the_table() -> None:
    dataset = benchmark("hpatches-240").open(folder("hpatches-240"))
    methods = (Identity(), Dis(), SiftHomography())
    got = [evaluate(dataset, method).figure("pck5") for method in methods]
    assert np.round(got, 2).tolist() == [0.01, 0.24, 0.70]


def test_all_sets_are_found_by_their_folders() -> None:
    found: dict[str, Benchmark] = {b.name: b for b, _ in find(DEVSET)}
    assert {*TABLE, "hpatches-homography", "hard"} == set(found)
    assert found["hard"].title == "hard"


def test_parts_of_sets_are_called_so() -> None:
    results: Results = evaluate(benchmark("hpatches-240").open(folder("hpatches-240")), Identity())
    assert results.part == "2 of 59 sequences: not comparable with published figures"
    assert results.groups == ("I", "II", "III", "IV", "V")
