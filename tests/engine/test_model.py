"""The library API."""

import inspect
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

import mflux_api
from mflux_api.engine.model import Model


def test_generate_image_is_called_as_documented() -> None:
    names = list(inspect.signature(mflux_api.generate_image).parameters)
    assert names == ["prompt", "seed", "steps", "width", "height", "input_image", "strength"]


def test_generate_image_returns_the_picture_its_seed_and_timings() -> None:
    image, seed, timings = mflux_api.generate_image("a red circle", seed=7, steps=1, width=64, height=64)
    assert image.size == (64, 64)
    assert seed == 7
    assert {"encoding", "diffusion", "total"} <= timings.keys()


def test_generate_image_repaints_a_picture() -> None:
    source = Image.new("RGB", (64, 64), "red")
    image, _, _ = mflux_api.generate_image("x", width=64, height=64, input_image=source, strength=0)
    assert np.array_equal(np.asarray(image), np.asarray(source))


def test_without_a_seed_each_picture_has_its_own(tiny: Model) -> None:
    seeds = {tiny.generate("x", width=64, height=64, steps=1)[0].seed for _ in range(3)}
    assert len(seeds) == 3


def test_a_lora_is_named_as_on_the_command_line(tiny: Model) -> None:
    with pytest.raises(mflux_api.MfluxError, match="There is no LoRA 'nothing'"):
        tiny.generate("x", loras=["nothing:0.5"])


def test_importing_the_package_imports_no_mlx() -> None:
    code = "import sys, mflux_api; assert not {'mlx.core', 'transformers'} & sys.modules.keys(); mflux_api.load_model"
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True)


def test_an_unknown_name_of_the_package_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="module 'mflux_api' has no attribute 'nothing'"):
        _ = mflux_api.nothing
