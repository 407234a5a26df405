"""Finished PNGs as JPEG and WebP."""

import io
from typing import Literal, TypeAlias

from PIL import Image

from mflux_api.pixels import infotext

Format: TypeAlias = Literal["png", "jpeg", "webp"]
QUALITY = 90


def converted(data: bytes, form: Format, quality: int = QUALITY) -> bytes:
    """A PNG as it is or in another format, its generation data where those keep it (EXIF UserComment)."""
    if form == "png":
        return data
    with Image.open(io.BytesIO(data)) as image:
        buffer = io.BytesIO()
        exif = infotext.exif(image.info.get("parameters", ""))
        image.convert("RGB").save(buffer, form, quality=quality, exif=exif)
    return buffer.getvalue()
