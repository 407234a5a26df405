import mlx.core as mx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mflux_api.engine.flux2 import latents
from mflux_api.pixels.enlarging import FILTERS, LANCZOS, LATENT_UPSCALERS, NONE, enlarge_to_cover

NAMES = [*FILTERS, NONE, "R-ESRGAN 4x+", ""]
sides = st.integers(1, 60)


def chequered(width: int = 8, height: int = 6) -> Image.Image:
    rows, columns = np.mgrid[0:height, 0:width]
    return Image.fromarray(((rows + columns) % 2 * 255).astype(np.uint8)).convert("RGB")


@pytest.mark.parametrize("upscaler", NAMES)
@given(size=st.tuples(sides, sides))
def test_the_size_is_met_whatever_the_upscaler(upscaler: str, size: tuple[int, int]) -> None:
    assert enlarge_to_cover(chequered(), size, upscaler).size == size


@pytest.mark.parametrize("upscaler", NAMES)
def test_a_picture_of_the_size_is_left_alone(upscaler: str) -> None:
    np.testing.assert_array_equal(np.asarray(enlarge_to_cover(chequered(), (8, 6), upscaler)), np.asarray(chequered()))


def test_nearest_repeats_pixels_and_lanczos_smooths_them() -> None:
    nearest = np.asarray(enlarge_to_cover(chequered(), (24, 18), "Nearest"))
    np.testing.assert_array_equal(nearest, np.asarray(chequered()).repeat(3, axis=0).repeat(3, axis=1))
    assert len(np.unique(np.asarray(enlarge_to_cover(chequered(), (24, 18), LANCZOS)))) > 2


@pytest.mark.parametrize("upscaler", [NONE, "R-ESRGAN 4x+", ""])
def test_names_without_a_method_of_their_own_mean_lanczos(upscaler: str) -> None:
    ours, lanczos = (enlarge_to_cover(chequered(), (30, 20), name) for name in (upscaler, LANCZOS))
    np.testing.assert_array_equal(np.asarray(ours), np.asarray(lanczos))


def test_where_the_shapes_differ_the_middle_is_kept() -> None:
    image = Image.new("RGB", (60, 20), "red")
    image.paste("blue", (20, 0, 40, 20))
    assert enlarge_to_cover(image, (40, 40), "Nearest").getcolors() == [(1600, (0, 0, 255))]


@pytest.mark.parametrize("name", LATENT_UPSCALERS)
def test_every_latent_upscaler_names_an_interpolation_that_there_is(name: str) -> None:
    assert latents.resize_latents(mx.zeros((1, 8, 2, 3)), 4, 5, LATENT_UPSCALERS[name]).shape == (1, 8, 4, 5)
