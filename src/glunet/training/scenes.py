"""Synthetic scenes: what one photograph, and pieces of others, look like from several views, and where everything went.

A scene is a plane that carries a photograph, bent by a smooth displacement (thin-plate-like bending, and the parallax
of a pseudo-depth), and objects with outlines of their own, cut out of other photographs, that move by themselves in
front of it. A view sees the plane through a homography. Each map has an inverse, so that V views of a scene give V (V
- 1) pairs with exact flow and exact occlusions, while each view is rendered, and encoded, once.

Coordinates: a view's frame of height h and width w spans [-a, a] x [-1, 1] with a = w / h, pixel areas aligned (pixel
p of n has its centre at (2 p + 1) / n - 1, times a for x). The plane and the objects' canvases have such coordinates
too. Everything is batched over scenes and lives on one device. Random numbers come from a CPU generator, so that a
scene is the same on every device.
"""

import math
from dataclasses import dataclass, fields

import torch
from torch import Tensor
from torch.nn import functional as F

EXTENT = 2.5  # the displacement field covers [-EXTENT a, EXTENT a] x [-EXTENT, EXTENT] of the plane
FIELD = 48  # its grid
MASK = 96  # the grid of an object's outline
STEEPEST = 0.45  # largest slope of a displacement: under 1 it can be inverted by iteration
# How many times the parameters' corners, anisotropy, log_scale and rotation a steep scene has.
STEEP = (1.8, 1.45, 1.25, 1.3)
ITERATIONS = 12  # 0.45**12 of a displacement is under a hundredth of a pixel


@dataclass
class Scenes:
    """The geometry of B scenes with V views and K objects.

    Attributes:
        plane: B x V x 3 x 3 homographies, view -> bent plane.
        field: B x V x 2 x FIELD x FIELD displacement, bent plane -> photograph's canvas: c = x + field(x).
        objects: B x K x V x 3 x 3 homographies, bent plane -> the object's canvas.
        outlines: B x K x MASK x MASK over [-1, 1]^2 of the object's canvas, positive inside.
        aspect: B, width / height of the frame.
    """

    plane: Tensor
    field: Tensor
    objects: Tensor
    outlines: Tensor
    aspect: Tensor

    def __getitem__(self, index: Tensor | slice) -> "Scenes":
        return Scenes(*(getattr(self, f.name)[index] for f in fields(self)))

    def to(self, device: torch.device | str) -> "Scenes":
        return Scenes(*(getattr(self, f.name).to(device) for f in fields(self)))

    @staticmethod
    def cat(parts: "list[Scenes]") -> "Scenes":
        return Scenes(*(torch.cat([getattr(p, f.name) for p in parts]) for f in fields(Scenes)))


@dataclass(frozen=True)
class SceneParameters:
    """How scenes are drawn. Lengths are in half frame heights.

    Attributes:
        amounts: ranges of the amount of motion, which scales all that follows, and
        shares: how often each is drawn.
        translation, rotation (radians), log_scale, anisotropy, corners: largest of each for a view at amount 1;
            two views differ by up to twice that.
        any_angle: share of scenes whose views are turned by any angle.
        still: share of scenes of which all views are the same.
        bending: largest bending at amount 1, and
        parallax: largest parallax.
        objects: most objects in a scene, and
        object_motion: their largest motion of their own.
        zoom: how much of the photograph's half height a frame sees.
        steep: share of scenes that are seen more from the side (`STEEP`), with half the bending.
    """

    amounts: tuple[tuple[float, float], ...] = ((0.0, 0.06), (0.06, 0.25), (0.25, 0.65), (0.65, 1.0))
    shares: tuple[float, ...] = (0.15, 0.2, 0.3, 0.35)
    translation: float = 0.4
    rotation: float = math.radians(24)
    log_scale: float = 0.4
    anisotropy: float = 0.45
    corners: float = 0.28
    any_angle: float = 0.1
    still: float = 0.05
    bending: float = 0.3
    parallax: float = 0.25
    objects: int = 6
    object_motion: float = 0.8
    zoom: tuple[float, float] = (0.55, 0.9)
    steep: float = 0.0


def draw(
    count: int, views: int, generator: torch.Generator, parameters: SceneParameters, aspect: float = 1.0
) -> Scenes:
    """Draw the geometry of `count` scenes with `views` views each, on the CPU."""

    def uniform(*shape: int, low: float = -1.0, high: float = 1.0) -> Tensor:
        return torch.rand(shape, generator=generator) * (high - low) + low

    bins = torch.multinomial(
        torch.tensor(parameters.shares, dtype=torch.float32), count, replacement=True, generator=generator
    )
    ranges = torch.tensor(parameters.amounts)[bins]
    amount = (ranges[:, 0] + (ranges[:, 1] - ranges[:, 0]) * torch.rand(count, generator=generator))[:, None]
    moves = (torch.rand((count, 1), generator=generator) >= parameters.still).float()
    amount = amount * moves

    # Views: similarity with anisotropy, then a perspective that moves the frame's corners, then the zoom into the
    # plane.
    b, v, k = count, views, parameters.objects
    # Which kinds of motion a scene has at all: all of them at once would make pure shifts or turns rare.
    has = (torch.rand((b, 4, 1), generator=generator) < torch.tensor((0.8, 0.6, 0.6, 0.6)).view(4, 1)).float()
    steep = (
        (torch.rand((b, 1), generator=generator) < parameters.steep).float() if parameters.steep else torch.zeros(b, 1)
    )
    corner, aniso, zooming, turning = (1 + steep * (factor - 1) for factor in STEEP)
    angle = parameters.rotation * turning * amount * uniform(b, v) * has[:, 1]
    turned = torch.rand((b, 1), generator=generator) < parameters.any_angle
    angle = torch.where(turned, math.pi * uniform(b, v), angle) * moves
    scale = parameters.log_scale * zooming * amount * uniform(b, v) * has[:, 2]
    stretch = parameters.anisotropy * aniso * amount * uniform(b, v) * has[:, 3]
    shift = parameters.translation * amount[..., None] * uniform(b, v, 2) * has[:, :1]
    shift[..., 0] *= aspect
    corners = parameters.corners * (corner * amount)[..., None, None] * uniform(b, v, 4, 2) * has[:, 3, None, None]
    perspective = _corner_homography(corners, aspect)
    zoom = uniform(b, 1, low=parameters.zoom[0], high=parameters.zoom[1]).log()
    plane = _similarity(angle, scale + zoom, stretch, shift * zoom.exp()[..., None]) @ perspective

    # The bent plane: a bending for each view, and one pseudo-depth for the scene, seen from where each camera stands.
    bent = (torch.rand((b, 1), generator=generator) < 0.6).float() * amount * (1 - steep / 2)
    deep = (torch.rand((b, 1), generator=generator) < 0.5).float() * amount
    bending = _octaves(b * v, 2, generator).view(b, v, 2, FIELD, FIELD)
    depth = _octaves(b, 1, generator).view(b, 1, 1, FIELD, FIELD)
    camera = uniform(b, v, 2)[..., None, None]
    field = parameters.bending * bent[..., None, None, None] * bending * 0.5
    field = field + parameters.parallax * deep[..., None, None, None] * depth * camera
    field = _limit_slope(field, aspect)

    # Objects: each with a size, a place on the plane and a motion of its own in every view.
    size = uniform(b, k, 1, low=math.log(0.15), high=math.log(0.8))
    place = uniform(b, k, 1, 2) * zoom.exp().view(b, 1, 1, 1) * 1.1
    place[..., 0] *= aspect
    # In half of the scenes of the calmest kind most objects hardly move either: motion of under a few pixels is to be
    # learned too. In the other half they move before a plane that stands still.
    calm = (bins[:, None] == 0) & (torch.rand((b, 1), generator=generator) < 0.5)
    least = torch.where(calm, 0.04, 0.3) * uniform(b, k, low=0.0)
    own = (torch.maximum(amount * torch.rand((b, k), generator=generator), least) * moves)[..., None]
    motion = parameters.object_motion * own[..., None] * uniform(b, k, v, 2)
    turn = 0.5 * own * uniform(b, k, v)
    grow = 0.3 * own * uniform(b, k, v)
    objects = torch.linalg.inv(_similarity(turn, size + grow, 0.2 * own * uniform(b, k, v), place + motion))
    outlines = _outlines(b * k, generator).view(b, k, MASK, MASK)
    absent = torch.rand((b, k), generator=generator) < 0.35
    outlines[absent] = -1.0
    return Scenes(plane, field, objects, outlines, torch.full((b,), aspect))


def frame_points(height: int, width: int, device: torch.device | str | None = None) -> Tensor:
    """The pixel centres of a frame in scene coordinates, (height * width) x 2, row by row."""
    y = (2 * torch.arange(height, dtype=torch.float32, device=device) + 1) / height - 1
    x = ((2 * torch.arange(width, dtype=torch.float32, device=device) + 1) / width - 1) * (width / height)
    y, x = torch.meshgrid(y, x, indexing="ij")
    return torch.stack((x, y), dim=-1).view(-1, 2)


def to_layers(scenes: Scenes, view: Tensor, points: Tensor) -> Tensor:
    """Where points of a view lie on each layer's canvas.

    Args:
        view: B, which view of each scene.
        points: B x N x 2.

    Returns:
        B x (1 + K) x N x 2: on the photograph, then on each object, back to front.
    """
    b = torch.arange(len(view), device=view.device)
    plane = _project(scenes.plane[b, view], points)
    photo = plane + _field_at(scenes, view, plane)
    objects = _project(scenes.objects[b, :, view], plane[:, None])
    return torch.cat((photo[:, None], objects), dim=1)


def from_layers(scenes: Scenes, view: Tensor, canvas: Tensor) -> Tensor:
    """The inverse of `to_layers`: where points of each layer's canvas are in a view; B x (1 + K) x N x 2 both ways."""
    b = torch.arange(len(view), device=view.device)
    photo = canvas[:, 0]
    plane = photo
    for _ in range(ITERATIONS):
        plane = photo - _field_at(scenes, view, plane)
    objects = _project(torch.linalg.inv(scenes.objects[b, :, view]), canvas[:, 1:])
    planes = torch.cat((plane[:, None], objects), dim=1)
    return _project(torch.linalg.inv(scenes.plane[b, view])[:, None], planes)


def front_layer(scenes: Scenes, canvas: Tensor) -> Tensor:
    """Which layer is seen at points given on every layer's canvas (B x (1 + K) x N x 2): B x N, 0 is the photograph."""
    inside = _outline_at(scenes, canvas) > 0
    layers = torch.arange(1, canvas.shape[1], device=canvas.device).view(1, -1, 1)
    return (inside * layers).amax(dim=1) if canvas.shape[1] > 1 else inside.new_zeros(canvas[:, 0, :, 0].shape).long()


@dataclass
class Truth:
    """Where the pixels of a target are in a source.

    Attributes:
        flow: B x 2 x h x w, in pixels of the frame.
        in_view: B x h x w, the point lies inside the source's frame.
        visible: B x h x w, in view and not covered by something else there.
    """

    flow: Tensor
    in_view: Tensor
    visible: Tensor


def truth(scenes: Scenes, target: Tensor, source: Tensor, grid: tuple[int, int], frame: tuple[int, int]) -> Truth:
    """The true flow from view `target` into view `source` of each scene.

    Args:
        target, source: B, numbers of views.
        grid: (h, w) of the positions asked for, pixel areas aligned with the frame's.
        frame: (height, width) in whose pixels the flow is given.
    """
    points = frame_points(*grid, device=target.device)
    points[:, 0] *= scenes.aspect[0] * grid[0] / grid[1]  # the grid's rounding must not change the frame's aspect
    points = points.expand(len(target), -1, -1)
    canvas = to_layers(scenes, target, points)
    layer = front_layer(scenes, canvas)
    moved = from_layers(scenes, source, canvas)
    moved = moved.gather(1, layer[:, None, :, None].expand(-1, 1, -1, 2))[:, 0]
    aspect = scenes.aspect.view(-1, 1)
    in_view = (moved[..., 0].abs() <= aspect) & (moved[..., 1].abs() <= 1)
    visible = in_view & (front_layer(scenes, to_layers(scenes, source, moved)) == layer)
    flow = (moved - points) * (frame[0] / 2)
    shape = (len(target), *grid)
    # A point behind a camera has no image; its flow is cut off rather than wild.
    flow = flow.clamp(-4 * max(frame), 4 * max(frame)).transpose(1, 2).reshape(shape[0], 2, *grid)
    return Truth(flow, in_view.view(shape), visible.view(shape))


def render(scenes: Scenes, view: Tensor, photos: Tensor, cutouts: Tensor, frame: tuple[int, int]) -> Tensor:
    """What a view of each scene looks like.

    Args:
        view: B, numbers of views.
        photos: B x 3 x h x w in 0..1, on the canvas [-a, a] x [-1, 1]; mirrored beyond it.
        cutouts: B x K x 3 x h' x w' in 0..1, the objects' pictures over [-1, 1]^2.
        frame: (height, width).

    Returns:
        B x 3 x height x width in 0..1.
    """
    points = frame_points(*frame, device=view.device).expand(len(view), -1, -1)
    canvas = to_layers(scenes, view, points)
    image = _picture_at(
        photos, canvas[:, 0] / torch.stack((scenes.aspect, torch.ones_like(scenes.aspect)), -1)[:, None]
    )
    if canvas.shape[1] > 1:
        layer = front_layer(scenes, canvas)
        for k in range(cutouts.shape[1]):
            if (layer == k + 1).any():
                cutout = _picture_at(cutouts[:, k], canvas[:, k + 1])
                image = torch.where((layer == k + 1)[:, None], cutout, image)
    return image.view(len(view), 3, *frame)


def _picture_at(pictures: Tensor, points: Tensor) -> Tensor:
    """B x C x h x w at B x N x 2 points of [-1, 1]^2, mirrored beyond: B x C x N."""
    grid = points[:, None].clamp(-100, 100)
    return F.grid_sample(pictures, grid, mode="bilinear", padding_mode="reflection", align_corners=False)[:, :, 0]


def _field_at(scenes: Scenes, view: Tensor, points: Tensor) -> Tensor:
    b = torch.arange(len(view), device=view.device)
    scale = torch.stack((scenes.aspect, torch.ones_like(scenes.aspect)), dim=-1)[:, None] * EXTENT
    grid = (points / scale)[:, None]
    out = F.grid_sample(scenes.field[b, view], grid, mode="bilinear", padding_mode="border", align_corners=True)
    return out[:, :, 0].transpose(1, 2)


def _outline_at(scenes: Scenes, canvas: Tensor) -> Tensor:
    """The outlines' values at points on the objects' canvases (B x (1 + K) x N x 2): B x K x N, negative outside."""
    batch, layers, count, _ = canvas.shape
    if layers == 1:
        return canvas.new_zeros(batch, 0, count)
    points = canvas[:, 1:].reshape(batch * (layers - 1), 1, count, 2)
    outlines = scenes.outlines.reshape(-1, 1, MASK, MASK)
    values = F.grid_sample(outlines, points, mode="bilinear", padding_mode="border", align_corners=True)
    return values.view(batch, layers - 1, count)


def _project(homography: Tensor, points: Tensor) -> Tensor:
    """Points ... x N x 2 through homographies ... x 3 x 3; what is behind the camera goes far away."""
    out = points @ homography[..., :2].transpose(-1, -2) + homography[..., None, :, 2]
    return out[..., :2] / out[..., 2:].clamp(min=1e-2)


def _similarity(angle: Tensor, log_scale: Tensor, stretch: Tensor, shift: Tensor) -> Tensor:
    """... x 3 x 3: stretched, scaled, turned, then shifted."""
    cos, sin = angle.cos(), angle.sin()
    sx, sy = (log_scale + stretch).exp(), (log_scale - stretch).exp()
    zero, one = torch.zeros_like(sx), torch.ones_like(sx)
    rows = (
        torch.stack((cos * sx, -sin * sy, shift[..., 0].expand_as(sx)), dim=-1),
        torch.stack((sin * sx, cos * sy, shift[..., 1].expand_as(sx)), dim=-1),
        torch.stack((zero, zero, one), dim=-1),
    )
    return torch.stack(rows, dim=-2)


def _corner_homography(offsets: Tensor, aspect: float) -> Tensor:
    """Homographies that move the frame's four corners by ... x 4 x 2 offsets: ... x 3 x 3."""
    corners = torch.tensor(((-1.0, -1.0), (1.0, -1.0), (1.0, 1.0), (-1.0, 1.0))) * torch.tensor((aspect, 1.0))
    moved = corners + offsets
    x, y = (corners[:, i].expand(moved.shape[:-1]) for i in (0, 1))
    u, v = moved[..., 0], moved[..., 1]
    zero, one = torch.zeros_like(u), torch.ones_like(u)
    top = torch.stack((x, y, one, zero, zero, zero, -u * x, -u * y), dim=-1)
    bottom = torch.stack((zero, zero, zero, x, y, one, -v * x, -v * y), dim=-1)
    solution = torch.linalg.solve(torch.cat((top, bottom), dim=-2), torch.cat((u, v), dim=-1))
    return torch.cat((solution, torch.ones_like(solution[..., :1])), dim=-1).unflatten(-1, (3, 3))


def _octaves(count: int, channels: int, generator: torch.Generator) -> Tensor:
    """Smooth random fields, count x channels x FIELD x FIELD: octaves of random values with bicubics between them."""
    total = torch.zeros(count, channels, FIELD, FIELD)
    for knots in (3, 5, 9):
        values = torch.rand((count, channels, knots, knots), generator=generator) * 2 - 1
        smooth = F.interpolate(values, size=(FIELD, FIELD), mode="bicubic", align_corners=True)
        total += smooth / (knots - 2)
    return total


def _limit_slope(field: Tensor, aspect: float) -> Tensor:
    """Scale down fields whose slope exceeds STEEPEST, so that x + field(x) has an inverse. ... x 2 x FIELD x FIELD."""
    step = 2 * EXTENT / (FIELD - 1)
    dy = field.diff(dim=-2).flatten(-3).abs().amax(-1) / step
    dx = field.diff(dim=-1).flatten(-3).abs().amax(-1) / (step * aspect)
    steepest = (dx + dy)[..., None, None, None]
    return field * (STEEPEST / steepest.clamp(min=STEEPEST))


def _outlines(count: int, generator: torch.Generator) -> Tensor:
    """Random shapes over [-1, 1]^2, count x MASK x MASK, positive inside: blobs, polygons, ragged patches, sticks."""
    line = torch.linspace(-1, 1, MASK)
    y, x = torch.meshgrid(line, line, indexing="ij")
    angle, radius = torch.atan2(y, x), (x * x + y * y).sqrt()
    # Blobs: a circle whose radius waves around; polygons: the intersection of half planes around the middle.
    waves = torch.arange(1, 7, dtype=torch.float32)
    strength = (torch.rand((count, 6), generator=generator) * 0.5 / waves)[..., None, None]
    phase = (torch.rand((count, 6), generator=generator) * 2 * math.pi)[..., None, None]
    wave = (strength * torch.cos(waves.view(1, 6, 1, 1) * angle + phase)).sum(1)
    blob = 0.6 + 0.35 * wave / (1 + wave.abs()) - radius
    sides = 7
    direction = torch.rand((count, sides), generator=generator) * 2 * math.pi
    distance = torch.rand((count, sides), generator=generator) * 0.6 + 0.25
    planes = direction.cos()[..., None, None] * x + direction.sin()[..., None, None] * y
    polygon = (distance[..., None, None] - planes).amin(1)
    values = torch.rand((count, 1, 14, 14), generator=generator) * 2 - 1
    ragged = blob + 0.3 * F.interpolate(values, size=(MASK, MASK), mode="bicubic", align_corners=True)[:, 0]
    bars = _bars(count, generator)
    kind = torch.randint(4, (count, 1, 1), generator=generator)
    shape = torch.where(kind == 0, blob, torch.where(kind == 1, polygon, ragged))
    # Thin things are what a coarse flow runs over: sticks, some with a small body, and bodies with slits.
    body = torch.rand((count, 1, 1), generator=generator) < 0.5
    sticks = torch.where(body, torch.maximum(bars, shape - 0.3), bars)
    slit = torch.rand((count, 1, 1), generator=generator) < 0.25
    shape = torch.where(kind == 3, sticks, torch.where(slit, torch.minimum(shape, -bars), shape))
    return torch.minimum(shape, 0.95 - torch.maximum(x.abs(), y.abs()))  # nothing at the rim


def _bars(count: int, generator: torch.Generator, bars: int = 4) -> Tensor:
    """Some straight bars over [-1, 1]^2, half of them upright, count x MASK x MASK, positive inside."""
    line = torch.linspace(-1, 1, MASK)
    y, x = torch.meshgrid(line, line, indexing="ij")
    ends = torch.rand((count, bars, 2, 2), generator=generator) * 1.8 - 0.9  # which end, x and y
    upright = torch.rand((count, bars), generator=generator) < 0.5
    ends[..., 1, 0] = torch.where(upright, ends[..., 0, 0], ends[..., 1, 0])
    start, along = ends[..., 0, :, None, None], (ends[..., 1, :] - ends[..., 0, :])[..., None, None]
    dx, dy = x - start[:, :, 0], y - start[:, :, 1]
    ax, ay = along[:, :, 0], along[:, :, 1]
    nearest = ((dx * ax + dy * ay) / (ax * ax + ay * ay).clamp(min=1e-6)).clamp(0, 1)
    distance = ((dx - nearest * ax).square() + (dy - nearest * ay).square()).sqrt()
    width = 0.03 + 0.12 * torch.rand((count, bars, 1, 1), generator=generator).square()
    return (width - distance).amax(1)
