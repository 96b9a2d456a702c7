"""Flow as HDF5, the way the Spring benchmark stores it: one dataset "flow", H x W x 2 float32, NaN where unknown.

h5py comes with the extra "colmap"; it is imported when it is needed.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np

from glunet.errors import needed

_GZIP = 5  # lossless; more is slower and hardly smaller


def hdf5() -> Any:
    """The module h5py.

    Raises:
        GlunetError: if it is not installed.
    """
    with needed("HDF5 files need h5py", "colmap"):
        import h5py
    return h5py


def write(path: Path, flow: np.ndarray, valid: np.ndarray, text: str) -> None:
    """Writes a flow.

    Args:
        flow: H x W x 2 float32.
        valid: H x W bool; elsewhere NaN is stored.
        text: provenance, as JSON; stored as an attribute of the dataset, which other readers leave alone.
    """
    # By way of memory: HDF5 writes when it closes, and what a full disk does to it then no caller can catch.
    content = io.BytesIO()
    with hdf5().File(content, "w") as file:
        stored = np.where(valid[..., None], flow, np.float32(np.nan))
        dataset = file.create_dataset("flow", data=stored, compression="gzip", compression_opts=_GZIP, shuffle=True)
        if text:
            dataset.attrs["glunet"] = text
    path.write_bytes(content.getvalue())


def read(path: Path) -> tuple[np.ndarray, str]:
    """The flow, H x W x 2 float32 with NaN where unknown, and its provenance ("" where there is none).

    Raises:
        ValueError: if the file holds something else; OSError, as h5py, if it is none of HDF5's.
    """
    with path.open("rb") as raw, hdf5().File(raw, "r") as file:
        if "flow" not in file:
            raise ValueError(f"it has no dataset 'flow', only {', '.join(file) or 'nothing'}")
        dataset = file["flow"]
        text = str(dataset.attrs.get("glunet", ""))
        flow = np.asarray(dataset[()], np.float32)
    if flow.ndim != 3 or flow.shape[2] != 2:
        raise ValueError(f"its flow is of shape {flow.shape}, not H x W x 2")
    return flow, text
