"""Inputs and weights that are functions of their names alone, and the figures the public implementations make of them.

The figures are samples of ../shared/golden (see there for what made them), every N-th row and column.
"""

import csv
import zlib

import numpy as np
import torch
from PIL import Image

from places import TESTS

DATA = TESTS / "data"
# Pixels. A CPU without AVX-512 adds up in another order: up to 3.7e-3 px apart at flows of hundreds of pixels.
TOLERANCE = 2e-3 if torch.backends.cpu.get_cpu_capability() == "AVX512" else 5e-3
GAIN = (
    ("pyramid", 1.4),
    ("decoder4.final", 8.0),
    ("decoder4.conv_", 0.6),
    ("decoder4.conv0_skip", 0.6),
    ("decoder4.conv2_skip", 0.6),
    ("decoder4.", 1.4),
    ("predict_flow", 1.0),
    ("dc_conv7", 0.7),
    ("dc_conv", 1.1),
)

# The values of GOCor's parameters, from normal numbers and their bins' distances.
GOCOR = {
    "log_step_length": lambda n, distance: 0.1 * n,
    "filter_reg": lambda n, distance: 0.01 * (1 + 0.1 * n),
    "target_bg": lambda n, distance: 0.05 * n,
    "label_map_predictor": lambda n, distance: np.exp(-0.5 * distance**2) + 0.05 * n,
    "spatial_weight_predictor": lambda n, distance: 1 + 0.1 * n,
    "reg_layer": lambda n, distance: 0.05 * n,
}


def weight(key: str, shape: tuple[int, ...]) -> torch.Tensor:
    """The tensor called `key`: normal numbers seeded by the name, scaled so that every level moves the flow visibly."""
    if key.endswith("num_batches_tracked"):
        return torch.zeros(shape, dtype=torch.int64)
    n = np.random.Generator(np.random.PCG64(zlib.crc32(key.encode()))).standard_normal(shape)
    leaf = key.rsplit(".", 1)[-1]
    if leaf in ("running_mean", "bias"):
        values = 0.01 * n
    elif leaf == "running_var":
        values = 1 + 0.1 * np.abs(n)
    elif leaf in GOCOR or key.split(".")[-2] in GOCOR:
        distance = 0.5 * np.arange(shape[1] if len(shape) == 4 else 1).reshape(1, -1, 1, 1)
        values = GOCOR[leaf if leaf in GOCOR else key.split(".")[-2]](n, distance)
    elif "target_mask_predictor" in key:
        values = 4 * np.tanh(2 - 0.5 * np.arange(shape[1]).reshape(1, -1, 1, 1)) + 0.1 * n
    elif len(shape) < 2:
        values = 1 + 0.1 * n
    else:
        fan_in = 4 * shape[0] if "deconv" in key or "upfeat" in key else int(np.prod(shape[1:]))
        if "pyramid" in key or "decoder4." in key:
            n = n - n.mean(axis=tuple(range(1, n.ndim)), keepdims=True)
        gain = next((g for part, g in GAIN if part in key), 0.5)
        values = gain * np.sqrt(2.0 / fan_in) * n
    return torch.from_numpy(np.asarray(values, np.float32))


def manifest(name: str) -> dict[str, tuple[int, ...]]:
    """Key -> shape of an official network's state dict, in its order."""
    with (DATA / "manifests" / f"{name}.tsv").open(newline="") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    return {row["key"]: tuple(int(n) for n in row["shape"].split("x") if n not in ("", "scalar")) for row in rows}


def official_state(name: str) -> dict[str, torch.Tensor]:
    """A whole official state dict with the golden weights."""
    return {key: weight(key, shape) for key, shape in manifest(name).items()}


def figures(name: str, height: int, width: int) -> dict[str, np.ndarray]:
    """What the public implementation made of `pair(height, width)`: array name, then `_s` and the stride."""
    with np.load(DATA / "golden" / f"{name}_{height}x{width}.npz") as file:
        return dict(file)


def pair(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """(source, target), uint8 height x width x 3: a texture, and it turned, scaled, shifted, waved and darkened."""
    margin = max(height, width) // 4
    canvas = _texture(height + 2 * margin, width + 2 * margin, seed=1000 * height + width)
    source = canvas[margin : margin + height, margin : margin + width]
    flow = _true_flow(height, width)
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    target = 0.9 * _bilinear(canvas, x + flow[..., 0] + margin, y + flow[..., 1] + margin) + 8.0
    return tuple(np.clip(np.floor(image + 0.5), 0, 255).astype(np.uint8) for image in (source, target))


def _texture(height: int, width: int, seed: int) -> np.ndarray:
    random = np.random.Generator(np.random.PCG64(seed))
    total = np.zeros((height, width, 3))
    for cell, amplitude in ((64, 1.0), (24, 0.8), (10, 0.6), (5, 0.4)):
        low = random.integers(0, 256, size=(height // cell + 2, width // cell + 2, 3), dtype=np.uint8)
        up = Image.fromarray(low).resize((width, height), Image.Resampling.BICUBIC)
        total += amplitude * (np.asarray(up, np.float64) - 127.5)
    return np.clip(127.5 + 0.75 * total, 0, 255)


def _true_flow(height: int, width: int) -> np.ndarray:
    y, x = np.mgrid[0:height, 0:width].astype(np.float64)
    cx, cy = (width - 1) / 2, (height - 1) / 2
    angle, scale = np.deg2rad(6.0), 1.05
    u = scale * (np.cos(angle) * (x - cx) - np.sin(angle) * (y - cy)) + cx + 0.03 * width
    v = scale * (np.sin(angle) * (x - cx) + np.cos(angle) * (y - cy)) + cy - 0.02 * height
    u = u + 3.0 * np.sin(2 * np.pi * y / max(height, 1) * 2)
    v = v + 2.0 * np.cos(2 * np.pi * x / max(width, 1) * 3)
    return np.stack([u - x, v - y], -1)


def _bilinear(image: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    height, width = image.shape[:2]
    x, y = np.clip(x, 0, width - 1.001), np.clip(y, 0, height - 1.001)
    x0, y0 = np.floor(x).astype(int), np.floor(y).astype(int)
    fx, fy = (x - x0)[..., None], (y - y0)[..., None]
    top = image[y0, x0] * (1 - fx) + image[y0, x0 + 1] * fx
    return top * (1 - fy) + (image[y0 + 1, x0] * (1 - fx) + image[y0 + 1, x0 + 1] * fx) * fy
