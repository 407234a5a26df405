"""A canvas with smooth edges, the eight shapes as signed distances, and the picture of any scene."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from scenes import COLOURS, Rgb, Shapes, place_things

Field = NDArray[np.float32]


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


def near(rng: np.random.Generator, colour: Rgb, spread: float = 0.02) -> Rgb:
    """A colour close to this one."""
    r, g, b = np.clip(np.asarray(colour) + rng.uniform(-spread, spread, 3), 0, 1)
    return float(r), float(g), float(b)


def draw_shapes(scene: Shapes, width: int, height: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """The picture of one or two shapes; only a little is left to chance."""
    canvas = Canvas(width, height, near(rng, COLOURS[scene.background]))
    for thing, (x, y, radius) in zip(scene.things, place_things(scene, width, height), strict=True):
        shift = rng.uniform(-0.015, 0.015, 2) * canvas.unit
        cover = stamp(canvas, thing.shape, (x + shift[0], y + shift[1]), radius * rng.uniform(0.97, 1.03))
        canvas.paint(cover, near(rng, COLOURS[thing.colour]))
    return canvas.to_bytes()
