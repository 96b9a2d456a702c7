"""What search and polish compare images by."""

import cv2
import numpy as np
import torch

from glunet.inference.likeness import threads, warp
from textured import constant, scene


def test_opencv_gets_its_threads_back():
    before = cv2.getNumThreads()
    with threads():
        assert cv2.getNumThreads() == torch.get_num_threads()
    assert cv2.getNumThreads() == before


def test_warp_reads_the_source_where_the_flow_leads():
    image = scene()[..., 0]
    np.testing.assert_allclose(warp(image, constant(3, 2))[:-2, :-3], image[2:, 3:], atol=1e-2)
