"""Conversion of finished PNGs to other formats, and thumbnails."""

import io

import numpy as np
import pytest
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from mflux_api.pixels import infotext
from mflux_api.pixels.formats import PictureFormat, convert_png, detect_media_type, shrink_png

FORMATS: tuple[PictureFormat, ...] = ("png", "jpeg", "webp")
every_format = pytest.mark.parametrize("form", FORMATS)
TEXT = "a fox\nSteps: 4, Seed: 7"


def png(width: int, height: int, color: str = "red") -> bytes:
    info, buffer = PngInfo(), io.BytesIO()
    info.add_text("parameters", TEXT)
    Image.new("RGB", (width, height), color).save(buffer, "PNG", pnginfo=info)
    return buffer.getvalue()


def open_image(data: bytes) -> Image.Image:
    return Image.open(io.BytesIO(data))


@every_format
@pytest.mark.parametrize(
    ("size", "side", "expected"),
    [
        *(((512, 512), 256, (256, 256)), ((512, 256), 128, (128, 64)), ((256, 512), 100, (50, 100))),
        ((2048, 64), 16, (16, 1)),
    ],
)
def test_a_picture_is_scaled_down_until_its_longest_side_fits(
    form: PictureFormat, size: tuple[int, int], side: int, expected: tuple[int, int]
) -> None:
    image = open_image(shrink_png(png(*size), form, 90, side))
    assert (image.format, image.size) == (form.upper(), expected)
    assert np.abs(np.asarray(image.convert("RGB")).astype(int) - (255, 0, 0)).max() <= 8


@every_format
@pytest.mark.parametrize("side", [64, 65, 2048])
def test_a_picture_that_is_small_enough_comes_as_without_a_side(form: PictureFormat, side: int) -> None:
    data = png(64, 48)
    assert shrink_png(data, form, 80, side) == convert_png(data, form, 80)


@every_format
def test_a_whole_picture_carries_its_text_and_a_small_one_does_not(form: PictureFormat) -> None:
    data = png(64, 64)
    assert infotext.read_infotext(convert_png(data, form))[0] == TEXT
    assert infotext.read_infotext(shrink_png(data, form, 90, 32))[0] == ""


def test_quality_counts_for_small_pictures_too() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((256, 256), 80).convert("RGB").save(buffer, "PNG")
    low, high = (len(shrink_png(buffer.getvalue(), "webp", quality, 128)) for quality in (10, 95))
    assert low < high


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_picture_is_known_by_its_content(form: str) -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, form)
    assert detect_media_type(buffer.getvalue()) == f"image/{form.lower()}"


@pytest.mark.parametrize(
    "data", [b"", b"<svg>", b"<html>", b" \x89PNG\r\n\x1a\n", b"RIFF\0\0\0\0WAVE", b"%PDF-", b"II*\0"]
)
def test_what_is_no_picture_that_is_taken_is_known_too(data: bytes) -> None:
    assert detect_media_type(data) is None
