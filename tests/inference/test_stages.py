"""PDC-Net's stages: a homography of what is sure, a pass through it, the best of several scales."""

import cv2
import numpy as np
import pytest
import torch

import glunet
import golden
from glunet.errors import GlunetError
from glunet.inference import stages
from glunet.inference.likeness import grid
from glunet.inference.search import homography_flow
from glunet.inference.stages import Ways
from untrained import matcher

SIZE = (120, 160)
TRUE = np.array(((0.9, -0.2, 20.0), (0.15, 1.05, -8.0), (1e-4, 0.0, 1.0)))


def sure(size: tuple[int, int] = SIZE, where: np.ndarray | None = None) -> np.ndarray:
    """A mixture that is sure, or only `where`."""
    mixture = np.zeros((*size, 4), np.float32)
    mixture[..., 1] = 10
    mixture[..., 2] = 8 if where is None else np.where(where, 8, -8)
    return mixture


def answer(flow: np.ndarray, mixture: np.ndarray) -> Ways:
    return Ways(flow, mixture=mixture)


def test_the_homography_of_what_is_sure():
    random = np.random.default_rng(0)
    flow = homography_flow(TRUE, SIZE)
    half = np.arange(SIZE[1])[None] < 80
    flow = np.where(np.broadcast_to(half, SIZE)[..., None], flow, random.normal(0, 60, flow.shape)).astype(np.float32)
    found = stages.confident_homography(answer(flow, sure(where=np.broadcast_to(half, SIZE))))
    assert found is not None
    matrix, share = found
    assert np.abs(homography_flow(matrix, SIZE) - homography_flow(TRUE, SIZE)).max() < 0.5
    assert 0.4 < share <= 0.5
    assert stages.confident_homography(answer(flow, sure(where=np.zeros(SIZE, bool)))) is None, "it is sure of nothing"
    mirrored = np.array(((-1.0, 0, 159), (0, 1, 0), (0, 0, 1)))
    assert stages.confident_homography(answer(homography_flow(mirrored, SIZE), sure())) is None


def test_a_pass_is_composed_and_the_first_kept_where_nothing_is_shown():
    residual = np.full((*SIZE, 2), (2.0, -1.0), np.float32)
    shown = np.ones(SIZE, bool)
    shown[:, :50] = False
    first = answer(np.full((*SIZE, 2), 7, np.float32), sure(where=np.zeros(SIZE, bool)))
    asked = []

    def again(matrix: np.ndarray) -> tuple[Ways, np.ndarray]:
        asked.append(matrix)
        return answer(residual, sure()), shown

    passed = stages.through(TRUE, first, again)
    assert np.array_equal(asked[0], TRUE)
    ends = cv2.perspectiveTransform((grid(SIZE) + residual).reshape(1, -1, 2).astype(np.float64), TRUE)
    expected = (ends.reshape(*SIZE, 2) - grid(SIZE)).astype(np.float32)
    inner = (slice(5, -5), slice(55, -5))
    np.testing.assert_allclose(passed.flow[inner], expected[inner], atol=1e-3)
    assert np.array_equal(passed.mixture[inner], sure()[inner])
    assert np.array_equal(passed.flow[:, :45], first.flow[:, :45])
    assert np.array_equal(passed.mixture[:, :45], first.mixture[:, :45])


def test_of_several_scales_the_one_that_explains_most():
    """The network is sure at one scale only; what it says there is brought back to the images' own pixels."""
    true = np.array(((2.0, 0, -40), (0, 2.0, -20), (0, 0, 1)))
    asked = []

    def resized(target: tuple[int, int], source: tuple[int, int]) -> Ways:
        asked.append((target, source))
        scale = np.array(((source[1] / SIZE[1], 0, 0), (0, source[0] / SIZE[0], 0), (0, 0, 1)))
        inverse = np.array(((SIZE[1] / target[1], 0, 0), (0, SIZE[0] / target[0], 0), (0, 0, 1)))
        flow = homography_flow(scale @ true @ inverse, target)
        return answer(flow, sure(target, None if source == (60, 80) else np.zeros(target, bool)))

    first = answer(np.zeros((*SIZE, 2), np.float32), sure(where=np.zeros(SIZE, bool)))
    through = []

    def again(matrix: np.ndarray) -> tuple[Ways, np.ndarray]:
        through.append(matrix)
        return answer(np.zeros((*SIZE, 2), np.float32), sure()), np.ones(SIZE, bool)

    stages.multi_scale(first, SIZE, SIZE, resized, again)
    assert len(asked) == len(stages.RATIOS) - 1, "the images as they are were matched already"
    (matrix,) = through
    assert np.abs(homography_flow(matrix, SIZE) - homography_flow(true, SIZE)).max() < 1.1  # of the pixels' centres
    asked.clear()
    small = answer(np.zeros((40, 48, 2), np.float32), sure((40, 48), np.zeros((40, 48), bool)))
    assert stages.multi_scale(small, (40, 48), (40, 48), resized, again) is small
    assert {min(*target, *source) for target, source in asked} == {35}, "under 32 px nothing is matched"


def test_the_stages_of_a_checkpoint(tmp_path):
    path = tmp_path / "pdcnet.pth"
    torch.save(golden.official_state("DM_PDCNet"), path)
    source, target = golden.pair(256, 256)
    for how in ("H", "MS"):
        match = glunet.load(path, device="cpu", stages=how).match(source, target, confidence=False)
        assert match.metadata()["settings"]["stages"] == how
        assert np.isfinite(match.flow).all()
        assert match.mixture is not None
        assert match.flow.shape == (256, 256, 2)


def test_stages_are_for_pdcnet():
    with pytest.raises(GlunetError, match="is for pdc-net"):
        matcher(stages="H")
    with pytest.raises(GlunetError, match="'D', 'H', 'MS'"):
        matcher(stages="X")
