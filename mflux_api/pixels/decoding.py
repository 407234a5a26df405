"""Read pictures that people send, as they look. Every API, the command line and the library use these functions.

Upright by the EXIF orientation, in 8-bit sRGB, on white where they are transparent; of an animation the first frame.
"""

import io
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from PIL import Image, ImageFile

from mflux_api.errors import InvalidImage
from mflux_api.pixels.appearance import convert_to_rgb
from mflux_api.pixels.masks import convert_to_mask
from mflux_api.pixels.orientation import SIDEWAYS, read_orientation, turn_upright
from mflux_api.pixels.png_metadata import SIGNATURE, split_png

# The formats that a client may send: those that browsers write. Other decoders of Pillow have had vulnerabilities.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
# What Pillow raises for damaged files.
UNREADABLE = (
    *(OSError, ValueError, SyntaxError, EOFError, LookupError, ArithmeticError, TypeError, AssertionError),
    *(AttributeError, struct.error, zlib.error, Image.DecompressionBombError),
)


def read_size(data: bytes) -> tuple[int, int]:
    """Read the width and height of a picture as it looks, without decoding its pixels. Raises InvalidImage."""
    with _refuse_unreadable(), _open_file(data, FORMATS) as image:
        width, height = image.size
        return (height, width) if read_orientation(image) in SIDEWAYS else (width, height)


def decode_picture(data: bytes, *, formats: tuple[str, ...] | None = FORMATS) -> Image.Image:
    """Decode a picture as it looks, in mode RGB. `formats`: None for all that Pillow knows. Raises InvalidImage."""
    with _refuse_unreadable():
        return convert_to_rgb(_decode_upright(data, formats))


def decode_mask(data: bytes, *, formats: tuple[str, ...] | None = FORMATS) -> Image.Image:
    """Decode a mask, upright, in mode L: white is repainted. Raises InvalidImage."""
    with _refuse_unreadable():
        return convert_to_mask(_decode_upright(data, formats))


def decode_alpha(data: bytes) -> Image.Image | None:
    """Decode the alpha channel of a picture, upright, in mode L; None if it has none. Raises InvalidImage."""
    with _refuse_unreadable():
        image = _decode_upright(data, FORMATS)
        return image.convert("RGBA").getchannel("A") if image.has_transparency_data else None


def show_picture(image: Image.Image) -> Image.Image:
    """Convert a Pillow picture to mode RGB as it looks. One that comes straight from `Image.open` is turned upright."""
    with _refuse_unreadable():
        return convert_to_rgb(_turn_opened(image))


def show_mask(image: Image.Image) -> Image.Image:
    """As `show_picture`, for a mask: in mode L, white is repainted."""
    with _refuse_unreadable():
        return convert_to_mask(_turn_opened(image))


def _turn_opened(image: Image.Image) -> Image.Image:
    # A copy or a converted picture may have been turned by its owner, whose EXIF block then still has the orientation.
    if not isinstance(image, ImageFile.ImageFile):
        return image
    # Loaded first: a PNG may have its EXIF block behind the pixels.
    image.load()
    return turn_upright(image, read_orientation(image))


def _decode_upright(data: bytes, formats: tuple[str, ...] | None) -> Image.Image:
    with _open_file(data, formats) as image:
        image.load()
        return turn_upright(image, read_orientation(image))


@contextmanager
def _open_file(data: bytes, formats: tuple[str, ...] | None) -> Iterator[Image.Image]:
    """Open the first frame of a picture. Its `info` has the EXIF block and the profile, wherever a PNG has them."""
    parts = split_png(data) if data.startswith(SIGNATURE) else None
    # Pillow's warnings about odd files would mix with our lines on standard error.
    with (
        warnings.catch_warnings(action="ignore"),
        Image.open(io.BytesIO(data if parts is None else parts.data), formats=formats) as image,
    ):
        if parts is not None:
            image.info |= {"exif": parts.exif, "icc_profile": parts.profile, "xmp": parts.xmp}
        yield image


@contextmanager
def _refuse_unreadable() -> Iterator[None]:
    try:
        yield
    except UNREADABLE:
        raise InvalidImage("This is not a picture that can be read: send PNG, JPEG or WebP.") from None
