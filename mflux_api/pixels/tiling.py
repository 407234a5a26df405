"""Split a large picture into overlapping tiles, and join them (SD-WebUI's `split_grid` and `combine_grid`)."""

import math
from collections.abc import Sequence
from itertools import groupby

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mflux_api.pixels.masks import Box

Pixels = NDArray[np.float32]


def place_tiles(size: tuple[int, int], tile: tuple[int, int], overlap: int) -> list[Box]:
    """Place tiles row by row, evenly spaced, with at least `overlap` pixels in common.

    The picture must be at least as large as a tile.
    """
    return [
        (left, top, left + tile[0], top + tile[1])
        for top in _starts(size[1], tile[1], overlap)
        for left in _starts(size[0], tile[0], overlap)
    ]


def join_tiles(tiles: Sequence[Image.Image], boxes: Sequence[Box], size: tuple[int, int], overlap: int) -> Image.Image:
    """Join tiles into one picture. Each is blended linearly over the first `overlap` pixels at its left and top."""
    result = np.zeros((size[1], size[0], 3), np.float32)
    for top, row in groupby(zip(tiles, boxes, strict=True), key=lambda pair: pair[1][1]):
        strip = np.zeros((0, 0, 3), np.float32)
        for tile, (left, _, right, _) in row:
            pixels = np.asarray(tile.convert("RGB"), np.float32)
            if not left:
                strip = np.zeros((pixels.shape[0], size[0], 3), np.float32)
            _blend(strip[:, left:right], pixels, _ramp(right - left, overlap if left else 0)[None, :, None])
        height = strip.shape[0]
        _blend(result[top : top + height], strip, _ramp(height, overlap if top else 0)[:, None, None])
    return Image.fromarray(result.round().astype(np.uint8))


def _blend(under: Pixels, over: Pixels, share: Pixels) -> None:
    under += share * (over - under)


def _starts(length: int, tile: int, overlap: int) -> list[int]:
    fresh = max(1, tile - overlap)
    count = max(1, math.ceil((length - overlap) / fresh))
    return [round(index * (length - tile) / max(1, count - 1)) for index in range(count)]


def _ramp(length: int, overlap: int) -> Pixels:
    """Return blend weights that rise linearly over the overlap, then stay at 1."""
    return np.minimum(1.0, np.arange(1, length + 1) / (overlap + 1)).astype(np.float32)
