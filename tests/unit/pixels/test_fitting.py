from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray
from PIL import Image

from mflux_api.pixels.fitting import (
    RESIZE_MODES,
    crop_centre,
    padded,
    resize_to_contain,
    resize_to_cover,
    resize_to_exact,
)

sides = st.integers(1, 40)
sizes = st.tuples(sides, sides)
images = st.tuples(sides, sides, st.sampled_from([(), (3,)])).flatmap(
    lambda shape: arrays.arrays(np.uint8, (*shape[:2], *shape[2])).map(Image.fromarray)
)


def pixels(image: Image.Image) -> NDArray[Any]:
    return np.asarray(image)


def halves(size: tuple[int, int]) -> Image.Image:
    """Draw a picture that is black on the left and white on the right."""
    image = Image.new("L", size)
    image.paste(255, (size[0] // 2, 0, *size))
    return image


@pytest.mark.parametrize("mode", RESIZE_MODES)
@given(image=images, size=sizes)
def test_every_mode_gives_the_size_and_keeps_the_kind_of_picture(
    mode: str, image: Image.Image, size: tuple[int, int]
) -> None:
    fitted = RESIZE_MODES[mode](image, size)
    assert (fitted.size, fitted.mode) == (size, image.mode)


@pytest.mark.parametrize("mode", RESIZE_MODES)
@given(image=images)
def test_a_picture_of_the_size_is_left_alone(mode: str, image: Image.Image) -> None:
    np.testing.assert_array_equal(pixels(RESIZE_MODES[mode](image, image.size)), pixels(image))


# Cut


@given(images, st.data())
def test_a_picture_that_covers_the_size_already_loses_its_borders_only(image: Image.Image, data: st.DataObject) -> None:
    shorter = data.draw(st.integers(1, image.height))
    top = (image.height - shorter) // 2
    np.testing.assert_array_equal(
        pixels(resize_to_cover(image, (image.width, shorter))), pixels(image)[top : top + shorter]
    )


@pytest.mark.parametrize("size", [(64, 64), (16, 16), (128, 128), (100, 40), (40, 100)])
def test_cutting_keeps_the_middle(size: tuple[int, int]) -> None:
    cut = pixels(resize_to_cover(halves((96, 48)), size))
    middle = size[0] // 2
    assert cut[:, : middle - 2].max() < 64
    assert cut[:, middle + 2 :].min() > 192


@given(images, sizes)
def test_cutting_is_the_enlarged_picture_cut(image: Image.Image, size: tuple[int, int]) -> None:
    scale = max(size[0] / image.width, size[1] / image.height)
    covering = (max(size[0], round(image.width * scale)), max(size[1], round(image.height * scale)))
    # In float: integers are clipped to 0..255 between the two directions, whose order differs.
    exact = image.convert("L").convert("F")
    np.testing.assert_allclose(
        pixels(resize_to_cover(exact, size)), pixels(crop_centre(resize_to_exact(exact, covering), size)), atol=0.1
    )


def test_a_thread_of_a_picture_is_cut_without_enlarging_all_of_it() -> None:
    # The whole enlarged picture would have 512 x 51 million pixels.
    assert resize_to_cover(Image.new("RGB", (1, 100_000)), (512, 64)).size == (512, 64)
    assert resize_to_cover(Image.new("RGB", (100_000, 1)), (64, 512)).size == (64, 512)


# Filled


@pytest.mark.parametrize("size", [(64, 200), (200, 64), (32, 32), (300, 300)])
def test_filling_keeps_everything(size: tuple[int, int]) -> None:
    image = Image.new("RGB", (64, 48), "grey")
    corners = {(0, 0): "red", (56, 0): "lime", (0, 40): "blue", (56, 40): "yellow"}
    for place, colour in corners.items():
        image.paste(colour, (*place, place[0] + 8, place[1] + 8))
    shown = {colour for _, colour in resize_to_contain(image, size).getcolors(2**20) or []}
    assert shown >= {(255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 0)}


@given(images, sides)
def test_what_fits_is_filled_up_with_its_own_edges(image: Image.Image, more: int) -> None:
    whole = resize_to_contain(image, (image.width, image.height + more))
    above = more // 2
    expected = pixels(image)[np.clip(np.arange(image.height + more) - above, 0, image.height - 1)]
    np.testing.assert_array_equal(pixels(whole), expected)


# Padded, and back


@given(images, st.integers(0, 20), st.integers(0, 20))
def test_padding_repeats_the_outermost_pixels_and_the_centre_takes_it_back(
    image: Image.Image, wider: int, higher: int
) -> None:
    whole = padded(image, (image.width + wider, image.height + higher))
    around = [(higher // 2, higher - higher // 2), (wider // 2, wider - wider // 2), (0, 0)]
    np.testing.assert_array_equal(pixels(whole), np.pad(pixels(image), around[: pixels(image).ndim], mode="edge"))
    np.testing.assert_array_equal(pixels(crop_centre(whole, image.size)), pixels(image))
