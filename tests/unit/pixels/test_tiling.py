from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mflux_api.pixels.tiling import join_tiles, place_tiles


@st.composite
def layouts(draw: st.DrawFn) -> tuple[tuple[int, int], tuple[int, int], int]:
    """Draw a picture's size, a tile size that fits into it, and an overlap of at most half a tile."""
    tile = (draw(st.integers(1, 24)), draw(st.integers(1, 24)))
    size = (tile[0] + draw(st.integers(0, 60)), tile[1] + draw(st.integers(0, 60)))
    return size, tile, draw(st.integers(0, min(tile) // 2))


@given(layouts())
def test_tiles_cover_the_picture_lie_in_it_and_have_their_size(
    layout: tuple[tuple[int, int], tuple[int, int], int],
) -> None:
    size, tile, overlap = layout
    covered = np.zeros(size[::-1], bool)
    for left, top, right, bottom in place_tiles(size, tile, overlap):
        assert (right - left, bottom - top) == tile
        assert 0 <= left < right <= size[0]
        assert 0 <= top < bottom <= size[1]
        covered[top:bottom, left:right] = True
    assert covered.all()


@given(layouts())
def test_neighbours_share_as_much_as_was_asked_or_more(layout: tuple[tuple[int, int], tuple[int, int], int]) -> None:
    size, tile, overlap = layout
    places = place_tiles(size, tile, overlap)
    for axis in (0, 1):
        starts = sorted({place[axis] for place in places})
        assert all(0 < after - before <= tile[axis] - overlap for before, after in pairwise(starts))


@given(layouts())
def test_there_are_no_more_tiles_than_are_needed(layout: tuple[tuple[int, int], tuple[int, int], int]) -> None:
    size, tile, overlap = layout
    needed = 1
    for axis in (0, 1):
        fewest = 1
        while tile[axis] + (fewest - 1) * (tile[axis] - overlap) < size[axis]:
            fewest += 1
        needed *= fewest
    assert len(place_tiles(size, tile, overlap)) == needed


def test_tiles_come_row_by_row_and_evenly_spread() -> None:
    assert place_tiles((100, 64), (64, 48), 16) == [
        (0, 0, 64, 48),
        (36, 0, 100, 48),
        (0, 16, 64, 64),
        (36, 16, 100, 64),
    ]


def test_a_picture_as_large_as_a_tile_is_one() -> None:
    assert place_tiles((64, 64), (64, 64), 32) == [(0, 0, 64, 64)]


@given(layouts(), st.data())
def test_a_picture_taken_apart_and_joined_is_the_same(
    layout: tuple[tuple[int, int], tuple[int, int], int], data: st.DataObject
) -> None:
    size, tile, overlap = layout
    image = Image.fromarray(data.draw(arrays.arrays(np.uint8, (size[1], size[0], 3))))
    places = place_tiles(size, tile, overlap)
    whole = join_tiles([image.crop(place) for place in places], places, size, overlap)
    np.testing.assert_array_equal(np.asarray(whole), np.asarray(image))


@pytest.mark.parametrize("axis", [0, 1])
def test_one_tile_passes_into_the_next_little_by_little(axis: int) -> None:
    size = (64, 112) if axis else (112, 64)
    places = place_tiles(size, (64, 64), 16)
    tiles = [Image.new("RGB", (64, 64), colour) for colour in ("black", "white")]
    whole = np.asarray(join_tiles(tiles, places, size, 16))[..., 0].astype(int)
    line = whole[:, 32] if axis else whole[32]
    assert line[:48].max() == 0
    assert line[64:].min() == 255
    rising = np.diff(line[47:65])
    assert rising.min() >= 14
    assert rising.max() <= 16
