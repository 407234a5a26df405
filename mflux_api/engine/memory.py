"""Bytes: what this machine has and what MLX holds."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import psutil

from mflux_api.engine.precision import device_name
from mflux_api.errors import OutOfMemory

GIB = 1024**3
CACHE_LIMIT = GIB
BUDGET_SHARE = 0.75
ALLOCATION = re.compile(r"malloc|[Uu]nable to allocate|Attempting to allocate|Insufficient Memory|out of memory")


@dataclass(frozen=True)
class MlxMemory:
    """MLX's own counts, in bytes: in use, kept for reuse, and the most ever in use since the last reset."""

    active: int
    cached: int
    peak: int


def read_mlx_memory() -> MlxMemory:
    return MlxMemory(mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory())


@contextmanager
def translate_allocation_errors() -> Iterator[None]:
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


def release_unused() -> None:
    """Give back the memory of what nobody holds any more."""
    # Modules refer to themselves in cycles, so the collector has to run before MLX can give the memory back.
    gc.collect()
    mx.clear_cache()


def default_budget() -> int:
    """Three quarters of the memory models can live in: a Mac's or this machine's RAM, or the GPU's."""
    if device_name() == "cpu":
        return int(psutil.virtual_memory().total * BUDGET_SHARE)
    size = mx.device_info().get("memory_size", psutil.virtual_memory().total)
    return int(int(size) * BUDGET_SHARE)
