"""Requested sizes in pixels, which are not always sizes that a model can generate."""

from dataclasses import dataclass

from mflux_api.errors import InvalidRequest
from mflux_api.request import SIDE_STEP, round_up_size

MEGAPIXEL = 1024 * 1024
LARGEST_PART = 100


@dataclass(frozen=True, kw_only=True)
class PictureSize:
    """The generated size, and `crop`, the (width, height) it is cropped to; None if both are the same."""

    width: int | None
    height: int | None
    crop: tuple[int, int] | None


def exact_size(width: int | None, height: int | None, *, smallest: int) -> PictureSize:
    """Return the size to generate for a picture of exactly this size: rounded up, then cropped.

    If a side is missing or shorter than `smallest`, the values are returned unchanged: the order fills in a missing
    side and refuses one that is too small.
    """
    if width is None or height is None or min(width, height) < smallest:
        return PictureSize(width=width, height=height, crop=None)
    painted = round_up_size(width, height)
    return PictureSize(
        width=painted[0], height=painted[1], crop=None if painted == (width, height) else (width, height)
    )


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
