"""Read and check config files, safetensors headers and shards."""

import json
import math
import re
import struct
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mflux_api.checkpoints.file_kinds import describe_wrong_content, list_files
from mflux_api.errors import ModelCorrupt, ModelIncomplete

Config = dict[str, Any]
LARGEST_HEADER = 100_000_000
INTEGER = re.compile(r"[UI]\d+|BOOL")


@dataclass(frozen=True)
class Tensor:
    """One entry of a header. `shape`: in torch's order. `dtype`: as the file format names it. `nbytes`: bytes.

    `source`: the tensor's name in the file, if it differs from the name here. `scale`: the name in the file of the
    scale of its 8-bit floats. `offset`: position of its bytes in the file.
    """

    shape: tuple[int, ...]
    dtype: str
    nbytes: int
    source: str = ""
    scale: str = ""
    offset: int = 0

    @property
    def count(self) -> int:
        return math.prod(self.shape)

    @property
    def is_integer(self) -> bool:
        """Whether its values are used without conversion: packed quantized values, counters, flags."""
        return INTEGER.fullmatch(self.dtype) is not None


@dataclass(frozen=True)
class Shard:
    """A checked weight file: its tensors and metadata."""

    path: Path
    tensors: dict[str, Tensor]
    metadata: dict[str, str]


def read_json(path: Path) -> Config:
    """Read a JSON object. Raises ModelIncomplete when the file is missing, ModelCorrupt when it is unreadable."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ModelIncomplete(f"{path} is missing. Download the model again.", path=str(path)) from None
    except (OSError, ValueError, RecursionError) as error:
        reason = describe_wrong_content(path) or error
        raise ModelCorrupt(f"{path} is not readable JSON: {reason}", path=str(path)) from error
    if not isinstance(value, dict):
        raise ModelCorrupt(f"{path} must hold a JSON object.", path=str(path))
    return value


def read_json_if_present(path: Path) -> Config:
    return read_json(path) if path.exists() else {}


def read_shard(path: Path) -> Shard:
    """Read a safetensors header and compare the file's length with it. Raises ModelCorrupt.

    MLX reads a truncated file without an error and computes with garbage, so the length is checked first.
    """
    header, data_start = _read_header(path)
    metadata = header.pop("__metadata__", None) or {}
    tensors = {name: _parse_tensor(path, entry, data_start) for name, entry in header.items()}
    _check_object(metadata, path)
    end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
    actual = path.stat().st_size
    if actual != data_start + end:
        raise ModelCorrupt(
            f"{path} is {actual} bytes long, its header says {data_start + end}. Download it again.",
            path=str(path),
        )
    return Shard(path, tensors, metadata)


def read_metadata(path: Path) -> dict[str, str]:
    """Read the metadata in a safetensors header. Raises ModelCorrupt."""
    header, _ = _read_header(path)
    found: dict[str, str] = _check_object(header.get("__metadata__") or {}, path)
    return found


def _read_header(path: Path) -> tuple[Config, int]:
    try:
        with path.open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            if length > LARGEST_HEADER:
                raise ValueError("header too long")
            header = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError, struct.error) as error:
        reason = describe_wrong_content(path) or error
        raise ModelCorrupt(f"{path} is not a safetensors file: {reason}", path=str(path)) from error
    if not isinstance(header, dict):
        raise ModelCorrupt(f"{path} is not a safetensors file: no header.", path=str(path))
    return header, 8 + length


def _parse_tensor(path: Path, entry: Any, data_start: int) -> Tensor:
    try:
        start, end = entry["data_offsets"]
        if not all(isinstance(number, int) and number >= 0 for number in (start, end - start, *entry["shape"])):
            raise ValueError("not a place in a file")
        return Tensor(tuple(entry["shape"]), entry["dtype"], end - start, offset=data_start + start)
    except (TypeError, KeyError, ValueError) as error:
        raise ModelCorrupt(f"{path} has a damaged header.", path=str(path)) from error


def _check_object(value: Any, path: Path) -> Config:
    if not isinstance(value, dict):
        raise ModelCorrupt(f"{path} is damaged: an object was expected.", path=str(path))
    return value


def read_indexes(folder: Path) -> list[Config]:
    """Read `weight_map` and `metadata` of a component's safetensors indexes. Raises ModelCorrupt."""
    found = []
    for path in list_files(folder, "*.safetensors.index.json"):
        index = read_json(path)
        found.append({name: _check_object(index.get(name) or {}, path) for name in ("weight_map", "metadata")})
    return found


def read_shards(folder: Path, indexes: Iterable[Config]) -> list[Shard]:
    """Read and check all safetensors files of a component. Raises ModelIncomplete if one is missing, ModelCorrupt."""
    named = {folder / str(name) for index in indexes for name in index["weight_map"].values()}
    paths = sorted(named or list_files(folder, "*.safetensors"))
    if not paths:
        raise ModelIncomplete(f"{folder} holds no .safetensors file. Download the model again.", path=str(folder))
    for path in paths:
        if not path.exists():
            raise ModelIncomplete(f"{path} is missing. Download the model again.", path=str(path))
    return [read_shard(path) for path in paths]


def find_stored_bits(shards: Iterable[Shard], indexes: Iterable[Config]) -> int | None:
    """Return the bits that mflux quantized a component to; None if it was not quantized or not saved by mflux."""
    for metadata in _collect_metadata(shards, indexes):
        level = str(metadata.get("quantization_level", "None"))
        if level.isdigit():
            return int(level)
    return None


def is_saved_by_mflux(shards: Iterable[Shard], indexes: Iterable[Config]) -> bool:
    """Return whether tensors have the names of mflux's modules instead of diffusers'."""
    return any(
        "mflux_version" in metadata or "quantization_level" in metadata
        for metadata in _collect_metadata(shards, indexes)
    )


def _collect_metadata(shards: Iterable[Shard], indexes: Iterable[Config]) -> list[Config]:
    return [*(shard.metadata for shard in shards), *(index["metadata"] for index in indexes)]
