"""The colours of the four times of day, and where the stars stand."""

from dataclasses import dataclass

from scenes import Rgb


@dataclass(frozen=True)
class Light:
    """The colours of a time of day: the sky from top to horizon, the lamp and its glow, haze and silhouettes."""

    sky: tuple[Rgb, Rgb, Rgb, Rgb]
    lamp: Rgb
    glow: Rgb
    haze: Rgb
    dark: Rgb
    tint: Rgb
    lamp_at: tuple[float, float]
    lamp_radius: float


LIGHTS: dict[str, Light] = {
    "day": Light(
        ((0.16, 0.44, 0.86), (0.36, 0.64, 0.95), (0.60, 0.80, 0.99), (0.84, 0.93, 1.0)),
        (1.0, 0.97, 0.78),
        (0.55, 0.52, 0.40),
        (0.66, 0.78, 0.90),
        (0.12, 0.30, 0.34),
        (1.0, 1.0, 1.0),
        (0.76, 0.18),
        0.07,
    ),
    "sunset": Light(
        ((0.20, 0.10, 0.38), (0.66, 0.18, 0.42), (0.97, 0.44, 0.22), (1.0, 0.80, 0.36)),
        (1.0, 0.95, 0.70),
        (0.90, 0.50, 0.16),
        (0.88, 0.40, 0.32),
        (0.10, 0.04, 0.16),
        (0.80, 0.46, 0.40),
        (0.5, 0.45),
        0.09,
    ),
    "night": Light(
        ((0.01, 0.02, 0.08), (0.03, 0.05, 0.17), (0.06, 0.10, 0.28), (0.12, 0.18, 0.38)),
        (0.96, 0.96, 0.88),
        (0.26, 0.30, 0.40),
        (0.11, 0.16, 0.34),
        (0.01, 0.02, 0.06),
        (0.20, 0.26, 0.44),
        (0.72, 0.20),
        0.075,
    ),
    "sunrise": Light(
        ((0.42, 0.60, 0.88), (0.74, 0.72, 0.90), (0.99, 0.74, 0.74), (1.0, 0.92, 0.70)),
        (1.0, 0.99, 0.88),
        (0.60, 0.50, 0.26),
        (0.88, 0.70, 0.72),
        (0.34, 0.24, 0.42),
        (0.92, 0.76, 0.78),
        (0.3, 0.50),
        0.08,
    ),
}
STARS = [((i * 0.7549 + 0.03) % 1, 0.03 + 0.5 * ((i * 0.5698) % 1), 0.45 + 0.55 * ((i * 0.29) % 1)) for i in range(34)]
