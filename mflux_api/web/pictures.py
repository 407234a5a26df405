"""Pictures in requests: decode base64 or data URLs, and check the image header before the pixels are decoded."""

import asyncio
import base64
import binascii
import io
import warnings
from dataclasses import dataclass

from PIL import Image, UnidentifiedImageError

from mflux_api.errors import InvalidImage
from mflux_api.request import Upload

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MEGAPIXEL = 1_000_000
# EXIF orientations that swap width and height.
SIDEWAYS_ORIENTATIONS = {5, 6, 7, 8}
ORIENTATION = 0x0112


def is_url(text: str) -> bool:
    return text.startswith(("http://", "https://"))


@dataclass(frozen=True)
class PictureReader:
    """Reader of pictures in requests. `limit`: most pixels of a picture."""

    limit: int

    async def read_base64(self, text: str, field: str) -> Upload:
        """Decode a picture from base64, with or without a `data:image/...;base64,` prefix. Raises InvalidImage."""
        return await asyncio.to_thread(self._decode_base64, text, field)

    def _decode_base64(self, text: str, field: str) -> Upload:
        if is_url(text):
            raise InvalidImage(f"{field}: send the picture itself in base64, not its address.", field=field)
        try:
            data = base64.b64decode(text.partition(",")[2] if text.startswith("data:") else text, validate=False)
        except (binascii.Error, ValueError):
            raise InvalidImage(f"{field} is not valid base64.", field=field) from None
        return self.read_bytes(data, field)

    def read_bytes(self, data: bytes, field: str) -> Upload:
        """Check a picture's format and size by its header, and return it undecoded. Raises InvalidImage."""
        try:
            with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(data), formats=FORMATS) as image:
                width, height = image.size
                # Not for PNG: Pillow would decode all of it, and orientation is practically never set there.
                turned = image.format in {"JPEG", "WEBP"} and image.getexif().get(ORIENTATION) in SIDEWAYS_ORIENTATIONS
        except (UnidentifiedImageError, OSError, ValueError, SyntaxError, Image.DecompressionBombError):
            message = f"{field} is not a picture that can be read: send PNG, JPEG or WebP."
            raise InvalidImage(message, field=field) from None
        if width * height > self.limit:
            limit = f"at most {self.limit / MEGAPIXEL:g} million are allowed"
            raise InvalidImage(f"{field} has {width}x{height} pixels; {limit}.", field=field)
        return Upload(data, *((height, width) if turned else (width, height)))
