"""The network alone as an ONNX graph: two images in, the flow and the way back out (`glunet export`).

What works on whole images with a library of its own is not in a graph: search, polish and tiles, and with them the
calibrated confidence; nor is the pass through a plane (`looks`), which hangs on what the global level finds. The round
trip of the two flows is there to be had.
"""

import json
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from glunet.errors import GlunetError, needed
from glunet.flow.files import writing
from glunet.flow.geometry import Size, pixel_grid, resize_bilinear, scale_flow
from glunet.inference import frames
from glunet.inference.settings import Settings
from glunet.network.anchor import anchored
from glunet.network.glunet import LNET_SIZE, Features, GLUNet

OPSET = 18
LARGEST = 527  # px of a target's side in a graph of all sizes, which has no pyramid
LARGEST_SOURCE = 8192
HALF_FROM = 1024  # numbers of a tensor from which on it is worth to be stored in 16 bits
# (height, width) of targets and sources at which a graph of all sizes is checked.
CHECKED = (((280, 400), (300, 340)), ((256, 256), (256, 256)), ((64, 520), (601, 333)))
LARGEST_MISS = 0.1  # px by which the graph's flow may differ from the network's for 99 % of the pixels


class Graph(nn.Module):
    """What the graph computes, without a branch that hangs on what an image shows.

    Args:
        network: in eval mode.
        settings: passes, pyramid, extra levels and truncation.
        size: (height, width) of both images; None for a graph of all sizes.
    """

    def __init__(self, network: GLUNet, settings: Settings, size: Size | None) -> None:
        super().__init__()
        self.network, self.settings = network, settings
        self.frames: tuple[Size, ...] | None = None
        self.extra_levels = 0
        if size is not None:
            frame = frames.hnet_size(*frames.enlarged(size, settings.enlarge_to))
            self.frames = frames.pyramid(*frame) if settings.pyramid else (frame,)
            self.extra_levels = frames.extra_levels(*frame) if settings.iterative_refinement else 0

    def forward(self, source: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
        """The flow and the way back, as `Match.flow` and `Match.backward` have them.

        Args:
            source, target: 1 x 3 x H x W, RGB in 0..255, float32.

        Returns:
            1 x 2 x H x W, target into source, and 1 x 2 x H_source x W_source, pixels.
        """
        height, width = target.shape[-2:]
        at: Any = self.frames or ((_hnet_side(height), _hnet_side(width)),)
        pair = self._both_ways(source, target, at[0])
        flow = self.network.decode(*pair, self.extra_levels, passes=self.settings.first_passes)[-1]
        for before, frame in pairwise(at):
            flow = scale_flow(flow, frame[1] / before[1], frame[0] / before[0])
            flow = self.network.fine(list(self._both_ways(source, target, frame)), flow, passes=self.settings.passes)[1]
        if self.settings.anchor:
            flow = anchored(*pair, self.network.level4(*pair), flow, at[-1])
        return _finish(flow[:1], target, source, at[-1]), _finish(flow[1:], source, target, at[-1])

    def _both_ways(self, source: Tensor, target: Tensor, frame: Size) -> tuple[Features, Features]:
        """The features of target and source, and the other way round, as one batch of two pairs."""
        ours, theirs = (self._encode(image, frame) for image in (target, source))
        return tuple(
            Features(*(torch.cat(levels) for levels in zip(*both, strict=True)))
            for both in ((ours, theirs), (theirs, ours))
        )  # type: ignore[return-value]

    def _encode(self, image: Tensor, frame: Size) -> Features:
        low = self._prepare(image, (LNET_SIZE, LNET_SIZE))
        mirrored = low.flip(-1) if self.settings.ensemble else None
        if self.frames is not None:
            high = low if frame == (LNET_SIZE, LNET_SIZE) else self._prepare(image, frame)
            return self.network.encode(high, low, mirrored)
        features, (height, width) = self.network.encode(low, low, mirrored), frame
        sizes = (height // 8, width // 8), (height // 4, width // 4)

        # A graph of all sizes encodes the frame only where it is another than the L-Net's. Both branches must say in
        # the same words how large their results are: so the one resizes what has that size already, and both flatten.
        def known(_: Tensor, *levels: Tensor) -> tuple[Tensor, ...]:
            return tuple(F.interpolate(level, size).flatten() for level, size in zip(levels, sizes, strict=True))

        def encoded(image: Tensor, *_: Tensor) -> tuple[Tensor, ...]:
            return tuple(level.flatten() for level in self.network.encode_high(image))

        levels = (self._prepare(image, frame), features.level2, features.level1)
        flat = torch.cond(torch.sym_max(height, width) == LNET_SIZE, known, encoded, levels)
        level2, level1 = (level.view(1, -1, *size) for level, size in zip(flat, sizes, strict=True))
        return features._replace(level2=level2, level1=level1)

    def _prepare(self, image: Tensor, size: Size) -> Tensor:
        """As `frames.prepare`; areas as two matrix products, since ONNX has no operator for all ratios."""
        height, width = image.shape[-2:]
        smooth = self.settings.enlarge_to > 0
        rows, columns = (min(height, size[0]), min(width, size[1])) if smooth else size
        resized = area_matrix(height, rows) @ (image @ area_matrix(width, columns).T)
        if smooth and (rows, columns) != size:
            resized = frames.magnified(resized, size)
        return frames.normalise(resized.floor() if self.settings.uint8_truncation else resized)


def area_matrix(before: int, after: int) -> Tensor:
    """after x before, float32: `resize_area` of one side is a product with it (adaptive average pooling)."""
    to, pixel = torch.arange(after)[:, None], torch.arange(before)
    first, end = to * before // after, ((to + 1) * before + after - 1) // after
    return ((pixel >= first) & (pixel < end)).float() / (end - first).float()


def export(
    network: GLUNet,
    settings: Settings,
    metadata: dict[str, Any],
    path: Path,
    size: Size | None = None,
    half: bool = False,
) -> dict[str, float]:
    """Writes the graph, after a look at what it computes.

    Args:
        network: is left as it is.
        metadata: goes into the file, beside the settings.
        size: (height, width) of both images; None for targets from 32 to `LARGEST` px a side, sources of any size, as
            with `enlarge_to=0, pyramid=False`.
        half: weights in 16 bits, half the file; it computes in 32 all the same.

    Returns:
        How far the graph's flow is from the network's, in pixels: "median", "99 %" and "largest", on made-up pairs.

    Raises:
        GlunetError: another network than GLU-Net, a library that is missing, or a graph that computes something else.
    """
    if network.config.network != "glunet":
        raise GlunetError(f"GLU-Net can be exported, but these weights are {network.config.network}'s.")
    with needed("glunet export needs onnx, onnxscript and onnxruntime", "onnx"):
        onnx, runtime = import_module("onnx"), import_module("onnxruntime")
        import_module("onnxscript")
    # Of all sizes there is one frame each, the image as it is.
    settings = replace(settings, looks=1) if size else replace(settings, enlarge_to=0, pyramid=False, looks=1)
    graph = Graph(network.eval(), settings, size).eval()
    example = _example(size or (280, 400), size or (300, 340))
    any_size = {"source": _sides("source", LARGEST_SOURCE), "target": _sides("target", LARGEST)}
    with writing(path) as part:
        with _quiet(), torch.no_grad():
            _write(graph, example, None if size else any_size, part)
        model = onnx.load(part)
        for branch in _branches(model.graph):
            _own_weights(model.graph, branch)
        for graph_or_branch in (*_branches(model.graph), model.graph):  # halving a graph copies its branches
            for part_of_graph in (*graph_or_branch.node, *graph_or_branch.value_info):
                del part_of_graph.metadata_props[:]  # where in the source each came from: 20 MB
            if half:
                _halve(onnx, graph_or_branch)
        onnx.helper.set_model_props(model, {"glunet": json.dumps(metadata | {"settings": settings.as_dict()})})
        onnx.save(model, part)
        options = runtime.SessionOptions()
        options.log_severity_level = 3  # errors
        session = runtime.InferenceSession(str(part), options, providers=["CPUExecutionProvider"])
        pairs = [example] if size else [_example(at, other) for at, other in CHECKED]
        away = {"median": 0.0, "99 %": 0.0, "largest": 0.0}
        for pair in pairs:
            with torch.no_grad():
                expected = graph(*pair)
            found = session.run(None, {"source": pair[0].numpy(), "target": pair[1].numpy()})
            miss = [np.abs(a - b.numpy()).max(axis=1).ravel() for a, b in zip(found, expected, strict=True)]
            for name, share in (("median", 0.5), ("99 %", 0.99), ("largest", 1.0)):
                away[name] = max(away[name], float(np.quantile(np.concatenate(miss), share)))
        if not away["99 %"] <= LARGEST_MISS:
            raise GlunetError(
                f"The graph's flow is {away['99 %']:.2g} px from the network's, so that nothing was written: another "
                "version of torch or onnxscript may translate it better."
            )
    return away


def _write(graph: Graph, example: tuple[Tensor, Tensor], any_size: dict[str, Any] | None, path: Path) -> None:
    """By torch's exporter.

    Without strict tracing what is computed of a size would become a constant. The guards that are left say in other
    words what holds for all sizes; they are no reason to stop, since the result is checked at several.
    """
    try:
        exported = torch.export.export(
            graph, example, dynamic_shapes=any_size, strict=True, prefer_deferred_runtime_asserts_over_guards=True
        )
        torch.onnx.export(
            exported,
            (),
            path,
            dynamo=True,
            opset_version=OPSET,
            input_names=["source", "target"],
            output_names=["flow", "backward"],
            external_data=False,
            verbose=False,
            optimize=False,  # minutes, for what onnxruntime does at loading
        )
    except Exception as error:  # of many kinds, and with pages of advice for developers
        what = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise GlunetError(
            f"torch {torch.__version__} could not export the network ({what}): another version of torch may."
        ) from error


def _hnet_side(side: Any) -> Any:
    """As `frames.hnet_size`, of a side that may be a symbol."""
    return torch.sym_max(LNET_SIZE, side // 8 * 8)


def _finish(flow: Tensor, own: Tensor, other: Tensor, frame: Size) -> Tensor:
    """From the frame's pixels on a coarse grid to the other image's pixels on the image's own (`frames.finish`)."""
    (height, width), (other_height, other_width) = own.shape[-2:], other.shape[-2:]
    flow, grid = resize_bilinear(flow, (height, width)), pixel_grid(height, width)
    x = (flow[:, 0] * (width / frame[1]) + grid[0] + 0.5) * (other_width / width) - 0.5 - grid[0]
    y = (flow[:, 1] * (height / frame[0]) + grid[1] + 0.5) * (other_height / height) - 0.5 - grid[1]
    return torch.stack((x, y), dim=1)


def _sides(name: str, largest: int) -> dict[int, Any]:
    return {
        axis: torch.export.Dim(f"{name}_{side}", min=32, max=largest) for axis, side in ((2, "height"), (3, "width"))
    }


def _example(target: Size, source: Size) -> tuple[Tensor, Tensor]:
    """Source and target, smooth noise that moves a little."""
    noise = torch.rand((1, 3, 24, 24), generator=torch.Generator().manual_seed(0)) * 255
    here = resize_bilinear(noise[..., :22, :22], target)
    return resize_bilinear(noise[..., 1:23, 2:], source), here


def _branches(graph: Any) -> list[Any]:
    """The graphs of both branches wherever a graph has a condition."""
    return [branch.g for node in graph.node if node.op_type == "If" for branch in node.attribute]


def _own_weights(graph: Any, branch: Any) -> None:
    """Gives a branch copies of the graph's weights that it reads.

    onnxruntime brings weights into its convolutions' layout only where they lie in the same graph; without, the encoder
    takes a quarter longer.
    """
    outer, taken = {tensor.name: tensor for tensor in graph.initializer}, set()
    for node in branch.node:
        for place, name in enumerate(node.input):
            if name not in outer:
                continue
            node.input[place] = own = f"{name}_{branch.name}"
            if own not in taken:
                taken.add(own)
                branch.initializer.add().CopyFrom(outer[name])
                branch.initializer[-1].name = own


def _halve(onnx: Any, graph: Any) -> None:
    """Stores the large float32 weights in 16 bits, each with a cast behind it that brings it back to 32."""
    casts = []
    for tensor in graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype != np.float32 or values.size < HALF_FROM or np.abs(values).max() > np.finfo(np.float16).max:
            continue
        name, stored = tensor.name, f"{tensor.name}_half"
        tensor.CopyFrom(onnx.numpy_helper.from_array(values.astype(np.float16), stored))
        casts.append(onnx.helper.make_node("Cast", [stored], [name], to=onnx.TensorProto.FLOAT))
    nodes = [*casts, *graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporter says to its developers."""
    loggers = [logging.getLogger(name) for name in ("onnx_ir", "onnxscript", "torch.onnx", "torch.utils._sympy")]
    levels = [one.level for one in loggers]
    for one in loggers:
        one.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for one, level in zip(loggers, levels, strict=True):
            one.setLevel(level)
