"""Tensors of checked files as MLX arrays, whatever they are stored as: numbers, scaled 8-bit floats, GGUF's blocks."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray

from mflux_api.checkpoints.bit_packing import PACKED, group_size
from mflux_api.checkpoints.float8 import FLOAT8
from mflux_api.checkpoints.gguf import SUFFIX
from mflux_api.checkpoints.safetensors import Shard, Tensor
from mflux_api.errors import ModelUnsupported

Keep = Callable[[str], bool]
Blocks = NDArray[np.uint8]
PLAIN = {"F32": "<f4", "F16": "<f2"}
HALF_BYTES = 4
BLOCK = 32
# Bytes of a block before its values.
PACKED_HEADER = {"Q8_0": 2, "Q4_0": 2, "Q4_1": 4}


@dataclass(frozen=True)
class Wish:
    """What a network's weights are to become. `bits`: None to leave them at `dtype`, or packed as they are stored."""

    dtype: mx.Dtype
    bits: int | None


def arrays(shards: Iterable[Shard], wish: Wish, keep: Keep) -> Iterator[tuple[str, mx.array]]:
    """The tensors whose names are kept.

    Of safetensors not evaluated, in the file's numbers or, for 8-bit floats, in float32. Of GGUF evaluated as wished,
    one after the other, so that no more than one is in memory unpacked; a quantized one has `scales` and `biases` too.
    Raises ModelUnsupported for blocks that cannot be unpacked.
    """
    found = list(shards)
    yield from _safetensors([shard for shard in found if shard.path.suffix != SUFFIX], keep)
    for shard in found:
        if shard.path.suffix == SUFFIX:
            yield from _gguf(shard, wish, keep)


def _safetensors(shards: list[Shard], keep: Keep) -> Iterator[tuple[str, mx.array]]:
    raw: dict[str, mx.array] = {}
    for shard in shards:
        # A weight and its scale may be in two files.
        raw.update(_loaded(shard))
    for shard in shards:
        for name, tensor in shard.tensors.items():
            if keep(name):
                values = raw[tensor.source or name]
                yield name, _float8(values, raw.get(tensor.scale)) if tensor.dtype == FLOAT8 else values


def _loaded(shard: Shard) -> dict[str, mx.array]:
    tensors = mx.load(str(shard.path))
    assert isinstance(tensors, dict)
    return tensors


def _float8(values: mx.array, scale: mx.array | None) -> mx.array:
    """MLX reads 8-bit floats as bytes. Without any scale they are the weights themselves."""
    floats = mx.from_fp8(values, mx.float32)
    return floats if scale is None else floats * _spread(scale.astype(mx.float32), values.shape)


def _spread(scale: mx.array, shape: tuple[int, ...]) -> mx.array:
    """One scale for all, one a row, or one a block -> something that multiplies the weights."""
    if scale.size == 1:
        return scale.reshape(())
    if scale.ndim == 1:
        return scale.reshape(-1, *(1 for _ in shape[1:]))
    for axis, (side, whole) in enumerate(zip(scale.shape, shape, strict=True)):
        scale = mx.repeat(scale, -(-whole // side), axis=axis)
    return scale[: shape[0], : shape[1]]


def _gguf(shard: Shard, wish: Wish, keep: Keep) -> Iterator[tuple[str, mx.array]]:
    data = np.memmap(shard.path, mode="r")
    for name, tensor in shard.tensors.items():
        if keep(name):
            blocks = data[tensor.offset : tensor.offset + tensor.size]
            for suffix, array in _wished(name, blocks, tensor, wish).items():
                mx.eval(array)
                yield f"{name.removesuffix('.weight')}.{suffix}" if suffix else name, array


def _wished(name: str, blocks: Blocks, tensor: Tensor, wish: Wish) -> dict[str, mx.array]:
    """By suffix: the weight alone under none, or three arrays that are a quantized one."""
    packed = len(tensor.shape) == 2 and tensor.dtype in PACKED
    if packed and wish.bits is None:
        return _triple(*_repacked(blocks, tensor), wish.dtype)
    whole = _unpacked(name, blocks, tensor)
    group = group_size(tensor.shape)
    if wish.bits is None or group is None or not name.endswith(".weight"):
        return {"": whole.astype(wish.dtype)}
    return _triple(*mx.quantize(whole.astype(wish.dtype), group_size=group, bits=wish.bits), wish.dtype)


def _triple(weight: mx.array, scales: mx.array, biases: mx.array, dtype: mx.Dtype) -> dict[str, mx.array]:
    return {"weight": weight, "scales": scales.astype(dtype), "biases": biases.astype(dtype)}


def _unpacked(name: str, blocks: Blocks, tensor: Tensor) -> mx.array:
    """The tensor's numbers, in float32 or as they are."""
    if tensor.dtype in PLAIN:
        return mx.array(blocks.view(PLAIN[tensor.dtype]).reshape(tensor.shape))
    if tensor.dtype == "BF16":
        return mx.array(blocks.view(np.uint16).reshape(tensor.shape)).view(mx.bfloat16)
    import gguf.quants

    kind = gguf.GGMLQuantizationType[tensor.dtype]
    try:
        return mx.array(gguf.quants.dequantize(blocks.reshape(-1, _row(tensor)), kind).reshape(tensor.shape))
    except NotImplementedError:
        raise ModelUnsupported(
            f"{name} is stored as {tensor.dtype}, which cannot be read. Take an edition in Q8_0, Q6_K, Q5_K or Q4_K.",
            tensor=name,
            format=tensor.dtype,
        ) from None


def _row(tensor: Tensor) -> int:
    """Bytes of one row."""
    return tensor.size * tensor.shape[-1] // tensor.count


def _repacked(blocks: Blocks, tensor: Tensor) -> tuple[mx.array, mx.array, mx.array]:
    """Blocks of 32 as MLX packs them: words, scales and biases. The same numbers, nothing is rounded in float32.

    Source: ggml's block_q8_0 (scale, 32 signed bytes), block_q4_0 (scale, 16 bytes) and block_q4_1 (scale, least value,
    16 bytes).
    """
    bits, header = PACKED[tensor.dtype], PACKED_HEADER[tensor.dtype]
    table = blocks.reshape(-1, header + BLOCK * bits // 8)
    numbers = mx.array(np.ascontiguousarray(table[:, :header]).view("<f2")).astype(mx.float32)
    words = _halves(table[:, header:]) if bits == HALF_BYTES else np.bitwise_xor(table[:, header:], 0x80)
    scales = numbers[:, 0]
    biases = numbers[:, 1] if header > 2 else scales * -float(1 << (bits - 1))
    rows, columns = tensor.shape
    weight = mx.array(np.ascontiguousarray(words).view("<u4").reshape(rows, columns * bits // 32))
    return weight, scales.reshape(rows, -1), biases.reshape(rows, -1)


def _halves(nibbles: Blocks) -> Blocks:
    """ggml has values 0 to 15 in the low halves and 16 to 31 in the high ones; MLX has neighbours in one byte."""
    values = np.concatenate([nibbles & 15, nibbles >> 4], axis=1)
    pairs: Blocks = values[:, ::2] | (values[:, 1::2] << 4)
    return pairs
