"""Pictures of flow: Middlebury's colours, and one sheet on which a person sees whether a match is right."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

# Baker et al., "A Database and Evaluation Methodology for Optical Flow" (IJCV 2011): the wheel goes through six hues,
# with as many steps between two of them as the eye needs to see the steps alike.
_HUES = ((255, 0, 0), (255, 255, 0), (0, 255, 0), (0, 255, 255), (0, 0, 255), (255, 0, 255))
_STEPS = (15, 6, 4, 11, 13, 6)
WHEEL = np.concatenate(
    [
        np.array(start) + np.arange(steps)[:, None] / steps * (np.array(end) - np.array(start))
        for start, end, steps in zip(_HUES, (*_HUES[1:], _HUES[0]), _STEPS, strict=True)
    ]
)

UNKNOWN = (128, 128, 128)  # a grey that the wheel does not have

_PAPER, _INK, _FAINT = (255, 255, 255), (20, 20, 20), (110, 110, 110)
_MARGIN, _HEADING = 20, 52


def flow_to_rgb(flow: np.ndarray, max: float | None = None, valid: np.ndarray | None = None) -> np.ndarray:
    """The flow in Middlebury's colours: the hue is the direction (right is red, down yellow), white is no motion.

    Args:
        flow: H x W x 2, pixels.
        max: length with full colour; longer ones are darker. None takes the longest.
        valid: H x W bool; elsewhere, and where the flow is not finite, the picture is grey.

    Returns:
        H x W x 3 uint8.
    """
    known = np.isfinite(flow).all(axis=2) if valid is None else valid & np.isfinite(flow).all(axis=2)
    x, y = (np.where(known, flow[..., i], 0).astype(np.float32) for i in range(2))
    length = np.hypot(x, y)
    longest = float(length.max(initial=0)) if max is None else max
    length = length / (longest or 1)
    position = np.arctan2(y, x) % (2 * np.pi) / (2 * np.pi) * len(WHEEL)
    first = position.astype(int) % len(WHEEL)
    part = (position - np.floor(position))[..., None]
    hue = WHEEL[first] * (1 - part) + WHEEL[(first + 1) % len(WHEEL)] * part
    length = length[..., None]
    colours = np.where(length <= 1, 255 - length * (255 - hue), 0.75 * hue)
    return np.where(known[..., None], np.rint(colours), UNKNOWN).astype(np.uint8)


def checkerboard(first: np.ndarray, second: np.ndarray, squares: int = 8) -> np.ndarray:
    """Squares of two H x W x 3 images in turn, `squares` along the longer side: edges run on where the two agree."""
    height, width = first.shape[:2]
    side = -(-(height if height > width else width) // squares)
    y, x = np.mgrid[:height, :width] // side
    return np.where(((x + y) % 2 == 0)[..., None], first, second)


def overlay(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Two H x W x 3 uint8 images on each other, the first in red and the second in cyan: grey where they agree."""
    weights = np.array((0.299, 0.587, 0.114))
    red, cyan = np.rint(first @ weights), np.rint(second @ weights)
    return np.stack((red, cyan, cyan), axis=-1).astype(np.uint8)


def wheel_picture(size: int) -> Image.Image:
    """The colour wheel as a legend: size x size, transparent around it; a flow that points to a colour has it."""
    fine = 4 * size  # drawn larger and brought down, for a smooth rim
    y, x = (np.mgrid[:fine, :fine] - (fine - 1) / 2) / (fine / 2)
    colours = flow_to_rgb(np.stack((x, y), axis=-1), max=1.0)
    disc = (np.hypot(x, y) <= 1).astype(np.uint8) * 255
    return Image.fromarray(np.dstack((colours, disc))).resize((size, size), Image.Resampling.LANCZOS)


def sheet(
    source: np.ndarray, target: np.ndarray, warped: np.ndarray, flow: np.ndarray, in_view: np.ndarray, note: str = ""
) -> Image.Image:
    """One picture of a match: source and target with numbered points, the warped source, and how well it fits.

    Args:
        source: H_source x W_source x 3 uint8.
        target: H x W x 3 uint8.
        warped: H x W x 3 uint8, the source seen from the target.
        flow: H x W x 2, target to source, pixels.
        in_view: H x W bool, where the flow points into the source.
        note: a line at the bottom.
    """
    warped = np.where(in_view[..., None], warped, UNKNOWN).astype(np.uint8)
    length = np.hypot(flow[..., 0], flow[..., 1])
    # A few wild pixels should not make all the others pale.
    scale = float(np.percentile(length[in_view] if in_view.any() else length, 99))
    seen = (
        "all of the target is in the source"
        if in_view.all()
        else f"{100 * in_view.mean():.0f} % of the target is in the source; grey is not"
    )
    on_target, on_source = _points(flow, in_view)

    height, width = target.shape[:2]
    columns = 2 if width > 2 * height else 6 if height > 2 * width else 3
    box_width = {2: 720, 3: 480, 6: 240}[columns]
    box = (box_width, round(_clip(box_width * height / width, 0.2 * box_width, 2.5 * box_width)))
    panels = [
        ("Source", f"{source.shape[1]} x {source.shape[0]}", _with_points(source, on_source, box)),
        ("Target", f"{width} x {height}; equal numbers belong together", _with_points(target, on_target, box)),
        ("Source, warped onto the target", seen, _fit(warped, box)),
        (
            "Flow, target to source",
            f"mean {length.mean():.1f} px, longest {length.max():.1f} px",
            _with_wheel(_fit(flow_to_rgb(flow, scale), box), scale),
        ),
        (
            "Checkerboard",
            "target and warped source in turn: edges should run on",
            _fit(checkerboard(target, warped), box),
        ),
        (
            "Overlay",
            "target red, warped source cyan: grey where they agree",
            _fit(np.where(in_view[..., None], overlay(target, warped), UNKNOWN).astype(np.uint8), box),
        ),
    ]
    return _lay_out(panels, columns, box, note)


def _lay_out(
    panels: Sequence[tuple[str, str, Image.Image]], columns: int, box: tuple[int, int], note: str
) -> Image.Image:
    rows = -(-len(panels) // columns)
    step_x, step_y = box[0] + _MARGIN, box[1] + _HEADING + _MARGIN
    foot = 18 if note else 0
    page = Image.new("RGB", (columns * step_x + _MARGIN, rows * step_y + _MARGIN + foot), _PAPER)
    draw = ImageDraw.Draw(page)
    for number, (title, caption, picture) in enumerate(panels):
        left, top = _MARGIN + number % columns * step_x, _MARGIN + number // columns * step_y
        draw.text((left, top), title, _INK, font=_font(20, title, box[0]))
        draw.text((left, top + 27), caption, _FAINT, font=_font(15, caption, box[0]))
        page.paste(picture, (left, top + _HEADING))
    if note:
        draw.text((_MARGIN, page.height - _MARGIN - 12), note, _FAINT, font=_font(13, note, page.width - 2 * _MARGIN))
    return page


def _font(size: int, text: str, width: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    """Pillow's own font, as large as `size` or as small as it takes for the text to fit into the width."""
    fonts = (ImageFont.load_default(smaller) for smaller in range(size, 7, -1))
    return next((font for font in fonts if font.getlength(text) <= width), ImageFont.load_default(7))


def _clip(value: float, low: float, high: float) -> float:
    return low if value < low else high if value > high else value


def _scale_to(size: tuple[int, int], box: tuple[int, int]) -> float:
    return min(box[0] / size[0], box[1] / size[1])


def _fit(image: np.ndarray, box: tuple[int, int]) -> Image.Image:
    """The image as large as fits into (width, height)."""
    picture = Image.fromarray(np.ascontiguousarray(image))
    scale = _scale_to(picture.size, box)
    size = (max(1, round(picture.width * scale)), max(1, round(picture.height * scale)))
    return picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC)


def _points(flow: np.ndarray, in_view: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Up to twelve points spread over the target, and where they are in the source; those in view only."""
    height, width = flow.shape[:2]
    across, down = (4, 3) if width >= height else (3, 4)
    x, y = np.meshgrid((np.arange(across) + 0.5) / across * width, (np.arange(down) + 0.5) / down * height)
    x, y = x.astype(int).ravel(), y.astype(int).ravel()
    seen = in_view[y, x]
    on_target = np.stack((x, y), -1)[seen]
    return on_target, on_target + flow[y, x][seen]


def _with_points(image: np.ndarray, points: np.ndarray, box: tuple[int, int]) -> Image.Image:
    picture = _fit(image, box)
    scale = _scale_to((image.shape[1], image.shape[0]), box)
    draw = ImageDraw.Draw(picture)
    font = ImageFont.load_default(13)
    for number, (x, y) in enumerate((points + 0.5) * scale, start=1):
        colour = tuple(int(c) for c in WHEEL[(number * 17) % len(WHEEL)] * 0.35 + 255 * 0.65)
        draw.ellipse((x - 11, y - 11, x + 11, y + 11), fill=colour, outline=_INK, width=2)
        draw.text((x, y), str(number), _INK, font=font, anchor="mm")
    return picture


def _with_wheel(picture: Image.Image, scale: float) -> Image.Image:
    """The legend in the lower right corner: the wheel, and what length its rim stands for."""
    size = int(_clip(min(picture.size) * 0.24, 40, 110))
    text = f"rim {scale:.1f} px" if scale < 10 else f"rim {scale:.0f} px"
    font = ImageFont.load_default(14)
    plate_width, plate_height = max(size, int(font.getlength(text))) + 16, size + 34
    left, top = picture.width - plate_width - 8, picture.height - plate_height - 8
    draw = ImageDraw.Draw(picture)
    draw.rounded_rectangle((left, top, left + plate_width, top + plate_height), 8, fill=_PAPER, outline=_FAINT)
    wheel = wheel_picture(size)
    picture.paste(wheel, (left + (plate_width - size) // 2, top + 8), wheel)
    draw.text((left + plate_width // 2, top + plate_height - 6), text, _INK, font=font, anchor="mb")
    return picture
