"""Photometric differences: in range, per image, repeatable, absent at strength 0."""

import torch

from glunet.training.photometric import _blur, _jpeg, augment


def images(count: int = 6) -> torch.Tensor:
    return torch.rand((count, 3, 45, 52), generator=torch.Generator().manual_seed(0))


def test_stays_in_range_and_on_grey_levels() -> None:
    out = augment(images(), torch.Generator().manual_seed(1), 1.0)
    assert out.shape == (6, 3, 45, 52)
    assert out.min() >= 0
    assert out.max() <= 1
    torch.testing.assert_close(out * 255, (out * 255).round(), atol=1e-3, rtol=0)


def test_each_image_differs_on_its_own_and_again_the_same() -> None:
    same = images(1).expand(6, -1, -1, -1).contiguous()
    one, two = (augment(same, torch.Generator().manual_seed(2)) for _ in range(2))
    assert torch.equal(one, two)
    assert all(not torch.equal(one[0], one[i]) for i in range(1, 6))


def test_blur_keeps_the_mean_and_lowers_the_contrast() -> None:
    out = _blur(images(), torch.full((6,), 1.5))
    torch.testing.assert_close(out.mean((2, 3)), images().mean((2, 3)), atol=0.02, rtol=0)
    assert (out.std((2, 3)) < 0.5 * images().std((2, 3))).all()


def test_fine_jpeg_is_nearly_the_picture_and_coarse_is_not() -> None:
    fine, coarse = (_jpeg(images(), torch.full((6,), c)) for c in (0.001, 3.0))
    torch.testing.assert_close(fine, images(), atol=0.01, rtol=0)
    assert (coarse - images()).abs().mean() > 0.05
