"""Checks of pictures that clients send, on arrival."""

import io

from PIL import Image

from mflux_api.web.pictures import PictureReader


def test_the_pixels_of_a_png_are_not_read_on_arrival() -> None:
    buffer = io.BytesIO()
    Image.effect_noise((64, 48), 50).save(buffer, "PNG")
    header = buffer.getvalue()[: len(buffer.getvalue()) // 2]
    upload = PictureReader(limit=1_000_000).read_bytes(header, "init_images")
    assert (upload.width, upload.height) == (64, 48)
