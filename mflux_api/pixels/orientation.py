"""The EXIF orientation of a picture, read by its number alone: nothing else in an EXIF block can fail the picture."""

import re
import struct
from collections.abc import Mapping
from types import MappingProxyType

from PIL import Image

UPRIGHT = 1
TAG = 0x0112
# Orientations that swap width and height.
SIDEWAYS = frozenset({5, 6, 7, 8})
TURNS: Mapping[int, Image.Transpose] = MappingProxyType(
    {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
)
# ImageMagick's way to put an EXIF block into a PNG, from before there was a chunk for it.
RAW_PROFILE = "Raw profile type exif"
PREFIX = b"Exif\0\0"
BYTE_ORDERS = {b"II": "<", b"MM": ">"}
# Formats of integers by the number of their TIFF type.
INTEGERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i"}
ENTRY_BYTES = 12
XMP = re.compile(rb"""tiff:Orientation(?:\s*=\s*["']|>)\s*([1-8])""")


def parse_orientation(exif: bytes) -> int:
    """Return the orientation (1 to 8) in an EXIF block; 1 if there is none, or the block is broken before it."""
    while exif.startswith(PREFIX):
        exif = exif[len(PREFIX) :]
    order = BYTE_ORDERS.get(exif[:2])
    if order is None:
        return UPRIGHT
    try:
        (start,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, start)
        for entry in range(start + 2, start + 2 + count * ENTRY_BYTES, ENTRY_BYTES):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if tag == TAG:
                (value,) = struct.unpack_from(f"{order}{INTEGERS.get(kind, 'H')}", exif, entry + 8)
                return value if value in TURNS else UPRIGHT
    except struct.error:
        pass
    return UPRIGHT


def parse_raw_profile(text: str) -> bytes:
    """Return the EXIF block in a text of ImageMagick's kind: an empty line, a name, a length, hexadecimal digits."""
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""


def read_orientation(image: Image.Image) -> int:
    """Return the orientation that an opened picture still has to be turned by. TIFF is turned by Pillow itself."""
    if image.format == "TIFF":
        return UPRIGHT
    exif, xmp = image.info.get("exif"), image.info.get("xmp")
    if not exif and isinstance(raw := image.info.get(RAW_PROFILE), str):
        exif = parse_raw_profile(raw)
    found = parse_orientation(exif) if isinstance(exif, bytes) else UPRIGHT
    if found == UPRIGHT and isinstance(xmp, bytes) and (match := XMP.search(xmp)):
        found = int(match[1])
    return found


def turn_upright(image: Image.Image, orientation: int) -> Image.Image:
    """Turn and mirror a picture as its orientation says."""
    return image.transpose(TURNS[orientation]) if orientation in TURNS else image
