"""Choose by device the dtype to compute in and how to run quantized layers."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import mlx.core as mx
from mflux.models.common.config import ModelConfig as MfluxConfig

from mflux_api.errors import InvalidRequest

DTYPES = {"float32": mx.float32, "bfloat16": mx.bfloat16, "float16": mx.float16}


@dataclass(frozen=True)
class Precision:
    """`dtype`: of weights and activations. `dequantize_first`: unpack quantized weights, then multiply."""

    dtype: mx.Dtype
    dequantize_first: bool


def device_name() -> str:
    """Return the backend that MLX uses: "cpu", "metal" or "cuda"."""
    if mx.default_device() == mx.Device(mx.cpu):
        return "cpu"
    return "metal" if mx.metal.is_available() else "cuda"


# On the CPU backend, MLX's quantized matmul runs at 3 GFLOP/s, 40 times slower than unpacking first.
BY_DEVICE = {
    "cpu": Precision(mx.float32, dequantize_first=True),
    "metal": Precision(mx.bfloat16, dequantize_first=False),
    "cuda": Precision(mx.bfloat16, dequantize_first=True),
}


def choose_precision(name: str) -> Precision:
    """Return the precision for "auto" (by device), "float32", "bfloat16" or "float16". Else raises InvalidRequest."""
    automatic = BY_DEVICE[device_name()]
    if name == "auto":
        return automatic
    if name not in DTYPES:
        known = ", ".join(["auto", *DTYPES])
        raise InvalidRequest(f"precision must be one of {known}, not {name!r}.", field="precision")
    return Precision(DTYPES[name], automatic.dequantize_first)


@contextmanager
def use_dtype(dtype: mx.Dtype) -> Iterator[None]:
    """Build graphs in `dtype`. mflux's modules read it from a global, which is bfloat16 by default."""
    before = MfluxConfig.precision
    MfluxConfig.precision = dtype
    try:
        yield
    finally:
        MfluxConfig.precision = before
