"""Bytes: what this machine has, what MLX holds, what a model will take."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import psutil

from mflux_api.engine.flux2.configs import Layout
from mflux_api.engine.flux2.files import Shard, Tensor, read_shards, stored_bits
from mflux_api.engine.precision import Precision, device_name
from mflux_api.errors import OutOfMemory

GIB = 1024**3
CACHE_LIMIT = GIB
BUDGET_SHARE = 0.75
ALLOCATION = re.compile(r"malloc|[Uu]nable to allocate|Attempting to allocate|Insufficient Memory|out of memory")
GROUP = 64


@dataclass(frozen=True)
class MemoryReport:
    """MLX's own counts, in bytes: in use, kept for reuse, and the most ever in use since the last reset."""

    active: int
    cached: int
    peak: int


def report() -> MemoryReport:
    return MemoryReport(mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory())


@contextmanager
def overflow_is_ours() -> Iterator[None]:
    """Turn MLX's failed allocations into OutOfMemory; its other errors pass."""
    try:
        yield
    except RuntimeError as error:
        if not ALLOCATION.search(str(error)):
            raise
        raise OutOfMemory(
            "The memory is full. Use a quantized model, low_ram or a smaller picture.",
            suggestion="Use flux2-klein-4b-mlx-4bit or set low_ram=true",
        ) from error


def limit_cache(limit: int) -> None:
    """Cap the memory that MLX keeps for reuse, in bytes; uncapped it grows with every size painted."""
    mx.set_cache_limit(limit)


def default_budget() -> int:
    """Three quarters of the memory models can live in: a Mac's or this machine's RAM, or the GPU's."""
    if device_name() == "cpu":
        return int(psutil.virtual_memory().total * BUDGET_SHARE)
    size = mx.device_info().get("memory_size", psutil.virtual_memory().total)
    return int(int(size) * BUDGET_SHARE)


def estimate(layout: Layout, bits: int | None, precision: Precision) -> int:
    """Bytes the model will hold once loaded, from the headers of its files alone."""
    total = 0
    for component in ("transformer", "text_encoder", "vae"):
        folder = layout.folder / component
        shards = read_shards(folder)
        quantized = bits if component != "vae" and stored_bits(folder, shards) is None else None
        total += _component(shards, layout, quantized, precision.dtype.size)
    return total


def _component(shards: list[Shard], layout: Layout, bits: int | None, width: int) -> int:
    used = (tensor for shard in shards for name, tensor in shard.tensors.items() if _is_used(name, layout))
    return sum(_loaded(tensor, bits, width) for tensor in used)


def _is_used(name: str, layout: Layout) -> bool:
    layer = re.match(r"(?:model\.)?layers\.(\d+)\.", name)
    return not name.startswith("lm_head.") and not (layer and int(layer[1]) >= max(layout.layers))


def _loaded(tensor: Tensor, bits: int | None, width: int) -> int:
    if not tensor.dtype.startswith(("F", "BF")):
        return tensor.size
    if bits is not None and len(tensor.shape) == 2 and tensor.shape[1] % GROUP == 0:
        return tensor.count * bits // 8 + 2 * width * tensor.count // GROUP
    return tensor.count * width
