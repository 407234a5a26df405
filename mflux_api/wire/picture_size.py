"""Sizes for ratios of width to height."""

from mflux_api.errors import InvalidRequest
from mflux_api.request import SIDE_STEP

MEGAPIXEL = 1024 * 1024
LARGEST_PART = 100


def size_of_ratio(text: str, *, area: int) -> tuple[int, int]:
    """Return (width, height) of about `area` pixels for a ratio "W:H". Raises InvalidRequest."""
    across, _, down = text.partition(":")
    sides = [int(side) if side.isdecimal() and len(side) < 4 else 0 for side in (across.strip(), down.strip())]
    if not all(0 < side <= LARGEST_PART for side in sides):
        raise InvalidRequest("aspect_ratio must be W:H, for example 16:9.", field="aspect_ratio")
    return size_of_shape(sides[0], sides[1], area=area)


def size_of_shape(width: int, height: int, *, area: int) -> tuple[int, int]:
    """Return (width, height) of about `area` pixels with the shape of these sides."""
    scale = (area / (width * height)) ** 0.5
    across, down = (max(1, round(side * scale / SIDE_STEP)) * SIDE_STEP for side in (width, height))
    return across, down
