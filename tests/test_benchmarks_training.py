"""The benchmark of training: its parts make a whole, and its operations are those of the convolutions."""

import dataclasses

import pytest
import torch
from benchmarks import training

from glunet.training.recipes import FULL, Settings
from narrow import Noise, narrow_network


def test_a_stage_is_measured_in_its_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    narrow_network(monkeypatch.setattr)
    stage = dataclasses.replace(FULL[0], batch=2, refresh=0.5)
    cost = training.measure(stage, Settings(steps=1, bf16=False), Noise(), torch.device("cpu"), repeats=1)
    assert cost.frame == (256, 256)
    assert min(cost.synthesis, cost.encoding, cost.forward, cost.backward) > 0
    # Of 16 views half is a step's share. Multiplications and additions of the narrow network's 3x3 convolutions:
    layers = ((3, 8, 1), (8, 8, 1), (8, 12, 4), (12, 12, 4), (12, 16, 16), (16, 16, 16), (16, 16, 16))
    layers += ((16, 24, 64), (24, 24, 64), (24, 24, 64))
    encoder = sum(2 * 9 * i * o * 256**2 / shrunk for i, o, shrunk in layers)
    # Level 4's decoder sees 256 channels at 16 x 16; backward is twice forward, but for the gradient of its input.
    assert cost.operations > 8 * encoder
    decoder = cost.operations - 8 * encoder
    blocks = 256 * 16 + 16 * 16 + 16 * 12 + 12 * 12 + 12 * 8 + 8 * 2 + (16 * 12 + 12 * 8) / 9
    assert decoder == pytest.approx(2 * (3 * blocks - 256 * 16) * 2 * 9 * 16**2, rel=0.1)
    rate = training.convolution_rate(torch.device("cpu"), bf16=False, repeats=1)
    assert 0 < cost.floor(rate) < cost.seconds
    lines = training.table([cost], rate).splitlines()
    assert len(lines) == 2
    shares = [float(word.rstrip("%")) for word in lines[1].split() if word.endswith("%")]
    assert sum(shares) == pytest.approx(100, abs=2)
