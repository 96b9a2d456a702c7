"""glunet match: two images in; flow, warped source, pictures and numbers out."""

import time
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from glunet.cli import options
from glunet.cli.options import by_weights
from glunet.errors import GlunetError

if TYPE_CHECKING:
    import numpy as np

    from glunet.match import Match

SourceOption = Annotated[Path, typer.Argument(help="The image to find the target's pixels in.", metavar="SOURCE")]
TargetOption = Annotated[Path, typer.Argument(help="The image on whose grid the answer lies.", metavar="TARGET")]
OutOption = Annotated[
    Path | None, typer.Option(help="Folder for the results, made where it is missing.", metavar="DIR")
]
HtmlOption = Annotated[
    Path | None,
    typer.Option(help="A page that answers: point at the target, see the source. One file.", metavar="FILE"),
]
FlowFormatOption = Annotated[
    options.FlowFormat, typer.Option(help="Of the flow file: Middlebury's, KITTI's with 16 bits, NumPy's, Spring's.")
]
PointsOption = Annotated[
    Path | None,
    typer.Option(help="CSV of target pixels (x,y) to look up: their places go to matches.csv.", metavar="CSV"),
]
SourceMaskOption = Annotated[
    Path | None, typer.Option(help="Image of the source's size, black where it is not valid.", metavar="IMAGE")
]
TargetMaskOption = Annotated[Path | None, typer.Option(help="The same for the target.", metavar="IMAGE")]
StagesOption = Annotated[
    Literal["D", "H", "MS"] | None,
    typer.Option(help="Of PDC-Net: direct, again through a homography, or several scales first.", show_default=False),
]
MaxMemoryOption = Annotated[
    float | None, typer.Option(help="Stay below so many GB: larger pairs are matched in tiles.", metavar="GB")
]
Uint8TruncationOption = Annotated[
    bool, typer.Option("--uint8-truncation", help="Cut resized grey levels to whole numbers, as GLU-Net's authors.")
]
IterativeRefinementOption = Annotated[
    bool | None,
    by_weights("--iterative-refinement/--no-iterative-refinement", "Extra levels for targets of 1088 px and more"),
]
PyramidOption = Annotated[
    bool | None, by_weights("--pyramid/--no-pyramid", "Smaller copies of them first, in place of the extra levels")
]
PassesOption = Annotated[
    int | None, by_weights("--passes", "How often each local level goes over its flow", metavar="N")
]
AnchorOption = Annotated[
    bool | None,
    by_weights(
        "--anchor/--no-anchor",
        "Keep the global level's flow where finer ones lead away between two things of one kind",
    ),
]
EnsembleOption = Annotated[
    bool | None,
    by_weights("--ensemble/--no-ensemble", "Match the 256 px copies mirrored as well; the mean of both flows counts"),
]
LooksOption = Annotated[
    int | None,
    by_weights(
        "--looks",
        "2: match again through the plane that the global level finds, if there is one; 1: do not",
        metavar="N",
    ),
]


def match(
    source: SourceOption,
    target: TargetOption,
    out: OutOption = None,
    html: HtmlOption = None,
    weights: options.WeightsOption = "glunet",
    device: options.DeviceOption = None,
    flow_format: FlowFormatOption = "flo",
    points: PointsOption = None,
    source_mask: SourceMaskOption = None,
    target_mask: TargetMaskOption = None,
    search: options.SearchOption = None,
    polish: options.PolishOption = None,
    plane: options.PlaneOption = None,
    stages: StagesOption = None,
    max_memory: MaxMemoryOption = None,
    speed: options.SpeedOption = None,
    confidence: options.ConfidenceOption = True,
    uint8_truncation: Uint8TruncationOption = False,
    iterative_refinement: IterativeRefinementOption = None,
    pyramid: PyramidOption = None,
    passes: PassesOption = None,
    anchor: AnchorOption = None,
    ensemble: EnsembleOption = None,
    looks: LooksOption = None,
    enlarge_to: options.EnlargeOption = None,
) -> None:
    """Find every pixel of TARGET in SOURCE; write flow, warped source, pictures and numbers to DIR.

    DIR gets flow.flo (with flow.flo.json, its provenance), warped.png (the source seen from the target),
    flow-picture.png (Middlebury's colours), confidence.png (white is certain), sheet.png (all at a glance) and
    numbers.json, with --points also matches.csv; all of them or, on a failure, none. --html writes one file to look at,
    alone or as well.

    Example: glunet match left.jpg right.jpg --out result
    """
    _check(source, target, out, html, flow_format, points)
    from glunet.flow.files import writing_folder
    from glunet.geometry.points import read_points
    from glunet.images.reading import image_size
    from glunet.loading import load

    asked = None if points is None else read_points(points)
    image_size(source, "source"), image_size(target, "target")  # errors come before weights are read
    settings: dict[str, Any] = {"iterative_refinement": iterative_refinement, "pyramid": pyramid, "passes": passes}
    settings |= {"enlarge_to": enlarge_to, "anchor": anchor, "ensemble": ensemble, "looks": looks}
    settings |= {"speed": speed, "search": search, "polish": polish, "plane": plane, "stages": stages}
    written = []
    with writing_folder(out) if out is not None else nullcontext() as folder:
        began = time.perf_counter()
        matcher = load(weights, device, uint8_truncation=uint8_truncation, **settings)
        loaded = time.perf_counter()
        memory = None if max_memory is None else int(max_memory * 1e9)
        found = matcher.match(
            source,
            target,
            confidence=confidence,
            source_mask=source_mask,
            target_mask=target_mask,
            max_memory=memory,
        )
        seconds = {"load": round(loaded - began, 3), "match": round(time.perf_counter() - loaded, 3)}
        if folder is not None and out is not None:
            made = {"source": str(source), "target": str(target), "device": str(matcher.device), "seconds": seconds}
            _write(folder, flow_format, found, (source, target), made, asked)
            written = sorted(out / path.name for path in folder.iterdir())
        if html is not None:
            from glunet.images.page import write_page

            write_page(html, found, (source.name, target.name))
            written.append(html)
    for path in written:
        typer.echo(path)


def _check(
    source: Path, target: Path, out: Path | None, html: Path | None, flow_format: str, points: Path | None
) -> None:
    """What the words alone say, before anything is read."""
    if out is None and html is None:
        raise GlunetError("Nothing says where the results go: give --out DIR, --html FILE, or both.")
    if html is not None and html.suffix.lower() not in (".html", ".htm"):
        raise GlunetError(f"--html '{html}' came, but a page ends in .html: name it so.")
    if out is None and points is not None:
        raise GlunetError("--points writes matches.csv into the folder of --out: give --out DIR as well.")
    for image in (source, target):
        if out is not None and image.parent.resolve() == out.resolve() and image.name in _written(flow_format):
            raise GlunetError(f"--out '{out}' would overwrite '{image}': name another folder, or the image otherwise.")


def _written(flow_format: str) -> tuple[str, ...]:
    """Names of the pictures that go into the folder."""
    return "warped.png", "flow-picture.png", "confidence.png", "sheet.png", f"flow.{flow_format}"


def measure(match: "Match", source: "np.ndarray", target: "np.ndarray") -> dict[str, Any]:
    """Numbers of a match: displacement, view, and how alike the images are before and after the warp.

    Args:
        source, target: H x W x 3 uint8.

    Returns:
        Lengths in pixels of the source; "in_view", the share of the target; "photometric_difference", the mean absolute
        difference of grey levels (0..255) over target pixels in view: "before", to the source brought to the target's
        size, and "after", to the source warped; None where no pixel is in view; "confidence", of which kind it is.
    """
    import numpy as np
    from PIL import Image

    length = np.hypot(match.flow[..., 0], match.flow[..., 1])
    still = np.asarray(Image.fromarray(source).resize(target.shape[1::-1], Image.Resampling.BOX))
    seen = match.in_view

    def difference(image: np.ndarray) -> float | None:
        apart = np.abs(image.astype(np.int16) - target)
        return round(float(apart[seen].mean()), 3) if seen.any() else None

    return {
        "mean_displacement": round(float(length.mean()), 3),
        "max_displacement": round(float(length.max()), 3),
        "in_view": round(float(seen.mean()), 4),
        "confidence": {
            "kind": match.confidence_kind,
            "mean": round(float(match.confidence.mean()), 4),
            "verdict": str(match.verdict),
        },
        "photometric_difference": {"before": difference(still), "after": difference(match.warp(source))},
    }


def _write(
    folder: Path,
    flow_format: str,
    match: "Match",
    images: tuple[Path, Path],
    made: dict[str, Any],
    asked: "np.ndarray | None",
) -> None:
    """Flow, pictures, numbers (with how they were `made`) and the places of the points that were `asked` for."""
    import json

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from glunet.flow.files import write_json
    from glunet.flow.picture import flow_to_rgb, sheet
    from glunet.geometry.points import Correspondences, write_matches
    from glunet.images.reading import load_pixels

    source, target = (load_pixels(path, role) for path, role in zip(images, ("source", "target"), strict=True))
    provenance = PngInfo()
    provenance.add_text("glunet", json.dumps(match.metadata()))
    warped = match.warp(source)
    match.save(folder / f"flow.{flow_format}")
    Image.fromarray(warped).save(folder / "warped.png", pnginfo=provenance)
    Image.fromarray(flow_to_rgb(match.flow)).save(folder / "flow-picture.png", pnginfo=provenance)
    if match.confidence_kind != "in view":
        grey = (match.confidence * 255).round().astype("uint8")
        Image.fromarray(grey).save(folder / "confidence.png", pnginfo=provenance)
    page = sheet(source, target, warped, match.flow, match.in_view, match.provenance.line())
    page.save(folder / "sheet.png", pnginfo=provenance)
    write_json(folder / "numbers.json", {**match.metadata(), **made, **measure(match, source, target)})
    if asked is not None:
        write_matches(folder / "matches.csv", Correspondences(asked, *match.at(asked)))
