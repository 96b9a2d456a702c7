"""The ONNX file: what onnxruntime makes of it is what the network says, at every size, without torch beside it."""

import copy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch.nn import functional as F

import untrained
from glunet import GlunetError
from glunet.inference import export
from glunet.inference.export import area_matrix
from glunet.matcher import Matcher
from glunet.network.family import build, configure
from glunet.network.glunet import GLUNet
from places import ROOT

onnx = pytest.importorskip("onnx")
runtime = pytest.importorskip("onnxruntime")
pytest.importorskip("onnxscript")

EXAMPLE = ROOT / "examples" / "onnx_match.py"
MADE_BY = {"weights": "untrained", "sha256": "ab" * 32}


@given(st.integers(1, 90), st.integers(1, 90))
def test_areas_are_matrix_products(before: int, after: int) -> None:
    values = torch.rand(1, 1, before, 3, generator=torch.Generator().manual_seed(before))
    expected = F.interpolate(values, size=(after, 3), mode="area")
    torch.testing.assert_close(area_matrix(before, after) @ values, expected)


def picture(height: int, width: int, seed: int) -> np.ndarray:
    noise = torch.rand((1, 3, 9, 12), generator=torch.Generator().manual_seed(seed))
    return (F.interpolate(noise, (height, width), mode="bicubic").clamp(0, 1)[0] * 255).byte().permute(1, 2, 0).numpy()


def rounded(wide: bool = False) -> GLUNet:
    """Weights that float16 holds, as the package's are."""
    return copy.deepcopy(untrained.network(wide)).half().float()


def misses(file: Path, source: np.ndarray, target: np.ndarray, matcher: Matcher) -> np.ndarray:
    """By how many pixels the file's flow and way back are away from the matcher's, of all pixels."""
    session = runtime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    planes = {"source": source, "target": target}
    found = session.run(None, {name: p.transpose(2, 0, 1)[None].astype(np.float32) for name, p in planes.items()})
    match = matcher.match(source, target)
    pairs = zip(found, (match.flow, match.backward), strict=True)
    return np.concatenate([np.abs(a[0].transpose(1, 2, 0) - b).max(axis=-1).ravel() for a, b in pairs])


def still(size: tuple[int, int]) -> object:
    """A graph that says of any two images that nothing has moved."""
    helper, kind = onnx.helper, onnx.TensorProto.FLOAT
    images = [helper.make_tensor_value_info(name, kind, (1, 3, *size)) for name in ("source", "target")]
    flows = [helper.make_tensor_value_info(name, kind, (1, 2, *size)) for name in ("flow", "backward")]
    zeros = onnx.numpy_helper.from_array(np.zeros((1, 2, *size), np.float32))
    nodes = [helper.make_node("Constant", [], [flow.name], value=zeros) for flow in flows]
    graph = helper.make_graph(nodes, "still", images, flows)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", export.OPSET)], ir_version=10)


def test_one_file_for_all_sizes(tmp_path: Path) -> None:
    """In one pass and in half the bits; the export takes most of a minute, so that all sizes are in one test."""
    file = tmp_path / "any.onnx"
    network = rounded()
    matcher = Matcher(network, "rounded", "ab" * 32)
    export.export(network, matcher.settings, MADE_BY, file, half=True)
    # The second target is of another frame than the L-Net's, the third just as large as that.
    for target, source in (((256, 256), (256, 256)), ((300, 420), (260, 333)), ((40, 263), (700, 64))):
        away = misses(file, picture(*source, seed=1), picture(*target, seed=2), matcher)
        assert (away < 2e-3).mean() > 0.999
    # Both branches that encode a frame have weights of their own, as onnxruntime wants them, in half the bits.
    branches = export._branches(onnx.load(file).graph)
    weights = [tensor for branch in branches for tensor in branch.initializer if len(tensor.dims) == 4]
    convolutions = [node for branch in branches for node in branch.node if node.op_type == "Conv"]
    assert len(weights) == len(convolutions) > 0
    assert {tensor.data_type for tensor in weights if np.prod(tensor.dims) >= export.HALF_FROM} == {
        onnx.TensorProto.FLOAT16
    }


def test_half_the_bits_and_the_example_needs_numpy_and_onnxruntime_alone(tmp_path: Path) -> None:
    """Such weights lose nothing by it. Tracing takes long: one file for both."""
    file = tmp_path / "one.onnx"
    network = rounded(wide=True)
    matcher = Matcher(network, "rounded", "ab" * 32)
    away = export.export(network, matcher.settings, MADE_BY, file, (120, 210), half=True)
    assert away["99 %"] <= 2e-3
    model = onnx.load(file)
    stored = {onnx.TensorProto.DataType.Name(tensor.data_type) for tensor in model.graph.initializer}
    assert "FLOAT16" in stored
    numbers = sum(parameter.numel() for parameter in network.parameters())
    assert file.stat().st_size < 2.3 * numbers
    assert '"weights": "untrained"' in {p.key: p.value for p in model.metadata_props}["glunet"]

    source, target = picture(120, 210, 3), picture(120, 210, 4)
    np.save(tmp_path / "source.npy", source)
    np.save(tmp_path / "target.npy", target)
    code = (
        "import runpy, sys; sys.argv = sys.argv[1:]; runpy.run_path(sys.argv[0], run_name='__main__');"
        "print([name for name in ('torch', 'glunet', 'PIL', 'cv2', 'onnx') if name in sys.modules])"
    )
    words = [EXAMPLE, file, tmp_path / "source.npy", tmp_path / "target.npy", tmp_path / "match.npz"]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
    assert done.stdout.endswith("[]\n")
    match = matcher.match(source, target)
    with np.load(tmp_path / "match.npz") as found:
        np.testing.assert_allclose(found["flow"], match.flow, atol=2e-3)
        np.testing.assert_allclose(found["backward"], match.backward, atol=2e-3)
        assert np.array_equal(np.isfinite(found["round_trip"]), match.in_view) or match.in_view.mean() > 0.5


@pytest.mark.fuzz  # a minute of tracing: `make fuzz`; a file is checked as it is written in any case
def test_passes(tmp_path: Path) -> None:
    file = tmp_path / "one.onnx"
    export.export(untrained.network(), untrained.matcher(passes=2).settings, MADE_BY, file, (256, 256))
    assert (misses(file, picture(256, 256, 5), picture(256, 256, 6), untrained.matcher(passes=2)) < 2e-3).mean() > 0.999


@pytest.mark.fuzz
def test_a_pyramid(tmp_path: Path) -> None:
    file = tmp_path / "one.onnx"
    export.export(untrained.network(), untrained.matcher(pyramid=True).settings, MADE_BY, file, (256, 536))
    away = misses(file, picture(256, 536, 5), picture(256, 536, 6), untrained.matcher(pyramid=True))
    assert (away < 2e-3).mean() > 0.999


def test_the_graph_of_one_size_enlarges_as_a_matcher_does() -> None:
    source, target = picture(200, 240, 5), picture(200, 240, 6)
    larger = untrained.matcher(enlarge_to=300)
    graph = export.Graph(larger.network, larger.settings, (200, 240))
    with torch.no_grad():
        flow, _ = graph(*(torch.from_numpy(p.transpose(2, 0, 1)[None]).float() for p in (source, target)))
    np.testing.assert_allclose(flow[0].permute(1, 2, 0), larger.match(source, target).flow, atol=2e-3)
    assert np.abs(larger.match(source, target).flow - untrained.matcher().match(source, target).flow).mean() > 0.1


def test_what_cannot_be_exported_is_said(
    command: Callable[..., tuple[int, str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out.onnx"
    settings = untrained.matcher().settings
    with pytest.raises(GlunetError, match="these weights are local-net's"):
        export.export(build(configure("local-net")), settings, {}, out)  # type: ignore[arg-type]
    assert "give one of them" in command("export", out, "--size", "300x300", "--dynamic")[2]
    assert "for one size" in command("export", out, "--size", "300x300,400x400")[2]
    # A graph that computes something else is not written.
    monkeypatch.setattr(export, "_write", lambda graph, example, any_size, path: onnx.save(still((256, 256)), path))
    with pytest.raises(GlunetError, match="nothing was written"):
        export.export(untrained.network(), settings, {}, out, (256, 256))
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(GlunetError, match=r"pip install 'glunet\[onnx\]'"):
        export.export(untrained.network(), settings, {}, out, (256, 256))
    assert not list(tmp_path.iterdir())
