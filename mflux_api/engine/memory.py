"""Measure and limit memory: what this machine has and what MLX holds, in bytes."""

import gc
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
import psutil

from mflux_api.checkpoints.memory_estimate import BUDGET_SHARE
from mflux_api.engine.precision import device_name
from mflux_api.errors import OutOfMemory

GIB = 1024**3
CACHE_LIMIT = GIB
ALLOCATION = re.compile(r"malloc|[Uu]nable to allocate|Attempting to allocate|Insufficient Memory|out of memory")


@dataclass(frozen=True)
class MlxMemory:
    """MLX's own counts in bytes: in use, cached for reuse, and the peak in use since the last reset."""

    active: int
    cached: int
    peak: int


def read_mlx_memory() -> MlxMemory:
    return MlxMemory(mx.get_active_memory(), mx.get_cache_memory(), mx.get_peak_memory())


@contextmanager
def translate_allocation_errors() -> Iterator[None]:
    """Raise OutOfMemory for MLX's failed allocations. Other errors pass unchanged."""
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
    """Limit the memory that MLX caches for reuse, in bytes. Without a limit it grows with every new picture size."""
    mx.set_cache_limit(limit)


def release_unused() -> None:
    """Free the memory of unreferenced arrays."""
    # Modules contain reference cycles, so the garbage collector must run before MLX can free their memory.
    gc.collect()
    mx.clear_cache()


def default_budget() -> int:
    """Return three quarters of the memory for models, in bytes: the RAM on a Mac or a CPU, else the GPU's memory."""
    if device_name() == "cpu":
        return int(psutil.virtual_memory().total * BUDGET_SHARE)
    size = mx.device_info().get("memory_size", psutil.virtual_memory().total)
    return int(int(size) * BUDGET_SHARE)
