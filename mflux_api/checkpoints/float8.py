"""Weights in scaled 8-bit floats: find their scales in the headers, and reject formats that cannot be read.

Sources: ComfyUI's QUANTIZATION.md (`weight_scale`, `input_scale`, `comfy_quant`, the metadata
`_quantization_metadata`) and its older names (`scale_weight`, `scale_input`, the marker `scaled_fp8`). A weight is the
stored number times its scale. Scales of inputs are for hardware that multiplies in 8 bits and are ignored here.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import replace

from mflux_api.checkpoints.safetensors import Shard, Tensor
from mflux_api.errors import ModelCorrupt, ModelUnsupported

FLOAT8 = "F8_E4M3"
FORMAT = "float8_e4m3fn"
SCALES = ("weight_scale", "scale_weight", "weight_scale_inv")
SCALED_MARKER = "scaled_fp8"
AUXILIARY_NAMES = (*SCALES, "input_scale", "scale_input", "comfy_quant", SCALED_MARKER)
METADATA = "_quantization_metadata"
PREFIXES = ("model.diffusion_model.", "diffusion_model.")
# Other tensors stored beside weights, and the format they belong to.
FOREIGN_FORMATS = {
    "weight_scale_2": "nvfp4",
    "pre_quant_scale": "smoothed",
    "absmax": "bitsandbytes",
    "SCB": "bitsandbytes",
}
INTEGER_FORMATS = {"I8": "int8", "U8": "4-bit numbers, two in a byte"}
FLOAT_FORMATS = {"F8_E5M2": "float8_e5m2", "F4": "fp4", "F6_E2M3": "fp6", "F6_E3M2": "fp6"}
EXPONENTS = {"U8", "F8_E8M0"}

Tensors = Mapping[str, Tensor]


def normalise_float8(shards: list[Shard]) -> list[Shard]:
    """Return the shards without scales, markers and ComfyUI's prefixes. Each weight names its scale in `Tensor.scale`.

    Raises ModelUnsupported for other low-bit formats, ModelCorrupt for a weight whose scale is missing.
    """
    tensors = {name: tensor for shard in shards for name, tensor in shard.tensors.items()}
    scales = _find_scales(tensors)
    for shard in shards:
        _check_declared_formats(shard)
    _check_foreign_formats(tensors, scales)
    if (
        scales
        or SCALED_MARKER in {_last(name) for name in tensors}
        or any(METADATA in shard.metadata for shard in shards)
    ):
        _check_every_scale(tensors, scales)
    return [replace(shard, tensors=_drop_auxiliary(shard.tensors, scales)) for shard in shards]


def _find_scales(tensors: Tensors) -> dict[str, str]:
    """Return the name of each weight's scale, by the weight's name."""
    return {f"{name.rpartition('.')[0]}.weight": name for name in tensors if _last(name) in SCALES}


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _drop_auxiliary(tensors: Tensors, scales: Mapping[str, str]) -> dict[str, Tensor]:
    found = {}
    for name, tensor in tensors.items():
        if _last(name) not in AUXILIARY_NAMES:
            found[_strip_prefix(name)] = replace(tensor, source=tensor.source or name, scale=scales.get(name, ""))
    return found


def _strip_prefix(name: str) -> str:
    return next((name.removeprefix(prefix) for prefix in PREFIXES if name.startswith(prefix)), name)


def _check_declared_formats(shard: Shard) -> None:
    for layer, kind in _read_declared_formats(shard):
        if kind != FORMAT:
            raise _unsupported(layer, kind)


def _read_declared_formats(shard: Shard) -> Iterator[tuple[str, str]]:
    """Yield (layer, format) as ComfyUI writes them into a header's metadata. Raises ModelCorrupt."""
    try:
        layers = json.loads(shard.metadata.get(METADATA, "{}")).get("layers", {})
        for layer, said in layers.items():
            yield layer, str(said if isinstance(said, str) else said["format"])
    except (ValueError, TypeError, AttributeError, KeyError) as error:
        raise ModelCorrupt(f"{shard.path} has damaged metadata: {METADATA}.", path=str(shard.path)) from error


def _check_foreign_formats(tensors: Tensors, scales: Mapping[str, str]) -> None:
    # Names are checked before data types, because they identify the format more precisely.
    for name, tensor in sorted(tensors.items(), key=lambda each: _last(each[0]) not in FOREIGN_FORMATS):
        layer, _, last = name.rpartition(".")
        kind = FOREIGN_FORMATS.get(last) or FLOAT_FORMATS.get(tensor.dtype)
        if kind is None and last == "weight":
            kind = INTEGER_FORMATS.get(tensor.dtype)
        if kind is not None:
            raise _unsupported(layer, kind)
    for name, scale in scales.items():
        if name in tensors:
            _check_scale(name, tensors[name], tensors[scale])


def _check_scale(name: str, weight: Tensor, scale: Tensor) -> None:
    layer = name.removesuffix(".weight")
    if scale.dtype in EXPONENTS:
        raise _unsupported(layer, "mxfp8")
    if weight.dtype != FLOAT8 or not _is_scale_shape(scale.shape, weight.shape):
        raise _unsupported(layer, f"{weight.dtype} {list(weight.shape)} with scales {list(scale.shape)}")


def _is_scale_shape(scale: tuple[int, ...], weight: tuple[int, ...]) -> bool:
    """Return whether a scale has a supported shape: one value in total, one per row, or one per block of equal size."""
    one = all(side == 1 for side in scale)
    rows = scale in {weight[:1], (*weight[:1], 1)}
    blocks = len(scale) == len(weight) == 2 and scale[0] <= weight[0] and scale[1] <= weight[1]
    return one or rows or blocks


def _check_every_scale(tensors: Tensors, scales: Mapping[str, str]) -> None:
    for name, tensor in tensors.items():
        if tensor.dtype == FLOAT8 and name not in scales and _last(name) not in AUXILIARY_NAMES:
            raise ModelCorrupt(
                f"{name} is in 8-bit floats and its scale is missing. Download the file again, or another edition.",
                tensor=name,
            )


def _unsupported(layer: str, kind: str) -> ModelUnsupported:
    return ModelUnsupported(
        f"{layer} is stored as {kind}, which cannot be read here. Take the model in bf16, in scaled 8-bit floats "
        f"({FORMAT}), as GGUF, or saved by mflux.",
        tensor=layer,
        format=kind,
    )
