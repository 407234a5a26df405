from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from mflux_api.pixels.masks import (
    convert_to_mask,
    fill_with_surroundings,
    find_crop_region,
    is_blank,
    paste_back,
    prepare_mask,
)

SIZE = (48, 32)
sides = st.integers(1, 40)
sizes = st.tuples(sides, sides)


def pixels(image: Image.Image) -> NDArray[Any]:
    return np.asarray(image)


def white(box: tuple[int, int, int, int], size: tuple[int, int] = SIZE) -> Image.Image:
    mask = Image.new("L", size)
    mask.paste(255, box)
    return mask


def noise(size: tuple[int, int], seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


@st.composite
def spots(draw: st.DrawFn, size: tuple[int, int]) -> tuple[int, int, int, int]:
    """Draw a random box inside a picture."""
    left, top = draw(st.integers(0, size[0] - 1)), draw(st.integers(0, size[1] - 1))
    return left, top, draw(st.integers(left + 1, size[0])), draw(st.integers(top + 1, size[1]))


# Reading masks


@pytest.mark.parametrize("mode", ["1", "L", "RGB", "P"])
def test_brightness_is_the_mask(mode: str) -> None:
    mask = white((8, 8, 24, 24))
    np.testing.assert_array_equal(pixels(convert_to_mask(mask.convert(mode))), pixels(mask))


@pytest.mark.parametrize("bits", [np.uint16, np.int32])
def test_grey_of_sixteen_bits_is_a_mask_too(bits: type[Any]) -> None:
    grey = Image.fromarray((np.arange(256).reshape(8, 32) * 257).astype(bits))
    np.testing.assert_allclose(pixels(convert_to_mask(grey)), np.arange(256).reshape(8, 32), atol=1)


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_the_mask_where_there_is_some_in_black_and_white(mode: str) -> None:
    drawn = Image.new("RGB", (4, 1), "white").convert(mode)
    alpha = Image.new("L", (4, 1))
    alpha.putdata([0, 128, 129, 255])
    drawn.putalpha(alpha)
    assert list(convert_to_mask(drawn).get_flattened_data()) == [0, 0, 255, 255]


def test_a_transparent_colour_is_a_mask() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 255, 255, 0, 0, 0])
    image.putpixel((1, 0), 1)
    image.info["transparency"] = 0
    assert list(convert_to_mask(image).get_flattened_data()) == [0, 255]


def test_transparency_that_is_nowhere_counts_for_nothing() -> None:
    mask = white((8, 8, 24, 24))
    np.testing.assert_array_equal(pixels(convert_to_mask(mask.convert("RGBA"))), pixels(mask))


def test_only_black_is_blank() -> None:
    assert is_blank(Image.new("L", SIZE))
    assert not is_blank(white((47, 31, 48, 32)).point(lambda value: value and 1))


# Inverted and softened


@given(sizes.flatmap(lambda size: arrays.arrays(np.uint8, size)))
def test_inverting_swaps_black_and_white(values: NDArray[np.uint8]) -> None:
    mask = Image.fromarray(values)
    np.testing.assert_array_equal(pixels(prepare_mask(mask, True, (0, 0))), 255 - values)
    np.testing.assert_array_equal(pixels(prepare_mask(mask, False, (0, 0))), values)


@pytest.mark.parametrize("blur", [(4.0, 4.0), (4.0, 0.0), (0.0, 4.0)])
def test_an_edge_is_softened_in_the_direction_that_was_asked_for(blur: tuple[float, float]) -> None:
    soft = pixels(prepare_mask(white((16, 12, 32, 20)), False, blur))
    across, down = soft[16], soft[:, 24]
    assert (len(np.unique(across)) > 4) is (blur[0] > 0)
    assert (len(np.unique(down)) > 4) is (blur[1] > 0)
    assert bool(soft[:12].any()) is (blur[1] > 0)


# The crop region of a closeup


def test_a_blank_mask_has_no_box() -> None:
    assert find_crop_region(Image.new("L", SIZE), 8, (64, 64)) is None


@given(sizes, sizes, st.integers(0, 2**40), st.data())
def test_the_box_lies_in_the_picture_and_holds_the_mask_and_its_padding(
    size: tuple[int, int], shape: tuple[int, int], padding: int, data: st.DataObject
) -> None:
    spot = data.draw(spots(size))
    box = find_crop_region(white(spot, size), padding, shape)
    assert box is not None
    left, top, right, bottom = box
    assert 0 <= left <= max(0, spot[0] - padding)
    assert 0 <= top <= max(0, spot[1] - padding)
    assert min(size[0], spot[2] + padding) <= right <= size[0]
    assert min(size[1], spot[3] + padding) <= bottom <= size[1]


@given(sizes, sizes, st.data())
def test_the_box_has_the_shape_of_the_canvas_as_far_as_the_picture_goes(
    size: tuple[int, int], shape: tuple[int, int], data: st.DataObject
) -> None:
    box = find_crop_region(white(data.draw(spots(size)), size), 0, shape)
    assert box is not None
    width, height = box[2] - box[0], box[3] - box[1]
    # One side is computed from the other and rounded, unless the picture limits the box.
    assume(width < size[0] and height < size[1])
    assert width == round(height * shape[0] / shape[1]) or height == round(width * shape[1] / shape[0])


def test_a_box_at_the_border_is_moved_inside() -> None:
    assert find_crop_region(white((44, 0, 48, 4)), 4, (64, 64)) == (40, 0, 48, 8)
    assert find_crop_region(white((40, 14, 48, 18)), 0, (64, 128)) == (40, 8, 48, 24)
    assert find_crop_region(white((44, 10, 48, 18)), 0, (128, 64)) == (32, 10, 48, 18)


# Fills under the mask


@given(st.integers(0, 99), spots(SIZE))
def test_surroundings_leave_what_is_not_masked_alone(seed: int, spot: tuple[int, int, int, int]) -> None:
    image, mask = noise(SIZE, seed), white(spot)
    kept = pixels(mask) == 0
    np.testing.assert_array_equal(pixels(fill_with_surroundings(image, mask))[kept], pixels(image)[kept])


def test_surroundings_flow_in_and_what_was_there_is_gone() -> None:
    image = Image.new("RGB", SIZE, (200, 40, 40))
    image.paste((0, 0, 255), (16, 8, 32, 24))
    filled = pixels(fill_with_surroundings(image, white((16, 8, 32, 24))))
    np.testing.assert_allclose(filled, np.broadcast_to((200, 40, 40), filled.shape), atol=4)


def test_each_side_brings_its_own_colour() -> None:
    image = Image.new("RGB", SIZE, "red")
    image.paste("blue", (24, 0, 48, 32))
    filled = pixels(fill_with_surroundings(image, white((8, 8, 40, 24)))).astype(int)
    redness = filled[16, :, 0] - filled[16, :, 2]
    assert redness[9] > 100
    assert redness[38] < -100


# Pasting back


@given(sizes, sizes, st.integers(0, 99), st.data())
def test_setting_back_changes_what_is_white_inside_the_box_and_nothing_else(
    size: tuple[int, int], painted: tuple[int, int], seed: int, data: st.DataObject
) -> None:
    source, box, spot = noise(size, seed), data.draw(spots(size)), data.draw(spots(size))
    result = paste_back(Image.new("RGB", painted, (1, 2, 3)), source, white(spot, size), box)
    changed = np.zeros(size[::-1], bool)
    changed[max(box[1], spot[1]) : min(box[3], spot[3]), max(box[0], spot[0]) : min(box[2], spot[2])] = True
    np.testing.assert_array_equal(pixels(result)[~changed], pixels(source)[~changed])
    assert (pixels(result)[changed] == (1, 2, 3)).all()


def test_grey_is_between_both() -> None:
    mask = Image.new("L", SIZE, 64)
    result = paste_back(Image.new("RGB", (64, 64), (200, 0, 0)), Image.new("RGB", SIZE, "black"), mask, (0, 0, *SIZE))
    assert result.getpixel((20, 20)) == (50, 0, 0)
