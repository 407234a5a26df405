"""Requested sizes in pixels, which are not always sizes that a model can generate."""

from dataclasses import dataclass

from mflux_api.request import round_up_size


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
