"""Pictures in requests: decode base64 or data URLs, and check the image header before the pixels are decoded."""

import asyncio
import base64
from dataclasses import dataclass
from urllib.parse import unquote

from mflux_api.errors import InvalidImage
from mflux_api.pixels.decoding import read_size
from mflux_api.request import Upload

MEGAPIXEL = 1_000_000
# Longer than the beginnings of addresses and data URLs. The rest may be megabytes.
BEGINNING = 200
URL_ALPHABET = bytes.maketrans(b"-_", b"+/")
IGNORED = b" \t\r\n\f="


def is_url(text: str) -> bool:
    return text[:BEGINNING].lstrip().lower().startswith(("http://", "https://"))


def decode_base64(text: str) -> bytes:
    """Decode base64 as people send it: in a data URL or not, with line breaks, unpadded, in the URL alphabet too.

    Raises ValueError.
    """
    if text[:BEGINNING].lstrip().lower().startswith("data:"):
        text = text.partition(",")[2]
        text = unquote(text) if "%" in text else text
    digits = text.encode("ascii").translate(URL_ALPHABET, IGNORED)
    return base64.b64decode(digits + b"=" * (-len(digits) % 4))


def unreadable_picture(field: str) -> InvalidImage:
    """Return the error for a picture in this field that is damaged, or in a format that is not read."""
    return InvalidImage(f"{field} is not a picture that can be read: send PNG, JPEG or WebP.", field=field)


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
            data = decode_base64(text)
        except ValueError:
            raise InvalidImage(f"{field} is not valid base64.", field=field) from None
        return self.read_bytes(data, field)

    def read_bytes(self, data: bytes, field: str) -> Upload:
        """Check a picture's format and size by its header, and return it undecoded. Raises InvalidImage."""
        try:
            width, height = read_size(data)
        except InvalidImage:
            raise unreadable_picture(field) from None
        if width * height > self.limit:
            limit = f"at most {self.limit / MEGAPIXEL:g} million are allowed"
            raise InvalidImage(f"{field} has {width}x{height} pixels; {limit}.", field=field)
        return Upload(data, width, height)
