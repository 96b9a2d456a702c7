"""Two georeferenced rasters: how far the ground has moved from one to the other, in metres (rasterio, extra `geo`)."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from warnings import catch_warnings, simplefilter

import numpy as np

from glunet.errors import GlunetError, needed
from glunet.flow.files import writing
from glunet.interop.levels import black_and_white
from glunet.matcher import Matcher

if TYPE_CHECKING:
    from rasterio.io import DatasetReader
    from rasterio.windows import Window

BLOCK, MARGIN = 2048, 256  # px of the target that are matched at once, and around them
SMALLEST = 32  # px: what a matcher takes at least
_OVERVIEW = 1024  # px of the longer side that the range of grey levels is read from


@dataclass(frozen=True)
class Moved:
    """What a comparison of two rasters found.

    Attributes:
        covered: share of the target's pixels with an answer, 0..1.
        sure: share of those whose confidence is at least 0.5.
        east, north: median of the displacement where it is sure, metres; NaN where nothing is.
        spread: median distance from that, metres.
    """

    covered: float
    sure: float
    east: float
    north: float
    spread: float

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def displacement(
    source: Path,
    target: Path,
    out: Path,
    matcher: Matcher,
    bands: Sequence[int] | None = None,
    block: int = BLOCK,
    margin: int = MARGIN,
    watch: Callable[[int, int], None] = lambda done, count: None,
) -> Moved:
    """Writes how far what the target shows has moved since the source, as a GeoTIFF on the target's grid.

    The source is read on the target's grid by what both files say of their place, so that the flow is what has moved,
    or what the georeferencing is off by. Its three bands, float32: metres east, metres north, confidence (0..1). NaN
    where either raster has no data, or where the match leads out of the source.

    Args:
        source, target: the earlier and the later raster, in one projected coordinate system.
        bands: one or three, counted from 1, shown to the network as grey or as red, green and blue; None for the first
            three, or the first of fewer.
        block, margin: pixels that are matched at once, and how many around them are seen as well; what has moved
            farther than the margin, in pixels, is lost at the edges of blocks.
        watch: called with how many blocks are done, and of how many.

    Raises:
        GlunetError: rasters that cannot be read, have no coordinate system, one in degrees or two different ones, do
            not overlap, or lack a band; a block or margin that cannot be; a file that cannot be written; no rasterio.
    """
    with needed("Rasters need rasterio", "geo"):
        import rasterio
        from rasterio.enums import ColorInterp, Resampling
        from rasterio.vrt import WarpedVRT
    matcher = matcher.with_(plane=False)  # the ground is one, and what has moved on it is no error
    if block < SMALLEST or margin < 0:
        raise GlunetError(f"Blocks of {block} px with a margin of {margin}: give at least {SMALLEST} and 0.")
    if out.resolve() in (source.resolve(), target.resolve()):
        raise GlunetError(f"'{out}' is one of the two rasters: write the result to another file.")
    with ExitStack() as opened, catch_warnings():
        simplefilter("ignore", rasterio.errors.NotGeoreferencedWarning)  # `_metres` says it
        earlier, later = (opened.enter_context(_open(path)) for path in (source, target))
        metres = _metres(earlier, source, later, target)
        grid = {"crs": later.crs, "transform": later.transform, "width": later.width, "height": later.height}
        transparent = ColorInterp.alpha in earlier.colorinterp  # without, what lies outside of it would be black
        warped = WarpedVRT(earlier, resampling=Resampling.bilinear, add_alpha=not transparent, **grid)
        seen = opened.enter_context(warped)
        shown = [_Shown(seen, earlier, bands, source), _Shown(later, later, bands, target)]
        windows = list(_windows(later.height, later.width, block, margin))
        tiled: dict[str, Any] = {"tiled": True} if min(later.width, later.height) >= 256 else {}
        profile = {"driver": "GTiff", "count": 3, "dtype": "float32", "nodata": np.nan, "compress": "deflate", **tiled}
        totals = _Totals()
        with writing(out) as part:
            try:
                with rasterio.open(part, "w", **grid, **profile) as written:
                    for number, name in enumerate(("metres east", "metres north", "confidence"), start=1):
                        written.set_band_description(number, name)
                    written.units = ("metre", "metre", "")
                    for done, (inner, outer) in enumerate(windows, start=1):
                        moved = _matched(shown[0].read(outer), shown[1].read(outer), matcher, metres)
                        moved = moved[:, inner.row_off - outer.row_off :, inner.col_off - outer.col_off :]
                        moved = moved[:, : inner.height, : inner.width]
                        written.write(moved, window=inner)
                        totals.add(moved)
                        watch(done, len(windows))
            except rasterio.errors.RasterioError as error:
                raise GlunetError(f"'{out}' cannot be written ({error}): check the path and the space left.") from error
            if not totals.known:
                raise GlunetError(
                    f"'{source}' and '{target}' show no common ground: no valid pixel of one lies in the other."
                )
    return totals.result()


class _Shown:
    """Windows of a raster as images for a matcher: H x W x 3 uint8, and where they are valid."""

    def __init__(self, raster: Any, original: "DatasetReader", bands: Sequence[int] | None, path: Path) -> None:
        count = original.count
        self.bands = list(bands) if bands else [1, 2, 3] if count >= 3 else [1]
        if len(self.bands) not in (1, 3) or not all(1 <= band <= count for band in self.bands):
            named = ", ".join(map(str, self.bands))
            raise GlunetError(f"'{path}' has {count} bands, but {named} came: give one or three of 1 to {count}.")
        self.raster = raster
        scale = min(1.0, _OVERVIEW / max(original.height, original.width))
        size = tuple(max(1, round(side * scale)) for side in (original.height, original.width))
        values = original.read(self.bands, out_shape=(len(self.bands), *size)).astype(np.float64)
        valid = original.dataset_mask(out_shape=size) > 0
        values = values[:, valid & np.isfinite(values).all(axis=0)]
        if not values.size:
            raise GlunetError(f"'{path}' holds no valid pixel.")
        self.low, high = black_and_white(values)
        self.range = high - self.low

    def read(self, window: "Window") -> tuple[np.ndarray, np.ndarray]:
        """The image and its mask (bool)."""
        values = self.raster.read(self.bands, window=window).astype(np.float64)
        valid = (self.raster.dataset_mask(window=window) > 0) & np.isfinite(values).all(axis=0)
        levels = 255 * (np.where(valid, values, self.low) - self.low) / self.range
        image = levels.clip(0, 255).round().astype(np.uint8).transpose(1, 2, 0)
        return np.broadcast_to(image, (*image.shape[:2], 3)).copy(), valid


class _Totals:
    """Counts over blocks, and a sample of what has moved."""

    def __init__(self) -> None:
        self.pixels = self.known = self.sure = 0
        self.samples: list[np.ndarray] = []

    def add(self, moved: np.ndarray) -> None:
        known = np.isfinite(moved[0])
        sure = known & (moved[2] >= 0.5)
        self.pixels, self.known, self.sure = self.pixels + known.size, self.known + known.sum(), self.sure + sure.sum()
        self.samples.append(moved[:2, sure][:, :: max(1, sure.sum() // 20_000)])

    def result(self) -> Moved:
        vectors = np.concatenate(self.samples, axis=1)
        middle = np.median(vectors, axis=1) if vectors.size else np.full(2, np.nan)
        spread = np.median(np.linalg.norm(vectors - middle[:, None], axis=0)) if vectors.size else np.nan
        covered, sure = self.known / self.pixels, self.sure / max(self.known, 1)
        return Moved(float(covered), float(sure), float(middle[0]), float(middle[1]), float(spread))


def _matched(
    earlier: tuple[np.ndarray, np.ndarray], later: tuple[np.ndarray, np.ndarray], matcher: Matcher, metres: np.ndarray
) -> np.ndarray:
    """Metres east and north, and confidence: 3 x H x W; NaN where there is none."""
    (source, source_valid), (target, target_valid) = earlier, later
    if not (source_valid & target_valid).any():
        return np.full((3, *target.shape[:2]), np.nan, np.float32)
    match = matcher.match(source, target, source_mask=source_valid, target_mask=target_valid)
    # The flow leads from where a thing is now to where it was.
    moved = -np.einsum("ij,hwj->ihw", metres, match.flow.astype(np.float64))
    there = match.map
    x, y = (np.rint(np.clip(there[..., i], 0, source.shape[1 - i] - 1)).astype(int) for i in (0, 1))
    inside = (there >= 0).all(axis=-1) & (there <= (source.shape[1] - 1, source.shape[0] - 1)).all(axis=-1)
    known = target_valid & inside & source_valid[y, x]
    return np.where(known, np.concatenate((moved, match.confidence[None])), np.nan).astype(np.float32)


def _windows(height: int, width: int, block: int, margin: int) -> Iterator[tuple["Window", "Window"]]:
    """Each block and the larger window that is matched for it, both inside of the raster."""
    from rasterio.windows import Window

    def spans(side: int) -> Iterator[tuple[int, int, int, int]]:
        for start in range(0, side, block):
            end = min(start + block, side)
            first, last = max(0, start - margin), min(side, end + margin)
            first = max(0, min(first, last - SMALLEST))
            yield start, end - start, first, max(last, min(side, first + SMALLEST)) - first

    for top, rows, first_row, all_rows in spans(height):
        for left, columns, first_column, all_columns in spans(width):
            yield Window(left, top, columns, rows), Window(first_column, first_row, all_columns, all_rows)


def _open(path: Path) -> "DatasetReader":
    import rasterio

    try:
        return rasterio.open(path)
    except rasterio.errors.RasterioIOError as error:
        raise GlunetError(f"'{path}' cannot be read as a raster ({error}).") from error


def _metres(earlier: "DatasetReader", source: Path, later: "DatasetReader", target: Path) -> np.ndarray:
    """From pixels (right, down) of the target to metres (east, north): 2 x 2."""
    for raster, path in ((earlier, source), (later, target)):
        if raster.crs is None:
            raise GlunetError(f"'{path}' does not say where it lies: a coordinate system is needed (gdal_edit -a_srs).")
        if not raster.crs.is_projected:
            raise GlunetError(
                f"'{path}' is in degrees ({raster.crs.to_string()}), which has no distances: bring both into "
                "one projected system first (gdalwarp -t_srs)."
            )
        if min(raster.height, raster.width) < SMALLEST:
            raise GlunetError(f"'{path}' is {raster.width} x {raster.height} pixels: {SMALLEST} a side are needed.")
    if earlier.crs != later.crs:
        raise GlunetError(
            f"'{source}' is in {earlier.crs.to_string()}, '{target}' in {later.crs.to_string()}: bring one into the "
            "other's system first (gdalwarp -t_srs)."
        )
    left, bottom, right, top = later.bounds
    if not (earlier.bounds[0] < right and left < earlier.bounds[2]) or not (
        min(earlier.bounds[1::2]) < max(bottom, top) and min(bottom, top) < max(earlier.bounds[1::2])
    ):
        raise GlunetError(f"'{source}' and '{target}' do not overlap.")
    across = later.transform
    return np.array(((across.a, across.b), (across.d, across.e))) * later.crs.linear_units_factor[1]
