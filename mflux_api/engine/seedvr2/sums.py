"""A guard for mflux's windows, which sum up nothing wherever a picture is a single one."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx


@contextmanager
def empty_sums() -> Iterator[None]:
    """Within, mx.cumsum of an empty array is that array: MLX's CPU backend (0.32.2) ends the process at it (SIGFPE)."""
    before = mx.cumsum

    def guarded(values: mx.array, *arguments: Any, **keywords: Any) -> mx.array:
        return before(values, *arguments, **keywords) if values.size else values

    mx.cumsum = guarded
    try:
        yield
    finally:
        mx.cumsum = before
