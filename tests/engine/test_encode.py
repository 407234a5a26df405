import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mflux_api.engine.encode import encode_png

sides = st.integers(1, 20)
pictures = st.tuples(sides, sides).flatmap(lambda size: arrays.arrays(np.uint8, (*size, 3)))


def read(data: bytes) -> Image.Image:
    image = Image.open(io.BytesIO(data))
    image.load()
    return image


@given(pictures)
def test_pixels_come_back_as_they_were(pixels: np.ndarray) -> None:
    image = read(encode_png(Image.fromarray(pixels), {}))
    assert image.mode == "RGB"
    np.testing.assert_array_equal(np.asarray(image), pixels)


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8")))
def test_text_comes_back_as_it_was(text: str) -> None:
    image = read(encode_png(Image.new("RGB", (1, 1)), {"parameters": text}))
    assert image.info["parameters"] == text


@pytest.mark.parametrize("mode", ["RGBA", "L", "P"])
def test_other_modes_are_stored_as_rgb(mode: str) -> None:
    assert read(encode_png(Image.new(mode, (2, 2)), {})).mode == "RGB"
