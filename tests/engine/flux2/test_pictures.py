import numpy as np
import pytest
from PIL import Image

from mflux_api.engine.flux2 import vae
from mflux_api.errors import InvalidImage


def test_pixels_survive_the_way_to_the_vae_and_back() -> None:
    pixels = np.arange(2 * 4 * 3, dtype=np.uint8).reshape(2, 4, 3) * 10
    array = vae.image_to_array(Image.fromarray(pixels))
    assert array.shape == (1, 3, 2, 4)
    np.testing.assert_array_equal(np.array(vae.pixels_to_image(vae.decoded_to_pixels(array))), pixels)


@pytest.mark.parametrize(
    ("size", "fitted"),
    [((100, 90), (96, 80)), ((64, 64), (64, 64)), ((2048, 1024), (1440, 720)), ((4000, 300), (3728, 272))],
)
def test_a_reference_keeps_its_aspect(size: tuple[int, int], fitted: tuple[int, int]) -> None:
    assert vae.fit_reference(Image.new("RGB", size)).size == fitted


def test_a_reference_is_cropped_at_its_centre() -> None:
    image = Image.new("RGB", (66, 64), "red")
    image.paste("blue", (1, 0, 65, 64))
    assert vae.fit_reference(image).getcolors() == [(64 * 64, (0, 0, 255))]


def test_a_reference_too_small_to_use_is_refused() -> None:
    with pytest.raises(InvalidImage, match=r"A reference must be at least 16 pixels on each side, not 15x64\."):
        vae.fit_reference(Image.new("RGB", (15, 64)))


def test_a_mask_is_taken_at_the_centre_of_each_cell() -> None:
    mask = np.zeros((16, 32), np.float32)
    mask[7, 7:9] = 1.0
    mask[:, 16:] = 0.6
    assert vae.mask_to_tokens(mask).tolist() == [[[0.5], [1.0]]]


def test_grey_in_a_mask_blends() -> None:
    source = Image.new("RGB", (1, 1), "white")
    mixed = vae.blend_unmasked(np.zeros((1, 1, 3), np.float32), source, np.full((1, 1), 0.25, np.float32))
    assert mixed.tolist() == [[[0.75, 0.75, 0.75]]]
