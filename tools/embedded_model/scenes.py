"""What can be in a scene: the vocabulary, the scene records, where things stand, and how scenes are drawn by lot."""

import zlib
from dataclasses import dataclass
from typing import Literal

import numpy as np

Rgb = tuple[float, float, float]

COLOURS: dict[str, Rgb] = {
    "red": (0.87, 0.10, 0.13),
    "orange": (0.98, 0.52, 0.07),
    "yellow": (0.98, 0.88, 0.14),
    "green": (0.12, 0.60, 0.22),
    "cyan": (0.12, 0.80, 0.84),
    "blue": (0.10, 0.26, 0.84),
    "purple": (0.50, 0.16, 0.70),
    "pink": (0.99, 0.56, 0.74),
    "brown": (0.46, 0.27, 0.12),
    "black": (0.04, 0.04, 0.05),
    "white": (0.97, 0.97, 0.97),
    "gray": (0.52, 0.53, 0.55),
}
SHAPES = ("circle", "square", "triangle", "star", "ring", "heart", "cross", "diamond")
SIZES: dict[str, float] = {"small": 0.14, "medium": 0.23, "large": 0.33}
PAIR_SIZES: dict[str, float] = {"small": 0.12, "medium": 0.17, "large": 0.21}
PLACES: dict[str, tuple[float, float]] = {
    "center": (0.5, 0.5),
    "left": (0.25, 0.5),
    "right": (0.75, 0.5),
    "top": (0.5, 0.25),
    "bottom": (0.5, 0.75),
    "top left": (0.25, 0.25),
    "top right": (0.75, 0.25),
    "bottom left": (0.25, 0.75),
    "bottom right": (0.75, 0.75),
}
RELATIONS: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "left of": ((0.27, 0.5), (0.73, 0.5)),
    "right of": ((0.73, 0.5), (0.27, 0.5)),
    "above": ((0.5, 0.27), (0.5, 0.73)),
    "below": ((0.5, 0.73), (0.5, 0.27)),
}
TIMES = ("day", "sunset", "night", "sunrise")
GROUNDS = ("mountains", "sea", "lake", "field", "desert", "snow")
WATER = ("sea", "lake")
HELD_OUT = 12


@dataclass(frozen=True)
class Thing:
    """One shape: what it is, and its colour and size by name."""

    shape: str
    colour: str
    size: str


@dataclass(frozen=True)
class Shapes:
    """One or two shapes on a plain background; `place` is a place for one shape, a relation for two."""

    things: tuple[Thing, ...]
    place: str
    background: str
    kind: Literal["shapes"] = "shapes"


@dataclass(frozen=True)
class Landscape:
    """A landscape: the time of day, what the ground is, and what stands in it."""

    time: str
    ground: str
    extras: tuple[str, ...] = ()
    kind: Literal["landscape"] = "landscape"


Scene = Shapes | Landscape


def place_things(scene: Shapes, width: int, height: int) -> list[tuple[float, float, float]]:
    """Where the grammar wants each shape: its centre and radius, in pixels."""
    short = min(width, height)
    if len(scene.things) == 1:
        spots, sizes = (PLACES[scene.place],), SIZES
    else:
        spots, sizes = RELATIONS[scene.place], PAIR_SIZES
    placed = []
    for thing, (fx, fy) in zip(scene.things, spots, strict=True):
        radius = sizes[thing.size] * short
        room = radius * 1.12 + 0.02 * short
        placed.append((_keep(fx * width, room, width), _keep(fy * height, room, height), radius))
    return placed


def _keep(centre: float, room: float, extent: int) -> float:
    return min(max(centre, room), extent - room)


def draw_lot(rng: np.random.Generator, held_out: bool = False) -> Scene:
    """A scene by lot, from the training part of the grammar or from the part kept for judging."""
    while True:
        scene: Scene = random_landscape(rng) if rng.random() < 0.38 else random_shapes(rng)
        if is_held_out(scene) == held_out:
            return scene


def is_held_out(scene: Scene) -> bool:
    """True for the scenes that training never sees; plain landscapes are too few to keep any back."""
    if isinstance(scene, Landscape) and not scene.extras:
        return False
    return zlib.crc32(repr(scene).encode()) % HELD_OUT == 0


def random_shapes(rng: np.random.Generator) -> Shapes:
    """One shape somewhere, or two side by side or one over the other."""
    names = [str(n) for n in rng.permutation(list(COLOURS))]
    background = str(rng.choice(["white", "black", "gray"])) if rng.random() < 0.25 else names[0]
    inks = [name for name in names if name != background]
    if rng.random() < 0.34:
        size = str(rng.choice(["small", "medium", "medium", "large"]))
        pair = tuple(Thing(str(rng.choice(SHAPES)), ink, size) for ink in inks[:2])
        return Shapes(pair, str(rng.choice(list(RELATIONS))), background)
    place = "center" if rng.random() < 0.35 else str(rng.choice(list(PLACES)))
    return Shapes((Thing(str(rng.choice(SHAPES)), inks[0], str(rng.choice(list(SIZES)))),), place, background)


def random_landscape(rng: np.random.Generator) -> Landscape:
    """A time of day over some ground, with nothing, one or two things in it."""
    time, ground = str(rng.choice(TIMES, p=[0.28, 0.32, 0.22, 0.18])), str(rng.choice(GROUNDS))
    allowed = possible_extras(ground)
    count = int(rng.choice([0, 1, 2], p=[0.4, 0.4, 0.2])) if allowed else 0
    chosen = rng.choice(allowed, size=min(count, len(allowed)), replace=False) if count else []
    return Landscape(time, ground, tuple(sorted(str(name) for name in chosen)))


def possible_extras(ground: str) -> list[str]:
    """What may stand in a landscape with this ground."""
    if ground == "mountains":
        return ["trees"]
    if ground == "sea":
        return ["mountains", "sailboat"]
    if ground == "lake":
        return ["mountains", "sailboat", "trees", "house"]
    return ["mountains", "trees", "house"]
