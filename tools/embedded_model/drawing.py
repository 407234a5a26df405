"""A canvas with smooth edges, the eight shapes as signed distances, and the picture of any scene."""

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from scenes import COLOURS, Rgb, Shapes, place_things

Field = NDArray[np.float32]
Jitter = Sequence[float]
# How far a shape may be from its place, in shares of the shorter side, and its radius from its size.
SHIFT, SWELL = 0.012, 0.024


class Canvas:
    """A picture in 0..1 with coordinates in pixels and a unit, the length of its shorter side."""

    def __init__(self, width: int, height: int, fill: Rgb = (0.0, 0.0, 0.0)) -> None:
        self.width, self.height, self.unit = width, height, float(min(width, height))
        self.x = (np.arange(width, dtype=np.float32) + 0.5)[None, :]
        self.y = (np.arange(height, dtype=np.float32) + 0.5)[:, None]
        self.pixels = np.empty((height, width, 3), np.float32)
        self.pixels[:] = fill

    def paint(self, alpha: Field | float, colour: Rgb | Field) -> None:
        """Lay a colour (or a picture of colours) over the canvas."""
        cover = np.broadcast_to(np.asarray(alpha, np.float32), (self.height, self.width))[..., None]
        self.pixels += cover * (np.asarray(colour, np.float32) - self.pixels)

    def glow(self, alpha: Field, colour: Rgb) -> None:
        """Add light, as a screen does: bright parts never overflow."""
        light = alpha[..., None] * np.asarray(colour, np.float32)
        self.pixels = 1 - (1 - self.pixels) * (1 - np.clip(light, 0, 1))

    def to_bytes(self) -> NDArray[np.uint8]:
        """The finished picture, eight bits a channel."""
        return (np.clip(self.pixels, 0, 1) * 255 + 0.5).astype(np.uint8)


def inside(distance: Field) -> Field:
    """How much of each pixel lies inside a signed distance given in pixels."""
    return np.clip(0.5 - distance, 0, 1)


def circle(x: Field, y: Field) -> Field:
    """A disc of radius 1."""
    return np.hypot(x, y) - 1


def square(x: Field, y: Field) -> Field:
    """A square with its sides along the axes."""
    return np.maximum(abs(x), abs(y)) - 0.86


def triangle(x: Field, y: Field) -> Field:
    """An equilateral triangle, one corner up."""
    return np.maximum(y, abs(x) * 0.866 - y * 0.5) - 0.58


def star(x: Field, y: Field) -> Field:
    """Five points, one up."""
    turn = np.pi / 5
    angle = abs((np.arctan2(x, -y) + turn) % (2 * turn) - turn)
    radius = np.hypot(x, y)
    tip, dent = np.array([1.14, 0.0]), 0.5 * np.array([np.cos(turn), np.sin(turn)])
    along = (dent - tip) / np.linalg.norm(dent - tip)
    return (radius * np.cos(angle) - tip[0]) * along[1] - radius * np.sin(angle) * along[0]


def ring(x: Field, y: Field) -> Field:
    """A disc with a round hole of half its radius."""
    return abs(np.hypot(x, y) - 0.76) - 0.25


def heart(x: Field, y: Field) -> Field:
    """A heart, its tip down."""
    side, up = abs(x) / 1.8, 0.56 - y / 1.8
    lobe = np.hypot(side - 0.25, up - 0.75) - np.sqrt(2) / 4
    fold = 0.5 * np.maximum(side + up, 0)
    near = np.minimum(side**2 + (up - 1) ** 2, (side - fold) ** 2 + (up - fold) ** 2)
    return 1.8 * np.where(side + up > 1, lobe, np.sqrt(near) * np.sign(side - up))


def cross(x: Field, y: Field) -> Field:
    """A plus sign."""
    return np.maximum(np.minimum(abs(x), abs(y)) - 0.31, np.maximum(abs(x), abs(y)) - 0.98)


def diamond(x: Field, y: Field) -> Field:
    """A rhombus, taller than wide."""
    return (abs(x) / 0.78 + abs(y) / 1.12 - 1) * 0.64


OUTLINES: dict[str, Callable[[Field, Field], Field]] = {
    f.__name__: f for f in (circle, square, triangle, star, ring, heart, cross, diamond)
}


def stamp(canvas: Canvas, shape: str, centre: tuple[float, float], radius: float, tilt: float = 0.0) -> Field:
    """How much of each pixel a shape covers, standing there at this radius, tilted by an angle."""
    dx, dy = (canvas.x - centre[0]) / radius, (canvas.y - centre[1]) / radius
    cos, sin = np.float32(np.cos(tilt)), np.float32(np.sin(tilt))
    return inside(OUTLINES[shape](dx * cos + dy * sin, dy * cos - dx * sin) * radius)


def shift_things(scene: Shapes, width: int, height: int, jitter: Jitter) -> list[tuple[float, float, float]]:
    """Where the shapes stand in this very picture: centre and radius, in pixels."""
    unit = min(width, height)
    return [
        (x + SHIFT * dx * unit, y + SHIFT * dy * unit, radius * (1 + SWELL * swell))
        for (x, y, radius), (dx, dy, swell) in zip(
            place_things(scene, width, height), (jitter[:3], jitter[3:]), strict=False
        )
    ]


def draw_shapes(scene: Shapes, width: int, height: int, jitter: Jitter) -> NDArray[np.uint8]:
    """The picture of one or two shapes in exactly their colours; place and size vary a little."""
    canvas = Canvas(width, height, COLOURS[scene.background])
    for thing, (x, y, radius) in zip(scene.things, shift_things(scene, width, height, jitter), strict=True):
        canvas.paint(stamp(canvas, thing.shape, (x, y), radius), COLOURS[thing.colour])
    return canvas.to_bytes()


def cover_shapes(scene: Shapes, width: int, height: int, jitter: Jitter) -> NDArray[np.uint8]:
    """How much of each block of four by four pixels the first and the second shape cover, (2, H/4, W/4)."""
    small = Canvas(width // 4, height // 4)
    covers = np.zeros((2, small.height, small.width), np.uint8)
    for index, (x, y, radius) in enumerate(shift_things(scene, width, height, jitter)):
        covers[index] = (stamp(small, scene.things[index].shape, (x / 4, y / 4), radius / 4) * 255).astype(np.uint8)
    return covers
