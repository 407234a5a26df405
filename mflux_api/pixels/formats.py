"""Convert finished PNGs to JPEG and WebP, and make thumbnails."""

import io
import re
from typing import Literal, TypeAlias

from PIL import Image

from mflux_api.pixels import infotext

PictureFormat: TypeAlias = Literal["png", "jpeg", "webp"]
QUALITY = 90
SIGNATURES = {
    "image/png": re.compile(rb"\x89PNG\r\n\x1a\n"),
    "image/jpeg": re.compile(rb"\xff\xd8\xff"),
    "image/webp": re.compile(rb"RIFF....WEBP", re.DOTALL),
    "image/gif": re.compile(rb"GIF8[79]a"),
    "image/bmp": re.compile(rb"BM"),
}


def detect_media_type(data: bytes) -> str | None:
    """Detect the media type of a picture by its first bytes; None for an unsupported format."""
    return next((name for name, signature in SIGNATURES.items() if signature.match(data)), None)


def convert_png(data: bytes, form: PictureFormat, quality: int = QUALITY) -> bytes:
    """Convert a PNG to another format, and move its generation data to EXIF UserComment. A PNG stays as it is."""
    if form == "png":
        return data
    with Image.open(io.BytesIO(data)) as image:
        exif = infotext.encode_exif(image.info.get("parameters", ""))
        return _encode(image, form, quality=quality, exif=exif)


def shrink_png(data: bytes, form: PictureFormat, quality: int, side: int) -> bytes:
    """Shrink a PNG to a longest side of at most `side` pixels, without its generation data.

    A picture that is not larger is only converted, as by `convert_png`.
    """
    with Image.open(io.BytesIO(data)) as image:
        if max(image.size) <= side:
            return convert_png(data, form, quality)
        small = image.convert("RGB")
    small.thumbnail((side, side), Image.Resampling.LANCZOS)
    return _encode(small, form, **({} if form == "png" else {"quality": quality}))


def _encode(image: Image.Image, form: PictureFormat, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.convert("RGB").save(buffer, form, **options)
    return buffer.getvalue()
