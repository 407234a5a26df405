"""A fast PNG encoder with text chunks, and atomic writing to new files."""

import itertools
import struct
import zlib
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

SIGNATURE = b"\x89PNG\r\n\x1a\n"
EIGHT_BITS, TRUECOLOUR = 8, 2
FILTER_UP = 2
LEVEL = 1


def encode_png(image: Image.Image, text: Mapping[str, str]) -> bytes:
    """Encode an RGB picture as PNG, with a text chunk for each entry (PNG specification, third edition).

    Uses the "up" filter on every row and zlib's fastest level: lossless, in about a tenth of the time of Pillow's
    default, for a fifth more bytes.
    """
    pixels = np.asarray(image.convert("RGB"))
    height, width, _ = pixels.shape
    header = struct.pack(">IIBBBBB", width, height, EIGHT_BITS, TRUECOLOUR, 0, 0, 0)
    data = zlib.compress(_filter_rows(pixels).tobytes(), LEVEL)
    chunks = [(b"IHDR", header), *_text_chunks(text), (b"IDAT", data), (b"IEND", b"")]
    return SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def write_new_file(path: Path, data: bytes) -> Path:
    """Write a new file atomically at the path or, if that exists, at path-2, path-3, ... Returns the path used."""
    path.parent.mkdir(parents=True, exist_ok=True)
    claimed = next(filter(_claim, _candidate_paths(path)))
    partial = claimed.with_name(f".{claimed.name}.partial")
    with ExitStack() as undo:
        # On any failure, Ctrl-C included, remove the partial file and the empty file that reserves the name.
        undo.callback(claimed.unlink, missing_ok=True)
        undo.callback(partial.unlink, missing_ok=True)
        partial.write_bytes(data)
        partial.replace(claimed)
        undo.pop_all()
    return claimed


def _candidate_paths(path: Path) -> Iterator[Path]:
    yield path
    yield from (path.with_stem(f"{path.stem}-{number}") for number in itertools.count(2))


def _claim(path: Path) -> bool:
    """Reserve a name by creating an empty file; False if the file exists. A check beforehand would be a race."""
    try:
        path.touch(exist_ok=False)
    except FileExistsError:
        return False
    return True


def _filter_rows(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    height, width, channels = pixels.shape
    rows = np.empty((height, 1 + width * channels), np.uint8)
    flat = pixels.reshape(height, width * channels)
    rows[:, 0] = FILTER_UP
    rows[0, 1:] = flat[0]
    np.subtract(flat[1:], flat[:-1], out=rows[1:, 1:])
    return rows


def _text_chunks(text: Mapping[str, str]) -> Iterator[tuple[bytes, bytes]]:
    for key, value in text.items():
        name = key.encode("latin-1")
        try:
            yield b"tEXt", name + b"\0" + value.encode("latin-1")
        except UnicodeEncodeError:
            # After the keyword: not compressed, no language, no translated keyword.
            yield b"iTXt", name + b"\0\0\0\0\0" + value.encode("utf-8", "replace")


def _chunk(kind: bytes, content: bytes) -> bytes:
    checksum = zlib.crc32(content, zlib.crc32(kind))
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", checksum)
