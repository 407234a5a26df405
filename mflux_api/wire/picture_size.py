"""Sizes in pixels as clients of other APIs ask for them, which are not always sizes that a model can paint."""

from dataclasses import dataclass

from mflux_api.request import round_up_size


@dataclass(frozen=True, kw_only=True)
class PictureSize:
    """The size that is painted, and `crop`, the one it is then cut to; None where both are the same."""

    width: int | None
    height: int | None
    crop: tuple[int, int] | None


def exact_size(width: int | None, height: int | None, *, smallest: int) -> PictureSize:
    """A picture of exactly this size: painted at the next size the model can, then cut.

    What is not a size yet, with a side left out or shorter than `smallest`, is handed on as it is: the order fills
    what is left out, and refuses what is too small.
    """
    if width is None or height is None or min(width, height) < smallest:
        return PictureSize(width=width, height=height, crop=None)
    painted = round_up_size(width, height)
    return PictureSize(
        width=painted[0], height=painted[1], crop=None if painted == (width, height) else (width, height)
    )
