"""Files: flow as .flo, KITTI's 16-bit .png, .npz and .flo5; and how anything is written, whole or not at all.

Provenance (which weights, with which settings) is a small dictionary, stored as JSON: in .npz under "metadata", in .png
in a text chunk "glunet", in .flo5 in an attribute of that name. A .flo has no room for it, and Middlebury's own reader
refuses trailing bytes, so that it lies beside, in a file of the same name with ".json" after it.
"""

import json
import os
import secrets
import shutil
import struct
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from glunet.errors import GlunetError
from glunet.flow import flo5, png16

FLOW_SUFFIXES = (".flo", ".png", ".npz", ".flo5")

_FLO_MAGIC = b"PIEH"  # 202021.25 as a little-endian float
_FLO_UNKNOWN = 1e9  # Middlebury: larger numbers mean "unknown"
_KITTI_SCALE, _KITTI_ZERO = 64, 32768
_KITTI_RANGE = (-512.0, 65535 / 64 - 512)


class FlowFile(NamedTuple):
    """What a flow file holds.

    Attributes:
        flow: H x W x 2, float32, pixels, on the target's grid; NaN where not valid.
        valid: H x W, bool.
        metadata: provenance; empty for files that others wrote.
    """

    flow: np.ndarray
    valid: np.ndarray
    metadata: dict[str, Any]


def write_flow(path: str | os.PathLike[str], flow: np.ndarray, metadata: Mapping[str, Any] | None = None) -> list[Path]:
    """Writes a flow; the suffix decides: .flo (Middlebury), .png (KITTI, 16 bits, steps of 1/64 px), .npz or
    .flo5 (Spring, HDF5; needs the extra "colmap").

    Args:
        path: existing files are replaced.
        flow: H x W x 2, pixels; pixels with NaN or infinity are marked as not valid.
        metadata: provenance, anything that JSON takes.

    Returns:
        The files written: `path`, and for .flo with metadata also `path`.json.

    Raises:
        GlunetError: unknown suffix, a flow beyond +-512 px for .png, a place that cannot be written to.
    """
    path = Path(path)
    suffix = check_suffix(path)
    if not isinstance(flow, np.ndarray) or flow.dtype.kind not in "iuf":
        what = f"an array of {flow.dtype}" if isinstance(flow, np.ndarray) else f"a {type(flow).__name__}"
        raise GlunetError(f"A flow is an array of numbers, H x W x 2, but {what} came: make it one with numpy.")
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise GlunetError(f"A flow is H x W x 2, but an array of shape {flow.shape} came.")
    flow = np.ascontiguousarray(flow, np.float32)
    valid = np.asarray(np.isfinite(flow).all(axis=2))
    text = json.dumps(metadata) if metadata else ""
    if suffix == ".npz":
        with writing(path) as part, part.open("wb") as file:
            np.savez_compressed(file, flow=flow, valid=valid, metadata=np.array(text))
        return [path]
    if suffix == ".flo5":
        with writing(path) as part:
            flo5.write(part, flow, valid, text)
        return [path]
    if suffix == ".png":
        content = _kitti(flow, valid, text, path)
        with writing(path) as part:
            part.write_bytes(content)
        return [path]
    stored = np.where(valid[..., None], flow, np.float32(1.5 * _FLO_UNKNOWN)).astype("<f4")
    beside = path.with_name(path.name + ".json")
    with writing(path) as part:
        part.write_bytes(_FLO_MAGIC + struct.pack("<ii", flow.shape[1], flow.shape[0]) + stored.tobytes())
        if text:
            write_json(beside, dict(metadata or {}))
        else:
            beside.unlink(missing_ok=True)  # that of a file which is replaced now
    return [path, beside] if text else [path]


def read_flow(path: str | os.PathLike[str]) -> FlowFile:
    """Reads what `write_flow` or another program wrote: .flo, KITTI's .png, .npz with an array "flow", or .flo5.

    Raises:
        GlunetError: missing, damaged or of another kind.
    """
    path = Path(path)
    suffix = check_suffix(path)
    read: Callable[[Path], FlowFile] = {
        ".flo": _read_flo,
        ".png": _read_kitti,
        ".npz": _read_npz,
        ".flo5": _read_flo5,
    }[suffix]
    try:
        return read(path)
    except GlunetError:
        raise
    except FileNotFoundError as error:
        raise GlunetError(f"The flow file '{path}' does not exist: check the path.") from error
    except OSError as error:
        raise GlunetError(f"The flow file '{path}' cannot be read ({error.strerror or error}): check it.") from error
    except Exception as error:  # a damaged archive raises nearly anything
        raise GlunetError(f"The flow file '{path}' cannot be used: {error or type(error).__name__}.") from error


def check_suffix(path: Path) -> str:
    """The suffix in small letters; raises a GlunetError unless the path ends like a flow file."""
    suffix = path.suffix.lower()
    if suffix not in FLOW_SUFFIXES:
        raise GlunetError(
            f"'{path}' ends in '{path.suffix}', but a flow file is .flo (Middlebury), .png (KITTI, 16 bits), .npz or "
            ".flo5 (Spring, HDF5): choose one of these."
        )
    return suffix


def _kitti(flow: np.ndarray, valid: np.ndarray, text: str, path: Path) -> bytes:
    steps = np.rint(np.where(valid[..., None], flow, 0).astype(np.float64) * _KITTI_SCALE + _KITTI_ZERO)
    if steps.size and (steps.min() < 0 or steps.max() > 65535):
        furthest = np.abs(flow[valid]).max()
        raise GlunetError(
            f"'{path}': the flow reaches {furthest:.1f} px, but KITTI's PNG holds {_KITTI_RANGE[0]:.0f} to "
            f"{_KITTI_RANGE[1]:.2f} px: save as .flo or .npz."
        )
    pixels = np.zeros((*valid.shape, 3), np.uint16)
    pixels[valid, :2] = steps[valid].astype(np.uint16)
    pixels[valid, 2] = 1
    return png16.encode(pixels, text)


def _read_kitti(path: Path) -> FlowFile:
    pixels, text = png16.decode(path.read_bytes())
    valid = np.asarray(pixels[..., 2] > 0)
    flow = (pixels[..., :2].astype(np.float32) - _KITTI_ZERO) / _KITTI_SCALE
    return _flow_file(flow, valid, text)


def _read_flo(path: Path) -> FlowFile:
    content = path.read_bytes()
    if content[:4] != _FLO_MAGIC or len(content) < 12:
        raise ValueError("it is not a .flo file")
    width, height = struct.unpack_from("<ii", content, 4)
    if width < 1 or height < 1 or len(content) < 12 + 8 * width * height:
        raise ValueError(f"its header says {width} x {height}, which does not fit its {len(content)} bytes")
    flow = np.frombuffer(content, "<f4", 2 * width * height, 12).reshape(height, width, 2).astype(np.float32)
    beside = path.with_name(path.name + ".json")
    text = beside.read_text(encoding="utf-8") if beside.is_file() else ""
    return _flow_file(flow, np.asarray((np.abs(flow) < _FLO_UNKNOWN).all(axis=2)), text)


def _read_npz(path: Path) -> FlowFile:
    with path.open("rb") as file:
        archive = np.load(file, allow_pickle=False)
        if not isinstance(archive, np.lib.npyio.NpzFile):
            raise ValueError("it holds a single array, not an archive of them")
        if "flow" not in archive:
            raise ValueError(f"it has no array 'flow', only {', '.join(archive) or 'nothing'}")
        flow = archive["flow"].astype(np.float32)
        finite = np.asarray(np.isfinite(flow).all(axis=-1))
        valid = archive["valid"].astype(bool) if "valid" in archive else finite
        text = str(archive["metadata"]) if "metadata" in archive else ""
    if flow.ndim != 3 or flow.shape[2] != 2 or valid.shape != flow.shape[:2]:
        raise ValueError(f"its flow is of shape {flow.shape}, not H x W x 2")
    return _flow_file(flow, valid, text)


def _read_flo5(path: Path) -> FlowFile:
    flow, text = flo5.read(path)
    return _flow_file(flow, np.asarray(np.isfinite(flow).all(axis=2)), text)


def _flow_file(flow: np.ndarray, valid: np.ndarray, text: str) -> FlowFile:
    flow[~valid] = np.nan
    return FlowFile(flow, valid, json.loads(text) if text else {})


# How anything is written -------------------------------------------------------------------------------------------


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Writes a dictionary as JSON for people: indented, with a line's end."""
    with writing(path) as part:
        part.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[Path]:
    """A file that appears whole or not at all: yields a name beside it to write to, which is then renamed.

    Raises:
        GlunetError: instead of any OSError: no such folder, no permission, disk full. The name beside is gone then.
    """
    path = Path(path)
    part = path.with_name(f".part-{secrets.token_hex(4)}-{path.name}")
    try:
        if path.is_dir():
            raise GlunetError(f"'{path}' is a folder, but a file is to be written: name a file in it.")
        yield part
        part.replace(path)
    except OSError as error:
        raise _unwritable("file", path, error) from error
    finally:
        _try(part.unlink)


@contextmanager
def writing_folder(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Several files that appear together or not at all: yields a folder to write to, whose files move up at the end.

    The folder, and the folders above it, are made where they are missing; on failure those made here are removed again.

    Raises:
        GlunetError: instead of any OSError.
    """
    folder = Path(os.path.abspath(folder))  # "a/../b" needs no folder "a"
    made: list[Path] = []
    part = folder / f".part-{secrets.token_hex(4)}"
    done = False
    try:
        if folder.exists() and not folder.is_dir():
            raise GlunetError(f"'{folder}' is a file, but a folder is expected: choose another name.")
        for missing in reversed([f for f in (folder, *folder.parents) if not f.exists()]):
            missing.mkdir()
            made.append(missing)
        part.mkdir()
        yield part
        files = sorted(part.iterdir())
        for file in files:
            if (folder / file.name).is_dir():
                raise GlunetError(f"'{folder / file.name}' is a folder, but a file is to be written: move it away.")
        for file in files:
            file.replace(folder / file.name)
        done = True
    except OSError as error:
        raise _unwritable("folder", folder, error) from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
        for new in reversed(made if not done else []):
            _try(new.rmdir)


def _try(remove: Callable[[], None]) -> None:
    try:
        remove()
    except OSError:
        return


def _unwritable(kind: str, path: Path, error: OSError) -> GlunetError:
    reason = error.strerror or str(error)
    return GlunetError(f"The {kind} '{path}' cannot be written ({reason}): free or choose another place.")
