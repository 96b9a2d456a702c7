"""Results as Parquet: a row for each pair, a file for each block of them."""

import hashlib
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from glunet.errors import GlunetError, needed
from glunet.flow.files import writing
from glunet.flow.geometry import Size
from glunet.geometry.estimation import resizing
from glunet.images.pairs import Names
from glunet.match import Match


def arrow() -> Any:
    """The module pyarrow.

    Raises:
        GlunetError: if it is not installed.
    """
    with needed("A batch needs pyarrow", "batch"):
        import pyarrow
        import pyarrow.parquet
    return pyarrow


def schema() -> Any:
    """The columns, as docs/batch.md explains them."""
    pa = arrow()
    size, points = pa.list_(pa.int32(), 2), pa.list_(pa.list_(pa.float32(), 2))
    return pa.schema(
        [
            ("source", pa.string()),
            ("target", pa.string()),
            ("error", pa.string()),
            ("source_size", size),
            ("target_size", size),
            ("same", pa.bool_()),
            ("score", pa.float32()),
            ("target_points", points),
            ("source_points", points),
            ("confidence", pa.list_(pa.float32())),
            ("homography", pa.list_(pa.float64(), 9)),
            ("search", pa.string()),
            ("flow", pa.string()),
        ]
    )


def failed(pair: Names, reason: str) -> dict[str, Any]:
    """The row of a pair that could not be matched."""
    return {"source": pair[0], "target": pair[1], "error": reason}


def row(pair: Names, match: Match, source_size: Size, target_size: Size, count: int, least: float) -> dict[str, Any]:
    """The row of a match.

    Args:
        source_size, target_size: (height, width) of the files; points and homography are in their pixels.
        count, least: of the points (`Match.sample`).
    """
    points = match.sample(count, least)
    to_target, to_source = resizing(match.target_size, target_size), resizing(match.source_size, source_size)
    try:
        homography = to_source @ match.homography() @ np.linalg.inv(to_target)
        plane = (homography / homography[2, 2]).ravel().tolist()
    except GlunetError:
        plane = None
    return {
        "source": pair[0],
        "target": pair[1],
        "source_size": source_size,
        "target_size": target_size,
        "same": match.verdict.same,
        "score": match.verdict.score,
        "target_points": _scaled(points.target, to_target),
        "source_points": _scaled(points.source, to_source),
        "confidence": points.confidence.tolist(),
        "homography": plane,
        "search": None if match.found is None else json.dumps(match.found.as_dict()),
    }


def _scaled(points: np.ndarray, scale: np.ndarray) -> list[list[float]]:
    return (points * scale.diagonal()[:2] + scale[:2, 2]).astype(np.float32).tolist()


def file_of(folder: Path, pairs: Sequence[Names]) -> Path:
    """The file of a block: its name says which pairs are in it."""
    return folder / f"{digest(pairs)}.parquet"


def digest(pairs: Sequence[Names]) -> str:
    """32 hexadecimal digits."""
    return hashlib.blake2b(json.dumps(pairs).encode(), digest_size=16).hexdigest()


def write_rows(path: Path, rows: list[dict[str, Any]], made_by: dict[str, Any]) -> None:
    """The rows of a block, whole or not at all.

    Args:
        made_by: provenance, kept as JSON in the file's metadata under "glunet".

    Raises:
        GlunetError: if they cannot be written.
    """
    pa = arrow()
    table = pa.Table.from_pylist(rows, schema().with_metadata({"glunet": json.dumps(made_by)}))
    with writing(path) as part:
        pa.parquet.write_table(table, part)


def written(folder: Path) -> Iterator[list[Names]]:
    """The pairs of each block that is in a folder.

    Raises:
        GlunetError: a file that is none of ours, or damaged.
    """
    pa = arrow()
    for path in sorted(folder.glob("*.parquet")):
        try:
            table = pa.parquet.read_table(path, columns=["source", "target"]).to_pydict()
        except (OSError, pa.ArrowInvalid) as error:
            message = f"'{path}' cannot be read ({error}): remove it, and its pairs are matched again."
            raise GlunetError(message) from error
        yield list(zip(table["source"], table["target"], strict=True))
