"""The header of a GGUF file, checked before anything is trusted: what it holds, and what it says of itself.

Source: the GGUF specification (ggml/docs/gguf.md), versions 2 and 3. Sides come in ggml's order, the innermost first.
"""

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from mflux_api.checkpoints.safetensors import Shard, Tensor
from mflux_api.errors import ModelCorrupt, ModelUnsupported

SUFFIX = ".gguf"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
# Scalars of the metadata by their number: struct's letters. 8 is text, 9 a list.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
TEXT, LIST = 8, 9


class Cursor:
    """Reads little-endian values one after the other. Raises struct.error or ValueError beyond the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.place = 0

    def number(self, letter: str) -> int:
        return int(self.scalar(letter))

    def scalar(self, letter: str) -> float:
        (value,) = struct.unpack_from(f"<{letter}", self.data, self.place)
        self.place += struct.calcsize(f"<{letter}")
        return value  # type: ignore[no-any-return]

    def text(self) -> str:
        return self.bytes().decode("utf-8")

    def bytes(self) -> bytes:
        length = self.number("Q")
        start, self.place = self.place, self.place + length
        if self.place > len(self.data):
            raise ValueError("a text goes beyond the end")
        return self.data[start : self.place]

    def value(self) -> str:
        """A value of the metadata in words; of a list nothing but that it is one."""
        kind = self.number("I")
        if kind == TEXT:
            return self.text()
        if kind == LIST:
            self.skip_list()
            return ""
        return str(self.scalar(SCALARS[kind]))

    def skip_list(self) -> None:
        kind, count = self.number("I"), self.number("Q")
        if kind in SCALARS:
            self.place += count * struct.calcsize(f"<{SCALARS[kind]}")
            return
        skip: Callable[[], object] = {TEXT: self.bytes, LIST: self.skip_list}[kind]
        for _ in range(count):
            skip()


def read_gguf(path: Path) -> Shard:
    """The file's tensors under their own names, shapes as torch has them. Raises ModelCorrupt, ModelUnsupported."""
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelCorrupt(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            shard, end = _parsed(path, Cursor(data))
    except (OSError, ValueError, KeyError, struct.error, OverflowError) as error:
        raise ModelCorrupt(f"{path} is not a GGUF file: {error}", path=str(path)) from error
    if size < end:
        raise ModelCorrupt(f"{path} is {size} bytes long, its header says {end}. Download it again.", path=str(path))
    return shard


def _parsed(path: Path, cursor: Cursor) -> tuple[Shard, int]:
    """The shard, and the length the file must have."""
    if cursor.data[:4] != MAGIC:
        raise ValueError("it does not begin as one")
    cursor.place = 4
    version = cursor.number("I")
    if version not in VERSIONS:
        raise ModelUnsupported(f"{path} is GGUF of version {version}; 2 and 3 can be read.", path=str(path))
    tensors, values = cursor.number("Q"), cursor.number("Q")
    metadata = {}
    for _ in range(values):
        name = cursor.text()
        metadata[name] = cursor.value()
    found = dict(_entry(path, cursor) for _ in range(tensors))
    step = int(metadata.get("general.alignment") or ALIGNMENT)
    start = -(-cursor.place // step) * step
    placed = {
        name: Tensor(each.shape, each.dtype, each.size, source=name, offset=each.offset + start)
        for name, each in found.items()
    }
    end = max((each.offset + each.size for each in placed.values()), default=start)
    return Shard(path, placed, metadata), end


def _entry(path: Path, cursor: Cursor) -> tuple[str, Tensor]:
    name = cursor.text()
    sides = [cursor.number("Q") for _ in range(cursor.number("I"))]
    kind, offset = cursor.number("I"), cursor.number("Q")
    dtype, block, size = _format(path, kind)
    if sides and sides[0] % block:
        raise ValueError(f"the rows of {name} are no whole blocks")
    return name, Tensor(tuple(reversed(sides)), dtype, math.prod(sides) // block * size, offset=offset)


def _format(path: Path, kind: int) -> tuple[str, int, int]:
    """A number of ggml as a word, with the values and the bytes of a block."""
    import gguf

    try:
        known = gguf.GGMLQuantizationType(kind)
    except ValueError:
        raise ModelUnsupported(
            f"{path} holds tensors of ggml's type {kind}, which is not known here. Take another edition of the model.",
            path=str(path),
        ) from None
    block, size = gguf.GGML_QUANT_SIZES[known]
    return known.name, block, size
