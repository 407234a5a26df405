"""Landscapes: sky, sun or moon, ridges, grounds, and what stands on them, by the time of day."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from drawing import Canvas, Field, Jitter, inside
from lights import LIGHTS, STARS, Light
from scenes import Landscape, Rgb

HORIZON = 0.6


@dataclass
class View:
    """One landscape being painted: its canvas, its light and the little that chance decides."""

    canvas: Canvas
    light: Light
    time: str
    horizon: float
    lamp: tuple[float, float]
    drift: float


def mix(a: Rgb | Field, b: Rgb | Field, share: float | Field) -> Field:
    """A colour between two, or a picture of such colours when the share is a field."""
    part = np.asarray(share, np.float32)
    part = part[..., None] if part.ndim else part
    return np.asarray(a, np.float32) * (1 - part) + np.asarray(b, np.float32) * part


def draw_landscape(scene: Landscape, width: int, height: int, jitter: Jitter) -> NDArray[np.uint8]:
    """Paint from far to near."""
    view = _set_out(scene, width, height, jitter)
    _sky(view)
    if scene.ground == "mountains":
        _ridges(view, (0.60, 0.70, 0.81, 0.92), (0.20, 0.15, 0.11, 0.08))
    else:
        if "mountains" in scene.extras:
            _far_mountains(view)
        GROUND_PAINTERS[scene.ground](view)
    for name, paint in EXTRA_PAINTERS.items():
        if name in scene.extras:
            paint(view, scene.ground)
    return view.canvas.to_bytes()


def _set_out(scene: Landscape, width: int, height: int, jitter: Jitter) -> View:
    light = LIGHTS[scene.time]
    lamp = ((light.lamp_at[0] + 0.018 * jitter[0]) * width, (light.lamp_at[1] + 0.0108 * jitter[1]) * height)
    horizon = (HORIZON + 0.006 * jitter[2]) * height
    return View(Canvas(width, height), light, scene.time, horizon, lamp, 0.6 * jitter[3])


def _sky(view: View) -> None:
    canvas, light = view.canvas, view.light
    stops = np.array([0.0, 0.38, 0.76, 1.0])
    height = np.clip(canvas.y[:, 0] / view.horizon, 0, 1)
    column = np.stack([np.interp(height, stops, [c[i] for c in light.sky]) for i in range(3)], axis=-1)
    canvas.pixels[:] = column[:, None, :].astype(np.float32)
    if view.time == "night":
        _stars(view)
    else:
        _clouds(view)
    _lamp(view)


def _stars(view: View) -> None:
    canvas = view.canvas
    for fx, fy, size in STARS:
        away = np.hypot(canvas.x - fx * canvas.width, canvas.y - fy * canvas.height)
        canvas.paint(inside(away - 0.0075 * size * canvas.unit) * size, (0.95, 0.96, 1.0))


def _clouds(view: View) -> None:
    canvas, unit = view.canvas, view.canvas.unit
    colour = {"day": (1.0, 1.0, 1.0), "sunset": (1.0, 0.60, 0.46), "sunrise": (1.0, 0.88, 0.86)}[view.time]
    streaks = ((0.22, 0.20, 0.30, 0.030), (0.72, 0.30, 0.34, 0.022), (0.34, 0.36, 0.24, 0.016))
    if view.time == "day":
        streaks = ((0.22, 0.20, 0.15, 0.05), (0.32, 0.235, 0.13, 0.035), (0.60, 0.36, 0.16, 0.035))
    for fx, fy, long, thick in streaks:
        dx = (canvas.x - (fx + 0.02 * view.drift) * canvas.width) / (long * unit)
        dy = (canvas.y - fy * canvas.height) / (thick * unit)
        canvas.paint(0.75 * np.exp(-(dx**2 + dy**2)), colour)


def _lamp(view: View) -> None:
    canvas, light = view.canvas, view.light
    away = np.hypot(canvas.x - view.lamp[0], canvas.y - view.lamp[1]) / canvas.unit
    canvas.glow(0.9 * np.exp(-((away / 0.34) ** 2)) + 0.8 * np.exp(-away / 0.09), light.glow)
    canvas.paint(inside((away - light.lamp_radius) * canvas.unit), light.lamp)
    if view.time == "night":
        for fx, fy, size in ((-0.3, -0.2, 0.22), (0.25, 0.3, 0.28), (0.3, -0.35, 0.14)):
            spot = np.hypot(
                canvas.x - view.lamp[0] - fx * 0.075 * canvas.unit, canvas.y - view.lamp[1] - fy * 0.075 * canvas.unit
            )
            canvas.paint(0.5 * inside(spot - size * 0.075 * canvas.unit), (0.78, 0.79, 0.76))


def _wave(at: Field, frequency: float, phase: float) -> Field:
    return 1 - 2 * abs((at * frequency + phase) % 1 * 2 - 1)


def _ridge_line(view: View, layer: int, base: float, rise: float) -> Field:
    """The height of a ridge's line at every column, in pixels from the top."""
    canvas = view.canvas
    along = (canvas.x - canvas.width / 2) / canvas.unit + 0.02 * view.drift * (1 + layer)
    line = 0.62 * _wave(along, 0.9 + 0.16 * layer, 0.37 * layer + 0.28)
    line = line + 0.26 * _wave(along, 2.3 + 0.3 * layer, 0.21 * layer) + 0.12 * _wave(along, 5.2, 0.43 * layer)
    return base * canvas.height - (0.5 + 0.5 * line) * rise * canvas.height


def _ridges(view: View, bases: tuple[float, ...], rises: tuple[float, ...]) -> None:
    """Layered mountains down to the bottom edge, mist between them."""
    canvas, light = view.canvas, view.light
    for layer, (base, rise) in enumerate(zip(bases, rises, strict=True)):
        line = _ridge_line(view, layer, base, rise)
        depth = np.clip((canvas.y - line) / (0.30 * canvas.height), 0, 1)
        body = mix(light.haze, light.dark, 0.12 + 0.88 * (layer / (len(bases) - 1)) ** 0.8)
        cover = inside(line - canvas.y)
        canvas.paint(cover, mix(body, mix(body, light.haze, 0.55), depth))
        if layer == 0 and view.time in ("day", "sunrise"):
            _snow_caps(view, line, base, rise)


def _snow_caps(view: View, line: Field, base: float, rise: float) -> None:
    canvas = view.canvas
    edge = (base - 0.66 * rise) * canvas.height + 0.016 * canvas.unit * _wave(canvas.x / canvas.unit, 9.0, 0.0)
    white = mix((0.98, 0.98, 1.0), view.light.haze, 0.12)
    canvas.paint(inside(line - canvas.y) * inside(canvas.y - edge), white)


def _far_mountains(view: View) -> None:
    canvas, light = view.canvas, view.light
    base = view.horizon / canvas.height + 0.02
    for layer, (rise, share) in enumerate(((0.26, 0.35), (0.15, 0.62))):
        line = _ridge_line(view, layer, base, rise)
        canvas.paint(inside(line - canvas.y), mix(light.haze, light.dark, share))
        if layer == 0 and view.time in ("day", "sunrise"):
            _snow_caps(view, line, base, rise)


def _water(view: View, top: float, bottom: float) -> Field:
    """The colour of water between two heights: the sky's light above, its own depth below, ripples, the lamp's road."""
    canvas, light = view.canvas, view.light
    near_colour = {
        "day": (0.03, 0.30, 0.56),
        "sunset": (0.22, 0.09, 0.30),
        "night": (0.01, 0.03, 0.12),
        "sunrise": (0.36, 0.44, 0.66),
    }
    far_colour = {
        "day": (0.36, 0.68, 0.86),
        "sunset": (0.94, 0.46, 0.28),
        "night": (0.10, 0.16, 0.34),
        "sunrise": (0.94, 0.76, 0.76),
    }
    depth = np.clip((canvas.y - top) / (bottom - top), 0, 1)
    colour = mix(far_colour[view.time], near_colour[view.time], depth**0.7) + np.zeros((1, canvas.width, 1), np.float32)
    ripple = np.sin(2 * np.pi * 7 * depth**0.6)
    colour = colour + 0.03 * ripple[..., None]
    spread = (0.05 + 0.10 * depth) * (1 + 0.35 * ripple)
    road = np.exp(-(((canvas.x - view.lamp[0]) / canvas.unit / spread) ** 2)) * (0.8 - 0.35 * depth)
    return mix(colour, light.lamp, road * (0.35 if view.time == "day" else 0.85))


def _sea(view: View) -> None:
    canvas = view.canvas
    canvas.paint(inside(view.horizon - canvas.y), _water(view, view.horizon, canvas.height))


def _lake(view: View) -> None:
    """Water between a far bank and a near one."""
    canvas = view.canvas
    far, low = view.horizon + 0.03 * canvas.height, 0.86 * canvas.height
    grass = _lit(view, (0.20, 0.48, 0.18))
    canvas.paint(inside(view.horizon - canvas.y), mix(grass, view.light.dark, 0.35))
    canvas.paint(inside(far - canvas.y), _water(view, far, canvas.height))
    shore = low + 0.03 * canvas.height * np.cos(2.2 * (canvas.x - canvas.width / 2) / canvas.unit)
    canvas.paint(inside(shore - canvas.y), grass)


def _lit(view: View, colour: Rgb) -> Field:
    return np.asarray(colour, np.float32) * np.asarray(view.light.tint, np.float32)


def _hills(view: View, colours: tuple[Rgb, ...], swing: float) -> None:
    """Rolling ground in layers, each lit from its crest."""
    canvas = view.canvas
    along = (canvas.x - canvas.width / 2) / canvas.unit
    for layer, colour in enumerate(colours):
        crest = (
            view.horizon
            + (0.13 * layer + swing * np.sin(along * (2.6 + 0.7 * layer) + 1.9 * layer + 0.1 * view.drift))
            * canvas.height
        )
        depth = np.clip((canvas.y - crest) / (0.30 * canvas.height), 0, 1)
        lit = _lit(view, colour)
        canvas.paint(inside(crest - canvas.y), mix(lit * 1.1, lit * 0.72, depth))


def _field(view: View) -> None:
    _hills(view, ((0.46, 0.72, 0.26), (0.32, 0.64, 0.20), (0.22, 0.54, 0.16)), 0.018)


def _desert(view: View) -> None:
    _hills(view, ((0.94, 0.78, 0.46), (0.90, 0.68, 0.34), (0.84, 0.58, 0.26)), 0.035)


def _snow(view: View) -> None:
    _hills(view, ((0.88, 0.92, 0.98), (0.93, 0.96, 1.0), (0.97, 0.98, 1.0)), 0.022)


def _trees(view: View, ground: str) -> None:
    spots = ((0.08, 0.80, 0.22), (0.19, 0.86, 0.26), (0.90, 0.84, 0.25))
    green = mix(_lit(view, (0.08, 0.34, 0.16)), view.light.dark, 0.3)
    if ground == "desert":
        green = mix(_lit(view, (0.30, 0.46, 0.16)), view.light.dark, 0.2)
    for fx, fy, tall in spots:
        _fir(view, fx * view.canvas.width, fy * view.canvas.height, tall * view.canvas.unit, green)


def _fir(view: View, x: float, foot: float, tall: float, green: Field) -> None:
    canvas = view.canvas
    dx = abs(canvas.x - x)
    trunk = np.maximum(dx - 0.035 * tall, abs(canvas.y - foot + 0.06 * tall) - 0.08 * tall)
    canvas.paint(inside(trunk), _lit(view, (0.30, 0.19, 0.10)))
    for low, high, half in ((0.10, 0.52, 0.26), (0.34, 0.76, 0.21), (0.58, 1.0, 0.15)):
        top, bottom = foot - high * tall, foot - low * tall
        slope = half / (high - low)
        cone = np.maximum((dx - slope * (canvas.y - top)) * 0.86, canvas.y - bottom)
        canvas.paint(inside(cone), green)


def _house(view: View, ground: str) -> None:
    """Walls, a red roof, a door and a window that is lit when it is dark."""
    canvas, size = view.canvas, 0.11 * view.canvas.unit
    x, foot = 0.66 * canvas.width, (0.84 if ground != "lake" else 0.95) * canvas.height
    dx, up = canvas.x - x, foot - canvas.y
    canvas.paint(inside(np.maximum(abs(dx) - size, abs(up - 0.5 * size) - 0.5 * size)), _lit(view, (0.95, 0.88, 0.74)))
    roof = np.maximum(np.maximum(abs(dx) * 0.62 + (up - 1.75 * size) * 0.78, size - up), -99.0)
    canvas.paint(inside(roof), _lit(view, (0.72, 0.20, 0.14)))
    canvas.paint(
        inside(np.maximum(abs(dx + 0.4 * size) - 0.2 * size, abs(up - 0.3 * size) - 0.3 * size)),
        _lit(view, (0.36, 0.20, 0.10)),
    )
    pane = (1.0, 0.86, 0.40) if view.time in ("night", "sunset") else _lit(view, (0.45, 0.66, 0.80))
    canvas.paint(inside(np.maximum(abs(dx - 0.45 * size), abs(up - 0.55 * size)) - 0.24 * size), pane)


def _sailboat(view: View, ground: str) -> None:
    """A hull and two sails on the water."""
    canvas, size = view.canvas, 0.17 * view.canvas.unit
    x, line = 0.30 * canvas.width, (0.76 if ground == "sea" else 0.74) * canvas.height
    dx, up = canvas.x - x, line - canvas.y
    hull = np.maximum(np.maximum(up - 0.14 * size, -up - 0.06 * size), abs(dx) - 0.50 * size - 0.8 * up)
    sail = mix((0.99, 0.98, 0.95), view.light.tint, 0.25) * (0.62 if view.time == "night" else 1.0)
    canvas.paint(
        inside(np.maximum(np.maximum(0.20 * size - up, 0.03 * size - dx), (dx * 1.9 + up - 1.25 * size) * 0.47)), sail
    )
    canvas.paint(
        inside(np.maximum(np.maximum(0.20 * size - up, dx + 0.03 * size), (up - dx * 2.3 - 1.05 * size) * 0.4)),
        sail * 0.9,
    )
    canvas.paint(inside(hull), _lit(view, (0.60, 0.18, 0.12)))


GROUND_PAINTERS = {"sea": _sea, "lake": _lake, "field": _field, "desert": _desert, "snow": _snow}
EXTRA_PAINTERS = {"house": _house, "trees": _trees, "sailboat": _sailboat}
