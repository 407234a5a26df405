import io
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from mflux_api.engine.caption import generation_text
from mflux_api.engine.encode import encode_png, write_new
from mflux_api.engine.messages import LoraReport, Picture

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


def painted(guidance: float) -> Picture:
    return Picture(
        image=Image.new("RGB", (128, 64)),
        array=np.zeros((64, 128, 3), np.float32),
        seed=42,
        timings={},
        steps=4,
        guidance=guidance,
        loras=(LoraReport(path="/home/me/loras/oil.safetensors", scale=0.8, layers=1, keys=2, total_keys=2),),
    )


def test_the_generation_data_holds_what_was_used_and_no_path() -> None:
    text = generation_text(painted(2.5), prompt="a fox", negative="blue", model="m", bits=4, strength=0.75)
    first, second, facts = text.split("\n")
    assert (first, second) == ("a fox", "Negative prompt: blue")
    assert facts.startswith("Steps: 4, Sampler: Euler, CFG scale: 2.5, Seed: 42, Size: 128x64, Model: m, ")
    assert "Denoising strength: 0.75, Quantized: 4 bits, Lora: oil:0.8, Version: mflux-api " in facts
    assert "/home" not in text


def test_a_negative_prompt_that_was_not_used_is_not_claimed() -> None:
    text = generation_text(painted(1.0), prompt="a fox", negative="blue", model="m", bits=None, strength=None)
    assert "blue" not in text
    assert "Denoising" not in text


def test_runs_that_want_one_name_at_once_all_keep_their_picture(tmp_path: Path) -> None:
    contents = [bytes([number]) * 1000 for number in range(64)]
    with ThreadPoolExecutor(16) as runs:
        paths = list(runs.map(lambda data: write_new(tmp_path / "same.png", data), contents))
    assert [path.read_bytes() for path in paths] == contents
    assert sorted(tmp_path.iterdir()) == sorted(paths)
