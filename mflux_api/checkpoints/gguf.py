"""Read and check the header of a GGUF file: its tensors and metadata.

Source: the GGUF specification (ggml/docs/gguf.md), versions 2 and 3. Dimensions are in ggml's order, innermost first.
"""

import math
import mmap
import struct
from collections.abc import Callable
from pathlib import Path

from mflux_api.checkpoints.file_kinds import describe_wrong_content
from mflux_api.checkpoints.safetensors import Shard, Tensor
from mflux_api.errors import ModelCorrupt, ModelUnsupported

GGUF_SUFFIX = ".gguf"
MAGIC = b"GGUF"
VERSIONS = (2, 3)
ALIGNMENT = 32
# Scalar types of the metadata: type number -> format letter of struct. 8 is a string, 9 an array.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING_TYPE, ARRAY_TYPE = 8, 9


class HeaderReader:
    """Sequential reader of little-endian values. Raises struct.error or ValueError beyond the end."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.position = 0

    def read_integer(self, letter: str) -> int:
        return int(self.read_scalar(letter))

    def read_scalar(self, letter: str) -> float:
        (value,) = struct.unpack_from(f"<{letter}", self.data, self.position)
        self.position += struct.calcsize(f"<{letter}")
        return value  # type: ignore[no-any-return]

    def read_string(self) -> str:
        return self.read_bytes().decode("utf-8")

    def read_bytes(self) -> bytes:
        length = self.read_integer("Q")
        start, self.position = self.position, self.position + length
        if self.position > len(self.data):
            raise ValueError("a text goes beyond the end")
        return self.data[start : self.position]

    def read_value(self) -> str:
        """Read a metadata value as text. Arrays are skipped and return an empty string."""
        kind = self.read_integer("I")
        if kind == STRING_TYPE:
            return self.read_string()
        if kind == ARRAY_TYPE:
            self.skip_array()
            return ""
        return str(self.read_scalar(SCALARS[kind]))

    def skip_array(self) -> None:
        kind, count = self.read_integer("I"), self.read_integer("Q")
        if kind in SCALARS:
            self.position += count * struct.calcsize(f"<{SCALARS[kind]}")
            return
        skip: Callable[[], object] = {STRING_TYPE: self.read_bytes, ARRAY_TYPE: self.skip_array}[kind]
        for _ in range(count):
            skip()


def read_gguf(path: Path) -> Shard:
    """Read a file's tensors under their own names, with shapes in torch's order.

    Raises ModelCorrupt, ModelUnsupported.
    """
    try:
        size = path.stat().st_size
    except OSError as error:
        raise ModelCorrupt(f"{path} cannot be read: {error.strerror}", path=str(path)) from error
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            shard, end = _parse(path, HeaderReader(data))
    except (OSError, ValueError, KeyError, struct.error, OverflowError) as error:
        reason = describe_wrong_content(path) or error
        raise ModelCorrupt(f"{path} is not a GGUF file: {reason}", path=str(path)) from error
    if size < end:
        raise ModelCorrupt(f"{path} is {size} bytes long, its header says {end}. Download it again.", path=str(path))
    return shard


def _parse(path: Path, reader: HeaderReader) -> tuple[Shard, int]:
    """Return the shard and the length that the file must have, in bytes."""
    if reader.data[:4] != MAGIC:
        raise ValueError("it does not begin as one")
    reader.position = 4
    version = reader.read_integer("I")
    if version not in VERSIONS:
        raise ModelUnsupported(f"{path} is GGUF of version {version}; 2 and 3 can be read.", path=str(path))
    tensors, values = reader.read_integer("Q"), reader.read_integer("Q")
    metadata = {}
    for _ in range(values):
        name = reader.read_string()
        metadata[name] = reader.read_value()
    found = dict(_read_tensor_info(path, reader) for _ in range(tensors))
    step = int(metadata.get("general.alignment") or ALIGNMENT)
    start = -(-reader.position // step) * step
    placed = {
        name: Tensor(each.shape, each.dtype, each.nbytes, source=name, offset=each.offset + start)
        for name, each in found.items()
    }
    end = max((each.offset + each.nbytes for each in placed.values()), default=start)
    return Shard(path, placed, metadata), end


def _read_tensor_info(path: Path, reader: HeaderReader) -> tuple[str, Tensor]:
    name = reader.read_string()
    dimensions = [reader.read_integer("Q") for _ in range(reader.read_integer("I"))]
    kind, offset = reader.read_integer("I"), reader.read_integer("Q")
    dtype, block, size = _find_type(path, kind)
    if dimensions and dimensions[0] % block:
        raise ValueError(f"the rows of {name} are no whole blocks")
    return name, Tensor(tuple(reversed(dimensions)), dtype, math.prod(dimensions) // block * size, offset=offset)


def _find_type(path: Path, kind: int) -> tuple[str, int, int]:
    """Return the name of a ggml type, and the values and the bytes of one block."""
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
