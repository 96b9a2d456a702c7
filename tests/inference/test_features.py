"""Points that match by the encoder's features."""

import numpy as np
import skimage.data

import glunet
from glunet.inference import features
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


def test_an_image_is_described_once(monkeypatch):
    """By whoever asks first: the network, where nothing comes back, or a search."""
    made = glunet.load()
    images = [made.open(skimage.data.astronaut()[:120, x : x + 160]) for x in (0, 40)]
    described, asked = features._described, []
    monkeypatch.setattr(features, "_described", lambda *given: asked.append(given) or described(*given))
    once, again = (feature_points(made.computation, *images) for _ in range(2))
    assert len(asked) == 2
    for one, other in zip(once, again, strict=True):
        np.testing.assert_array_equal(one, other)
