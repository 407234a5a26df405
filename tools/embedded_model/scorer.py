"""Judges a picture against its scene: colours, background, place, outline, time of day and ground, by numpy alone."""

from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from drawing import OUTLINES, Canvas, stamp
from landscapes import draw_landscape
from scenes import COLOURS, GROUNDS, TIMES, Landscape, Scene, Shapes, place_things, possible_extras

Picture = NDArray[np.float32]
Mask = NDArray[np.bool_]
PLACE_TOLERANCE = 0.1
SKY_ROWS = (0.03, 0.12, 0.22, 0.32)
GROUND_ROWS = (0.66, 0.74, 0.82, 0.90, 0.95)


@dataclass(frozen=True)
class Verdict:
    """One thing that was looked at: what it is called, what was wanted and what was seen."""

    name: str
    wanted: str
    seen: str

    @property
    def right(self) -> bool:
        """True when the picture shows what was asked for."""
        return self.wanted == self.seen


def judge(scene: Scene, picture: NDArray[np.uint8]) -> list[Verdict]:
    """Everything the caption promises that can be checked."""
    pixels = picture[..., :3].astype(np.float32) / 255
    return judge_landscape(scene, pixels) if isinstance(scene, Landscape) else judge_shapes(scene, pixels)


def nearest(colour: Picture, names: dict[str, tuple[float, ...]]) -> str:
    """The name of the closest colour."""
    return min(names, key=lambda name: float(np.linalg.norm(colour - np.asarray(names[name]))))


def judge_shapes(scene: Shapes, pixels: Picture) -> list[Verdict]:
    """Background, then each shape in its own half of the picture."""
    ground = np.median(_border(pixels), axis=0)
    verdicts = [Verdict("background", scene.background, nearest(ground, COLOURS))]
    height, width = pixels.shape[:2]
    spots = place_things(scene, width, height)
    for index, thing in enumerate(scene.things):
        mask = find_thing(pixels, ground, _half(scene, index, width, height))
        colour = nearest(_middle_colour(pixels, mask), COLOURS) if mask.any() else "nothing"
        verdicts.append(Verdict("colour", thing.colour, colour))
        verdicts.append(Verdict("shape", thing.shape, nearest_outline(mask)))
        verdicts.append(Verdict("place", scene.place, scene.place if _stands_at(mask, spots[index]) else "elsewhere"))
    return verdicts


def _border(pixels: Picture) -> Picture:
    edge = max(2, min(pixels.shape[:2]) // 50)
    strips = (pixels[:edge], pixels[-edge:], pixels[:, :edge], pixels[:, -edge:])
    return np.concatenate([strip.reshape(-1, 3) for strip in strips])


def _half(scene: Shapes, index: int, width: int, height: int) -> Mask:
    """The part of the picture in which a shape is looked for: all of it, or its half of a pair."""
    area = np.zeros((height, width), bool)
    if len(scene.things) == 1:
        area[:] = True
    elif scene.place in ("left of", "right of"):
        first = (scene.place == "left of") == (index == 0)
        area[:, slice(0, width // 2) if first else slice(width // 2, width)] = True
    else:
        first = (scene.place == "above") == (index == 0)
        area[slice(0, height // 2) if first else slice(height // 2, height)] = True
    return area


def find_thing(pixels: Picture, ground: Picture, area: Mask) -> Mask:
    """The pixels of an area nearer to what stands out most than to the background."""
    away = np.linalg.norm(pixels - ground, axis=-1) * area
    peak = float(np.percentile(away[area], 98.5))
    if peak < 0.1:
        return np.zeros_like(area)
    ink = np.median(pixels[(away > 0.75 * peak) & area], axis=0)
    return area & (np.linalg.norm(pixels - ink, axis=-1) < away)


def _middle_colour(pixels: Picture, mask: Mask) -> Picture:
    return np.median(pixels[mask], axis=0)


def _centre(mask: Mask) -> tuple[float, float]:
    rows, columns = np.nonzero(mask)
    return float(columns.mean()) + 0.5, float(rows.mean()) + 0.5


def _stands_at(mask: Mask, spot: tuple[float, float, float]) -> bool:
    if not mask.any():
        return False
    x, y = _centre(mask)
    return bool(np.hypot(x - spot[0], y - spot[1]) < PLACE_TOLERANCE * min(mask.shape))


def nearest_outline(mask: Mask) -> str:
    """The shape whose outline, of the same area and centre, overlaps best."""
    if mask.sum() < 20:
        return "nothing"
    return max(OUTLINES, key=lambda shape: overlap(mask, shape))


def overlap(mask: Mask, shape: str) -> float:
    """Intersection over union with a shape of this mask's area and centre."""
    height, width = mask.shape
    unit = Canvas(100, 100)
    model = stamp(unit, shape, (50, 50), 35)
    area = float(model.sum()) / 35**2
    offset = (np.array([(model * unit.x).sum(), (model * unit.y).sum()]) / model.sum() - 50) / 35
    radius = float(np.sqrt(mask.sum() / area))
    x, y = _centre(mask)
    made = stamp(Canvas(width, height), shape, (x - offset[0] * radius, y - offset[1] * radius), radius) > 0.5
    return float((made & mask).sum() / (made | mask).sum())


def judge_landscape(scene: Landscape, pixels: Picture) -> list[Verdict]:
    """The time of day by the sky, the ground by the lower part under that time's light."""
    skies, grounds = looks()
    time = min(TIMES, key=lambda name: _distance(_rows(pixels, SKY_ROWS), skies[name]))
    low = _rows(pixels, GROUND_ROWS)
    ground = min(GROUNDS, key=lambda name: _distance(low, grounds[scene.time, name]))
    return [Verdict("time", scene.time, time), Verdict("ground", scene.ground, ground)]


def _rows(pixels: Picture, shares: tuple[float, ...]) -> Picture:
    """The median colour of thin bands at these heights."""
    height = len(pixels)
    bands = [pixels[int(share * height) : int(share * height) + max(1, height // 32)] for share in shares]
    return np.array([np.median(band.reshape(-1, 3), axis=0) for band in bands])


def _distance(one: Picture, other: Picture) -> float:
    return float(np.linalg.norm(one - other))


@cache
def looks() -> tuple[dict[str, Picture], dict[tuple[str, str], Picture]]:
    """How skies and grounds look, measured on drawings."""
    rng = np.random.default_rng(0)
    skies: dict[str, list[Picture]] = {time: [] for time in TIMES}
    grounds = {}
    for time in TIMES:
        for ground in GROUNDS:
            choices = ((), (), tuple(possible_extras(ground)))
            jitter = [float(value) for value in rng.uniform(-1, 1, 4)]
            drawn = [
                draw_landscape(Landscape(time, ground, extras), 128, 128, jitter) / np.float32(255)
                for extras in choices
            ]
            skies[time] += [_rows(picture, SKY_ROWS) for picture in drawn]
            grounds[time, ground] = np.mean([_rows(picture, GROUND_ROWS) for picture in drawn], axis=0)
    return {time: np.mean(rows, axis=0) for time, rows in skies.items()}, grounds
