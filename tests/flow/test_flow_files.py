"""Flow files: round trips, other programs' files, provenance, and writing that leaves nothing half done."""

import json
import resource
import struct
from contextlib import AbstractContextManager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glunet.errors import GlunetError
from glunet.flow import files, png16
from glunet.flow.files import read_flow, write_flow, writing, writing_folder

PROVENANCE = {"weights": "glunet", "sha256": "ab" * 32, "settings": {"uint8_truncation": False}, "name": "Tübingen"}


def some_flow(height: int = 7, width: int = 11, reach: float = 500.0) -> np.ndarray:
    return np.random.default_rng(3).uniform(-reach, reach, (height, width, 2)).astype(np.float32)


@pytest.mark.parametrize("suffix", files.FLOW_SUFFIXES)
def test_round_trip_with_provenance(tmp_path, suffix):
    flow = some_flow()
    flow[2, 3] = np.nan
    flow[4, 5, 1] = np.inf
    path = tmp_path / f"flow{suffix}"
    written = write_flow(path, flow, PROVENANCE)
    back = read_flow(path)
    assert sorted(written) == sorted(tmp_path.iterdir())
    assert path in written
    assert back.metadata == PROVENANCE
    assert back.flow.dtype == np.float32
    assert np.array_equal(back.valid, np.isfinite(flow).all(axis=2))
    assert np.isnan(back.flow[~back.valid]).all()
    difference = np.abs(back.flow - flow)[back.valid].max()
    assert difference == 0 if suffix != ".png" else 0 < difference <= 1 / 128


@pytest.mark.parametrize("suffix", files.FLOW_SUFFIXES)
def test_replaced_file_does_not_keep_old_provenance(tmp_path, suffix):
    path = tmp_path / f"flow{suffix}"
    write_flow(path, some_flow(), PROVENANCE)
    write_flow(path, 2 * some_flow(reach=100))
    assert read_flow(path).metadata == {}
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_flo_is_middleburys_layout(tmp_path):
    write_flow(tmp_path / "a.flo", np.array([[[1, 2], [3, 4], [5, 6]]], np.float32), PROVENANCE)
    content = (tmp_path / "a.flo").read_bytes()
    assert struct.unpack("<fii6f", content) == (202021.25, 3, 1, 1, 2, 3, 4, 5, 6)  # and nothing after it
    (tmp_path / "b.flo").write_bytes(struct.pack("<fii4f", 202021.25, 2, 1, 1, 2, 1e10, 1e10) + b"trailing")
    assert read_flow(tmp_path / "b.flo").valid.tolist() == [[True, False]]


def test_opencv_reads_and_writes_the_same(tmp_path):
    cv2 = pytest.importorskip("cv2")
    flow = some_flow(23, 17)
    write_flow(tmp_path / "a.flo", flow, PROVENANCE)
    assert np.array_equal(cv2.readOpticalFlow(str(tmp_path / "a.flo")), flow)
    write_flow(tmp_path / "a.png", flow, PROVENANCE)
    pixels = cv2.imread(str(tmp_path / "a.png"), cv2.IMREAD_UNCHANGED)[..., ::-1]
    assert pixels.dtype == np.uint16
    assert np.abs((pixels[..., :2].astype(np.float64) - 32768) / 64 - flow).max() <= 1 / 128
    assert (pixels[..., 2] == 1).all()


def test_h5py_reads_springs_layout(tmp_path):
    h5py = pytest.importorskip("h5py")
    flow = some_flow()
    flow[2, 3, 1] = np.nan
    write_flow(tmp_path / "a.flo5", flow, PROVENANCE)
    with h5py.File(tmp_path / "a.flo5") as file:
        assert list(file) == ["flow"]
        assert file["flow"].dtype == np.float32
        assert file["flow"].compression == "gzip"
        stored = file["flow"][()]
    assert np.isnan(stored[2, 3]).all()
    stored[2, 3] = flow[2, 3]
    assert np.array_equal(stored, flow, equal_nan=True)
    for name, content in {"other": {"disparity": flow}, "shape": {"flow": flow[..., 0]}, "empty": {}}.items():
        with h5py.File(tmp_path / f"{name}.flo5", "w") as file:
            for key, array in content.items():
                file[key] = array
        with pytest.raises(GlunetError, match="cannot be used"):
            read_flow(tmp_path / f"{name}.flo5")
    (tmp_path / "text.flo5").write_text("text")
    with pytest.raises(GlunetError, match=r"text\.flo5' cannot be read"):
        read_flow(tmp_path / "text.flo5")


@pytest.mark.parametrize("strategy", [0, 8, 16, 32, 64, 128, 248])
def test_png_filters_of_other_writers(strategy):
    """libpng's filters none, Sub, Up, Average, Paeth, and all of them by its own choice."""
    cv2 = pytest.importorskip("cv2")
    y, x = np.mgrid[:37, :53]
    pixels = np.stack((600 * x + 7 * y, 50000 - 900 * y, (x * y * 77) % 65536), -1).astype(np.uint16)
    options = [cv2.IMWRITE_PNG_FILTER, strategy] if strategy else []
    encoded = cv2.imencode(".png", np.ascontiguousarray(pixels[..., ::-1]), options)[1].tobytes()
    assert np.array_equal(png16.decode(encoded)[0], pixels)


def test_a_broken_png_is_named(tmp_path):
    """Cut anywhere, or with a byte changed anywhere, it is never read as something else."""
    pixels = np.random.default_rng(0).integers(0, 65536, (9, 7, 3)).astype(np.uint16)
    content = png16.encode(pixels, "text")
    decoded, text = png16.decode(content)
    assert text == "text"
    assert np.array_equal(decoded, pixels)
    for end in range(0, len(content) - 12, 5):
        with pytest.raises(ValueError, match="it "):
            png16.decode(content[:end])
    for place in range(0, len(content) - 12, 3):
        broken = bytearray(content)
        broken[place] ^= 0x55
        with pytest.raises(ValueError, match=r"it |its "):
            png16.decode(bytes(broken))


@given(st.floats(-600, 600, width=32), st.floats(-600, 600, width=32))
def test_kitti_png_refuses_and_never_wraps(u, v):
    flow = np.array([[[u, v], [0, 0]]], np.float32)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "a.png"
        if all(-512 - 1 / 128 <= value < 512 - 1 / 128 for value in (u, v)):
            write_flow(path, flow)
            assert np.abs(read_flow(path).flow - flow).max() <= 1 / 128
        else:
            with pytest.raises(GlunetError, match=r"\.npz"):
                write_flow(path, flow)
            assert not path.exists()


def test_kitti_limits(tmp_path):
    path = tmp_path / "a.png"
    write_flow(path, np.array([[[-512, 511.984375]]], np.float32))
    assert read_flow(path).flow.tolist() == [[[-512, 511.984375]]]
    with pytest.raises(GlunetError, match=r"512\.0 px, but KITTI's PNG"):
        write_flow(path, np.array([[[0, 512]]], np.float32))
    assert read_flow(path).flow.tolist() == [[[-512, 511.984375]]]  # the old file stands
    write_flow(path, np.array([[[0, 1], [np.nan, 900]]], np.float32))  # where not valid nothing has to be held
    assert read_flow(path).valid.tolist() == [[True, False]]


def test_unusable_files(tmp_path):
    path = tmp_path / "a.flo"
    with pytest.raises(GlunetError, match=r"does not exist"):
        read_flow(path)
    for content in (
        b"",
        b"PIEH",
        b"PIEH" + struct.pack("<ii", 1000, 1000),
        b"PIEH" + struct.pack("<ii", -1, 5),
        b"x" * 99,
    ):
        path.write_bytes(content)
        with pytest.raises(GlunetError, match=r"^The flow file '.*a.flo' cannot be used"):
            read_flow(path)
    write_flow(tmp_path / "whole.png", some_flow())
    write_flow(tmp_path / "whole.npz", some_flow())
    for suffix in (".png", ".npz"):
        whole = (tmp_path / f"whole{suffix}").read_bytes()
        path = tmp_path / f"a{suffix}"
        for content in (b"", b"text", whole[: len(whole) // 2], whole[:60] + b"\0\1\2" + whole[63:]):
            path.write_bytes(content)
            with pytest.raises(GlunetError, match=r"^The flow file '.*' cannot be used"):
                read_flow(path)
    np.savez(tmp_path / "other.npz", x=np.zeros(3))
    np.savez(tmp_path / "object.npz", flow=np.array([{}], object))
    np.savez(tmp_path / "shape.npz", flow=np.zeros((3, 4, 3)))
    for name in ("other", "object", "shape"):
        with pytest.raises(GlunetError, match=r"cannot be used"):
            read_flow(tmp_path / f"{name}.npz")
    with pytest.raises(GlunetError, match=r"cannot be read"):
        read_flow(tmp_path / "whole.png" / "a.flo")
    from PIL import Image

    Image.new("RGB", (5, 5)).save(tmp_path / "eight.png")
    with pytest.raises(GlunetError, match="16 bits"):
        read_flow(tmp_path / "eight.png")
    for call in (lambda: read_flow("a.tiff"), lambda: write_flow("a.tiff", some_flow())):
        with pytest.raises(GlunetError, match=r"'a.tiff' ends in '.tiff'"):
            call()
    with pytest.raises(GlunetError, match="H x W x 2"):
        write_flow(tmp_path / "b.flo", np.zeros((2, 3, 4)))


def test_places_that_cannot_be_written_to(tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "folder.flo").mkdir()
    for path in (tmp_path / "none" / "a.flo", tmp_path / "file" / "a.npz", tmp_path / "folder.flo"):
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(GlunetError):
            write_flow(path, some_flow(), PROVENANCE)
        assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def small_disk():
    """Writing beyond 12000 bytes of a file fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (12000, hard))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", files.FLOW_SUFFIXES)
def test_full_disk_leaves_the_old_file(tmp_path, suffix, small_disk):
    path = tmp_path / f"a{suffix}"
    write_flow(path, some_flow(), PROVENANCE)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(GlunetError, match=r"cannot be written \(File too large\)"):
        write_flow(path, some_flow(60, 70), {"weights": "other"})
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def interrupted(context: AbstractContextManager[Path], name: str) -> None:
    with context as part:
        (part / name if name else part).write_text("half")
        raise KeyboardInterrupt


def test_whatever_interrupts_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        interrupted(writing(tmp_path / "a.txt"), "")
    with pytest.raises(KeyboardInterrupt):
        interrupted(writing_folder(tmp_path / "new" / "deep"), "a.txt")
    assert list(tmp_path.iterdir()) == []


def put(folder: Path, **texts: str) -> None:
    with writing_folder(folder) as part:
        for name, text in texts.items():
            (part / name).write_text(text)


def test_folder_of_results(tmp_path):
    out = tmp_path / "new" / "deep"
    put(out, a="one")
    put(out, a="two", b="two")
    assert {p.name: p.read_text() for p in out.iterdir()} == {"a": "two", "b": "two"}
    (out / "c").mkdir()
    with pytest.raises(GlunetError, match="is a folder"):
        put(out, a="three", c="three")
    assert (out / "a").read_text() == "two"
    with pytest.raises(GlunetError, match="is a file"):
        put(out / "a")
    with pytest.raises(GlunetError, match="cannot be written"):
        put(out / "a" / "below")
    assert sorted(p.name for p in out.iterdir()) == ["a", "b", "c"]


def test_json_is_for_people(tmp_path):
    files.write_json(tmp_path / "a.json", PROVENANCE)
    text = (tmp_path / "a.json").read_text()
    assert text.endswith("}\n")
    assert json.loads(text) == PROVENANCE
