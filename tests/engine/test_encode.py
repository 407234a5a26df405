import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mflux_api.pixels.png import encode_png, write_new_file

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


def test_runs_that_want_one_name_at_once_all_keep_their_picture(tmp_path: Path) -> None:
    contents = [bytes([number]) * 1000 for number in range(64)]
    with ThreadPoolExecutor(16) as runs:
        paths = list(runs.map(lambda data: write_new_file(tmp_path / "same.png", data), contents))
    assert [path.read_bytes() for path in paths] == contents
    assert sorted(tmp_path.iterdir()) == sorted(paths)
