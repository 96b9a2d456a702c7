"""The loss: end-point error at every level of the network."""

from collections.abc import Sequence

import torch
from torch import Tensor

from glunet.flow.geometry import in_view, pixel_grid, scale_flow, warp
from glunet.network.glunet import LNET_SIZE
from glunet.network.uncertainty import Mixture
from glunet.training.scenes import Scenes, Truth, truth

# Of the levels 4, 3, 2 and 1, then of extra levels. SPEC 8 sums over the pixels of a 520 frame: on means its weights
# are 82, 82, 84, 169.
LEVEL_WEIGHTS = (1.0, 1.0, 1.0, 2.0)
EXTRA_WEIGHT = 0.5
# What is covered in the source has a known flow, and what left its view a smoothly extrapolated one: both teach the
# network to go on where it sees nothing, but less than what it can see.
OCCLUDED, OUT_OF_VIEW = 0.3, 0.1
# What the uncertainty learns of a flow that has no right answer: that it is wrong by so much in x and in y, pixels.
NOWHERE = 40.0
# A way by another photograph that ends so far off says nothing of how to mend it, pixels of 256.
LOST = 64.0


def truths(
    scenes: Scenes, target: Tensor, source: Tensor, frame: tuple[int, int], grids: Sequence[tuple[int, int]]
) -> list[Truth]:
    """The true flow at each grid, the first two (levels 4 and 3) in pixels of the 256 frame, the rest of `frame`."""
    known: dict[tuple[tuple[int, int], bool], Truth] = {}
    for i, grid in enumerate(grids):
        low = i < 2
        if (grid, low) not in known:
            true = truth(scenes, target, source, grid, frame)
            if low:
                true.flow = scale_flow(true.flow, LNET_SIZE / frame[1], LNET_SIZE / frame[0])
            known[grid, low] = true
    return [known[grid, i < 2] for i, grid in enumerate(grids)]


def level_error(flow: Tensor, true: Truth, robust: bool = False) -> Tensor:
    """Weighted mean end-point error of one level, in the pixels of its flow; a scalar.

    Args:
        flow: B x 2 x h x w, and `true` at the same grid.
        robust: 2 (error + 0.01)^0.5 instead, which cares less for what is far off.
    """
    # The small constant keeps the root's gradient finite at zero error.
    error = ((flow - true.flow).square().sum(dim=1) + 1e-6).sqrt()
    if robust:
        error = 2 * (error + 0.01).sqrt()
    weight = true.visible.float() + OCCLUDED * (true.in_view & ~true.visible) + OUT_OF_VIEW * ~true.in_view
    return (weight * error).sum() / weight.sum()


def loss(
    flows: Sequence[Tensor], true: Sequence[Truth], robust: bool = False, learn: Sequence[bool] | None = None
) -> Tensor:
    """The errors of the levels 4, 3, 2, 1, as far as given, then of extra levels, weighted; a scalar.

    Args:
        learn: which of them count; None for all.
    """
    weights = LEVEL_WEIGHTS + (EXTRA_WEIGHT,) * (len(flows) - len(LEVEL_WEIGHTS))
    counted = [True] * len(flows) if learn is None else learn
    terms = zip(flows, true, weights, counted, strict=False)
    return torch.stack([weight * level_error(flow, t, robust) for flow, t, weight, counts in terms if counts]).sum()


def descriptor_loss(logits: Tensor, true: Truth) -> Tensor:
    """Mean negative log-likelihood of the true positions under a softmax both ways (`GlobalAdapter`); nats, a scalar.

    Args:
        logits: B x S x h x w, of S = h w source positions.
        true: at that grid, in pixels of the 256 frame. A position between four counts as each by its share.
    """
    both = logits.log_softmax(dim=1) + logits.flatten(2).log_softmax(dim=2).view_as(logits)
    likelihood, known = _at_truth(both, true)
    return -(likelihood * known).sum() / known.sum().clamp(min=1)


def consistency_loss(first: Tensor, second: Tensor, true: Truth) -> Tensor:
    """How unlikely descriptors find the true positions by way of another photograph; nats, a scalar.

    Probabilistic warp consistency (Truong et al., CVPR 2022): what is true from one photograph to another is not known,
    but from the target to the other photograph and on to the source must lead where the truth does. The two softmaxes
    are composed, P(s | t) = sum over j of P(j | t) P(s | j). Only the better half of a pair's positions counts: two
    photographs do not show all the same.

    Args:
        first: B x J x h x w, logits of the J = h w positions of the other photograph for each of the target.
        second: B x S x h x w, of the S = h w positions of the source for each of the other photograph.
        true: from target to source at that grid, in pixels of the 256 frame.
    """
    there, on = (logits.float().softmax(dim=1).flatten(2) for logits in (first, second))
    likelihood, known = _at_truth(torch.bmm(on, there).view_as(second), true)
    surprise = -likelihood.clamp(min=1e-6).log()
    counted = _better_half(surprise, known)
    return (surprise * counted).sum() / counted.sum().clamp(min=1)


def bipath_error(first: Tensor, second: Tensor, true: Truth) -> Tensor:
    """Mean end-point error of a flow by way of another photograph; pixels of the 256 frame, a scalar.

    The W-bipath objective of warp consistency (Truong et al., ICCV 2021), over the better half of a pair's positions.

    Args:
        first: B x 2 x h x w, the flow from the target to the other photograph, and `second` from there to the source.
        true: from target to source. All in pixels of the 256 frame.
    """
    height, width = first.shape[-2:]
    step = scale_flow(first, width / LNET_SIZE, height / LNET_SIZE)
    composed = first + warp(second, step, padding="border")
    error = ((composed - true.flow).square().sum(dim=1) + 1e-6).sqrt()
    counted = _better_half(error, true.visible & in_view(step, (height, width))) & (error < LOST)
    return (error * counted).sum() / counted.sum().clamp(min=1)


def _at_truth(values: Tensor, true: Truth) -> tuple[Tensor, Tensor]:
    """The values, B x S x h x w of S = h w source positions, at the true ones, and where these are: both B x h x w."""
    height, width = values.shape[-2:]
    place = pixel_grid(height, width, values.device) + scale_flow(true.flow, width / LNET_SIZE, height / LNET_SIZE)
    x, y = place.unbind(dim=1)
    known = true.visible & (x > -0.5) & (x < width - 0.5) & (y > -0.5) & (y < height - 0.5)
    x, y = x.clamp(0, width - 1), y.clamp(0, height - 1)
    left, top = x.floor().clamp(max=width - 2), y.floor().clamp(max=height - 2)
    found = torch.zeros_like(x)
    for dy in (0, 1):
        for dx in (0, 1):
            share = (1 - (x - left - dx).abs()) * (1 - (y - top - dy).abs())
            there = ((top + dy) * width + left + dx).long()[:, None]
            found = found + share * values.gather(1, there)[:, 0]
    return found, known


def _better_half(error: Tensor, known: Tensor) -> Tensor:
    """The half of each pair's known positions whose error is smaller; both and the result B x h x w."""
    ranked = torch.where(known, error.detach(), torch.inf).flatten(1).sort(dim=1).values
    middle = (known.flatten(1).sum(dim=1, keepdim=True) - 1).clamp(min=0) // 2
    return known & (error <= ranked.gather(1, middle)[..., None])


def uncertainty_loss(mixture: Mixture, flow: Tensor, true: Truth, related: Tensor) -> Tensor:
    """Mean negative log-likelihood of the flow's errors; a scalar.

    Args:
        flow: B x 2 x h x w, and `true` at the same grid.
        related: B, whether the images of a pair show the same scene. Where they do not, and what is covered or out of
            view, counts as wrong by `NOWHERE`.
    """
    known = (true.visible & related.view(-1, 1, 1))[:, None]
    return mixture.negative_log_likelihood(torch.where(known, flow - true.flow, NOWHERE)).mean()
