"""Read the tensors of checked files as MLX arrays, from any stored format, and load them into a network."""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mlx import nn
from mlx.utils import tree_flatten
from numpy.typing import NDArray

from mflux_api.checkpoints.bit_packing import PACKED_BITS, choose_group_size
from mflux_api.checkpoints.float8 import FLOAT8
from mflux_api.checkpoints.gguf import GGUF_SUFFIX
from mflux_api.checkpoints.safetensors import Shard, Tensor
from mflux_api.checkpoints.tensor_names import SWAPPED, map_single_file_name, split_fused_name
from mflux_api.errors import ModelUnsupported

NameFilter = Callable[[str], bool]
Blocks = NDArray[np.uint8]
PLAIN = {"F32": "<f4", "F16": "<f2"}
NIBBLE_BITS = 4
BLOCK = 32
# Bytes before the values in a block.
PACKED_HEADER = {"Q8_0": 2, "Q4_0": 2, "Q4_1": 4}


@dataclass(frozen=True)
class TargetFormat:
    """The target format of a network's weights. `bits`: None for `dtype`, or for packed weights as they are stored."""

    dtype: mx.Dtype
    bits: int | None


def read_tensors(shards: Iterable[Shard], target: TargetFormat, keep: NameFilter) -> Iterator[tuple[str, mx.array]]:
    """Yield the tensors whose names `keep` accepts.

    Tensors of safetensors files are not evaluated. They have the file's dtype, or float32 for 8-bit floats. Tensors of
    GGUF files are evaluated in the target format one by one, so that only one is unpacked in memory at a time; a
    quantized one also has `scales` and `biases`. Raises ModelUnsupported for blocks that cannot be unpacked.
    """
    found = list(shards)
    yield from _read_safetensors([shard for shard in found if shard.path.suffix != GGUF_SUFFIX], keep)
    for shard in found:
        if shard.path.suffix == GGUF_SUFFIX:
            yield from _read_gguf(shard, target, keep)


def _read_safetensors(shards: list[Shard], keep: NameFilter) -> Iterator[tuple[str, mx.array]]:
    raw: dict[str, mx.array] = {}
    for shard in shards:
        # A weight and its scale may be in different files.
        raw.update(_load_file(shard))
    for shard in shards:
        for name, tensor in shard.tensors.items():
            if keep(name):
                values = raw[tensor.source or name]
                yield name, _dequantize_float8(values, raw.get(tensor.scale)) if tensor.dtype == FLOAT8 else values


def _load_file(shard: Shard) -> dict[str, mx.array]:
    tensors = mx.load(str(shard.path))
    assert isinstance(tensors, dict)
    return tensors


def _dequantize_float8(values: mx.array, scale: mx.array | None) -> mx.array:
    """Convert 8-bit floats, which MLX reads as bytes, to float32, and multiply them by their scale if there is one."""
    floats = mx.from_fp8(values, mx.float32)
    return floats if scale is None else floats * _broadcast_scale(scale.astype(mx.float32), values.shape)


def _broadcast_scale(scale: mx.array, shape: tuple[int, ...]) -> mx.array:
    """Reshape a scale so that it multiplies the weights. The file has one scale for all, one a row, or one a block."""
    if scale.size == 1:
        return scale.reshape(())
    if scale.ndim == 1:
        return scale.reshape(-1, *(1 for _ in shape[1:]))
    for axis, (side, whole) in enumerate(zip(scale.shape, shape, strict=True)):
        scale = mx.repeat(scale, -(-whole // side), axis=axis)
    return scale[: shape[0], : shape[1]]


def _read_gguf(shard: Shard, target: TargetFormat, keep: NameFilter) -> Iterator[tuple[str, mx.array]]:
    data = np.memmap(shard.path, mode="r")
    for name, tensor in shard.tensors.items():
        if keep(name):
            blocks = data[tensor.offset : tensor.offset + tensor.nbytes]
            for suffix, array in _convert_blocks(name, blocks, tensor, target).items():
                mx.eval(array)
                yield f"{name.removesuffix('.weight')}.{suffix}" if suffix else name, array


def _convert_blocks(name: str, blocks: Blocks, tensor: Tensor, target: TargetFormat) -> dict[str, mx.array]:
    """Convert a tensor's blocks. Returns {"": weight}, or "weight", "scales" and "biases" of a quantized weight."""
    packed = len(tensor.shape) == 2 and tensor.dtype in PACKED_BITS
    if packed and target.bits is None:
        return _name_quantized(*_repack_blocks(blocks, tensor), target.dtype)
    whole = _unpack_blocks(name, blocks, tensor)
    group = choose_group_size(tensor.shape)
    if target.bits is None or group is None or not name.endswith(".weight"):
        return {"": whole.astype(target.dtype)}
    return _name_quantized(*mx.quantize(whole.astype(target.dtype), group_size=group, bits=target.bits), target.dtype)


def _name_quantized(weight: mx.array, scales: mx.array, biases: mx.array, dtype: mx.Dtype) -> dict[str, mx.array]:
    return {"weight": weight, "scales": scales.astype(dtype), "biases": biases.astype(dtype)}


def _unpack_blocks(name: str, blocks: Blocks, tensor: Tensor) -> mx.array:
    """Unpack a tensor. Plain dtypes keep their dtype; quantized blocks become floats."""
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
    """Return the bytes of one row."""
    return tensor.nbytes * tensor.shape[-1] // tensor.count


def _repack_blocks(blocks: Blocks, tensor: Tensor) -> tuple[mx.array, mx.array, mx.array]:
    """Repack blocks of 32 into MLX's words, scales and biases. Exact in float32: nothing is rounded.

    Source: ggml's block_q8_0 (scale, 32 signed bytes), block_q4_0 (scale, 16 bytes) and block_q4_1 (scale, least value,
    16 bytes).
    """
    bits, header = PACKED_BITS[tensor.dtype], PACKED_HEADER[tensor.dtype]
    table = blocks.reshape(-1, header + BLOCK * bits // 8)
    numbers = mx.array(np.ascontiguousarray(table[:, :header]).view("<f2")).astype(mx.float32)
    words = _interleave_nibbles(table[:, header:]) if bits == NIBBLE_BITS else np.bitwise_xor(table[:, header:], 0x80)
    scales = numbers[:, 0]
    biases = numbers[:, 1] if header > 2 else scales * -float(1 << (bits - 1))
    rows, columns = tensor.shape
    weight = mx.array(np.ascontiguousarray(words).view("<u4").reshape(rows, columns * bits // 32))
    return weight, scales.reshape(rows, -1), biases.reshape(rows, -1)


def _interleave_nibbles(nibbles: Blocks) -> Blocks:
    """Reorder nibbles from ggml to MLX.

    ggml stores values 0 to 15 in the low nibbles and 16 to 31 in the high ones. MLX stores neighbours in one byte.
    """
    values = np.concatenate([nibbles & 15, nibbles >> 4], axis=1)
    pairs: Blocks = values[:, ::2] | (values[:, 1::2] << 4)
    return pairs


Weights = dict[str, mx.array]
Rename = Callable[[str], str | None]
QUANTIZED_SUFFIXES = (".scales", ".biases")


def read_weights(
    shards: Iterable[Shard], target: TargetFormat, rename: Rename, wanted: set[str], *, transpose: bool
) -> Weights:
    """Read the tensors whose new name is in `wanted`, in the formats of `read_tensors`.

    `transpose`: transpose torch convolutions to MLX's (O, H, W, I).
    """

    def new_name(old: str) -> str:
        new = rename(old)
        return new if new is not None and (new in wanted or _quantized_owner(new) in wanted) else ""

    weights: Weights = {}
    for old, tensor in read_tensors(shards, target, lambda old: bool(new_name(old))):
        weights[new_name(old)] = tensor.transpose(0, 2, 3, 1) if transpose and tensor.ndim == 4 else tensor
    return weights


def read_single_file(shards: Iterable[Shard], target: TargetFormat) -> Weights:
    """Like `read_weights`, for Black Forest Labs' names.

    Splits the fused attention weights and swaps the halves of the last modulation.
    """
    found: Weights = {}
    for old, tensor in read_tensors(shards, target, lambda _: True):
        names = split_fused_name(map_single_file_name(old) or old)
        whole = mx.roll(tensor, len(tensor) // 2, 0) if SWAPPED.fullmatch(names[0]) else tensor
        found.update(zip(names, mx.split(whole, len(names)), strict=True))
    return found


def _quantized_owner(name: str) -> str:
    return re.sub(r"\.(scales|biases)$", ".weight", name)


def list_parameters(module: nn.Module) -> Weights:
    """Return the parameters that a checkpoint must supply, by name. Excludes rotary tables, which are computed."""
    flat = tree_flatten(module.parameters(), destination={})
    assert isinstance(flat, dict)
    return {name: value for name, value in flat.items() if not name.endswith("inv_freq")}


def apply_weights(module: nn.Module, weights: Weights, component: str, dtype: mx.Dtype) -> None:
    """Load every tensor into the module in `dtype`. Raises ModelUnsupported if one is missing or has a wrong shape."""
    _check_shapes(component, {name: value.shape for name, value in list_parameters(module).items()}, weights)
    module.load_weights([(name, _cast(value, dtype)) for name, value in weights.items()], strict=False)


def _check_shapes(component: str, expected: dict[str, tuple[int, ...]], weights: Weights) -> None:
    missing = sorted(expected.keys() - weights.keys())
    if missing:
        shown = ", ".join(missing[:3])
        raise ModelUnsupported(
            f"The {component} lacks {len(missing)} tensors, {shown} among them: its config.json and weights disagree.",
            component=component,
            missing=missing[:10],
        )
    for name, shape in expected.items():
        if weights[name].shape != shape:
            raise ModelUnsupported(
                f"{name} of the {component} is {weights[name].shape}; its config.json asks for {shape}.",
                component=component,
                tensor=name,
            )


def _cast(value: mx.array, dtype: mx.Dtype) -> mx.array:
    return value.astype(dtype) if mx.issubdtype(value.dtype, mx.floating) else value
