"""Points that match by the encoder's features."""

import numpy as np
import skimage.data

import glunet
from glunet.inference.features import feature_points


def test_features_of_places_are_matched_between_different_light_and_masks_leave_out_theirs():
    made = glunet.load()
    picture = skimage.data.astronaut()[:240, :320].astype(np.float64)
    dark = 255 * (picture[:, 64:] / 255) ** 2.2
    valid = np.ones((240, 320), bool)
    valid[:, 240:] = False
    source, target = made.open(picture / 255, valid), made.open(dark / 255)
    there, here = feature_points(made.computation, source, target)
    assert there.shape == here.shape
    assert len(here) > 50
    assert there[:, 0].max() < 240
    assert (np.abs(there - here - (64, 0)).max(axis=1) <= 8).mean() > 0.8
    assert (here >= -0.5).all()
    assert (here <= (255.5, 239.5)).all()
