"""Take the metadata out of a PNG file before Pillow reads it.

Pillow refuses a picture whose compressed text or colour profile is longer than a limit, and finds an EXIF block behind
the pixels only after it has decoded them. The pixels need none of this.
"""

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass

from mflux_api.pixels.orientation import RAW_PROFILE, parse_raw_profile

SIGNATURE = b"\x89PNG\r\n\x1a\n"
TEXTS = frozenset({b"tEXt", b"zTXt", b"iTXt"})
HEAD = struct.Struct(">I4s")
METADATA = TEXTS | {b"iCCP", b"eXIf"}
# Bytes of a decompressed profile or EXIF block. Larger ones are ignored.
LIMIT = 16 * 1024**2
RAW_EXIF = RAW_PROFILE.encode()
XMP = b"XML:com.adobe.xmp"
GREY, TRUECOLOUR = 0, 2


@dataclass(frozen=True)
class PngParts:
    """A PNG file with what its pixels need; the ICC profile, the EXIF block and the XMP packet, empty if none."""

    data: bytes
    profile: bytes = b""
    exif: bytes = b""
    xmp: bytes = b""


def split_png(data: bytes) -> PngParts:
    """Split a PNG file. It may be cut off: nothing is checked, and what cannot be read is left to Pillow."""
    kept, found = [SIGNATURE], {b"iCCP": b"", b"eXIf": b"", XMP: b""}
    head = data[16:33]
    for kind, start, end in _iter_chunks(data):
        if kind in METADATA:
            _keep_metadata(found, kind, data[start + 8 : end - 4])
        elif kind == b"tRNS" and len(head) > 9:
            kept.append(_scale_key(data[start + 8 : end - 4], head) or data[start:end])
        # The types of chunks that are needed for the pixels begin with a capital letter.
        elif kind[:1].isupper():
            kept.append(data[start:end])
    return PngParts(b"".join(kept), found[b"iCCP"], found[b"eXIf"], found[XMP])


def _iter_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield the type, the start and the end of each chunk; the last one may be cut off."""
    at = len(SIGNATURE)
    while at + 8 <= len(data):
        length, kind = HEAD.unpack_from(data, at)
        yield kind, at, at + 12 + length
        at += 12 + length


def _keep_metadata(found: dict[bytes, bytes], kind: bytes, content: bytes) -> None:
    """Keep the first profile, EXIF block and XMP packet."""
    if kind in TEXTS:
        _keep_text(found, content)
    elif not found[kind]:
        found[kind] = content if kind == b"eXIf" else _decompress(content.partition(b"\0")[2][1:])


def _keep_text(found: dict[bytes, bytes], content: bytes) -> None:
    """Keep an EXIF block or an XMP packet that is stored as a text."""
    keyword, _, rest = content.partition(b"\0")
    if keyword == RAW_EXIF:
        # Compressed (zTXt) or not (tEXt).
        text = _decompress(rest[1:]) or rest
        found[b"eXIf"] = found[b"eXIf"] or parse_raw_profile(text.decode("latin-1"))
    elif keyword == XMP:
        compressed, texts = rest[:1] == b"\1", rest[2:].split(b"\0", 2)
        found[XMP] = _decompress(texts[-1]) if compressed else texts[-1]


def _decompress(data: bytes) -> bytes:
    """Decompress at most LIMIT bytes; b"" for more, and for broken data."""
    stream = zlib.decompressobj()
    try:
        found = stream.decompress(data, LIMIT)
    except zlib.error:
        return b""
    return b"" if stream.unconsumed_tail else found


def _scale_key(content: bytes, head: bytes) -> bytes | None:
    """Scale the transparent colour to 8 bits, which Pillow does for the pixels only; None if it is right as it is.

    `head`: the content of IHDR.
    """
    bits, kind = head[8], head[9]
    if kind == GREY and bits in {2, 4} and len(content) == 2:
        content = struct.pack(">H", content[1] * 255 // ((1 << bits) - 1) & 255)
    elif kind == TRUECOLOUR and bits == 16 and len(content) == 6:
        content = struct.pack(">HHH", *content[::2])
    else:
        return None
    return struct.pack(">I", len(content)) + b"tRNS" + content + struct.pack(">I", zlib.crc32(b"tRNS" + content))
