"""Rewrite tiny checkpoints in published formats: scaled 8-bit floats and GGUF, with Black Forest Labs' names."""

import json
import shutil
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import gguf
import mlx.core as mx
import numpy as np
from gguf import GGMLQuantizationType as Kind
from numpy.typing import NDArray

from mflux_api.engine.model import Model
from tests.engine.flux2.test_single_file import in_their_names
from tests.support.paths import CHECKPOINTS

KLEIN = CHECKPOINTS / "klein"
LARGEST = 448.0
DTYPES = {"float32": "F32", "uint8": "U8", "int8": "I8"}
Arrays = dict[str, mx.array]
# Computes the scale or scales of a weight.
Scaling = Callable[[mx.array], mx.array]


def scale_by_tensor(weight: mx.array) -> mx.array:
    return mx.abs(weight).max() / LARGEST


def scale_by_row(weight: mx.array) -> mx.array:
    return mx.abs(weight).max(axis=1) / LARGEST


def scale_by_block(weight: mx.array) -> mx.array:
    """Return one scale for each block of 32 x 32."""
    rows, columns = weight.shape
    return mx.abs(weight).reshape(rows // 32, 32, columns // 32, 32).max(axis=(1, 3)) / LARGEST


def broadcast_scale(scale: mx.array, shape: tuple[int, ...]) -> mx.array:
    if scale.ndim == 2:
        return mx.repeat(mx.repeat(scale, 32, 0), 32, 1)
    return scale[:, None] if scale.ndim == 1 else scale


def copy_klein(folder: Path) -> Path:
    return Path(shutil.copytree(KLEIN, folder))


def load_weights(folder: Path) -> Arrays:
    (path,) = folder.glob("*.safetensors")
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    return {name: tensor.astype(mx.float32) for name, tensor in tensors.items()}


def replace_weights(folder: Path, tensors: Arrays) -> None:
    """Replace the file of a component by these float32 tensors."""
    (path,) = folder.glob("*.safetensors")
    mx.save_safetensors(str(path), tensors)


def is_scaled(name: str, tensor: mx.array) -> bool:
    """Return whether published files scale this tensor: matrices inside the blocks only."""
    return tensor.ndim == 2 and "blocks." in name


def quantize_float8(tensors: Arrays, scaling: Scaling = scale_by_tensor) -> tuple[dict[str, Any], Arrays]:
    """Return the entries of a file of scaled 8-bit floats (for `write_safetensors`) and the values they represent."""
    entries: dict[str, Any] = {}
    values = dict(tensors)
    for name, tensor in tensors.items():
        if not is_scaled(name, tensor):
            entries[name] = encode_tensor(tensor)
            continue
        scale = scaling(tensor)
        stored = mx.to_fp8(tensor / broadcast_scale(scale, tensor.shape))
        values[name] = mx.from_fp8(stored, mx.float32) * broadcast_scale(scale, tensor.shape)
        entries[name] = {"dtype": "F8_E4M3", "shape": list(stored.shape), "data": np.array(stored).tobytes()}
        entries[name.replace(".weight", ".weight_scale")] = encode_tensor(scale)
        entries[name.replace(".weight", ".input_scale")] = encode_tensor(mx.array(0.25))
    return entries, values


def encode_tensor(tensor: mx.array) -> dict[str, Any]:
    array = np.array(tensor)
    return {"dtype": DTYPES[str(array.dtype)], "shape": list(array.shape), "data": array.tobytes()}


def write_safetensors(path: Path, entries: Mapping[str, Any], metadata: dict[str, str] | None = None) -> None:
    header: dict[str, Any] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, value in entries.items():
        places = [len(data), len(data) + len(value["data"])]
        header[name] = {"dtype": value["dtype"], "shape": value["shape"], "data_offsets": places}
        data += value["data"]
    text = json.dumps(header).encode()
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(struct.pack("<Q", len(text)) + text + data)


def comfy_metadata(entries: Mapping[str, Any], kind: str) -> dict[str, str]:
    """Return ComfyUI's metadata of a file."""
    layers = {name.removesuffix(".weight_scale"): {"format": kind} for name in entries if name.endswith("_scale")}
    return {"_quantization_metadata": json.dumps({"format_version": "1.0", "layers": layers})}


def write_gguf(
    path: Path, tensors: Arrays, kinds: Callable[[str], Kind], architecture: str = "flux", **metadata: Any
) -> Arrays:
    """Write these tensors to a GGUF file and return the values it represents."""
    path.parent.mkdir(exist_ok=True)
    writer = gguf.GGUFWriter(path, architecture)
    for name, value in metadata.items():
        writer.add_key_value(name, value, gguf.GGUFValueType.get_type(value))
    writer.add_array("tokenizer.ggml.tokens", ["<a>", "b", "ü"])
    values = {}
    for name, tensor in tensors.items():
        kind = kinds(name) if tensor.ndim == 2 else Kind.F32
        stored = gguf.quants.quantize(np.array(tensor), kind)
        writer.add_tensor(name, stored, raw_dtype=kind)
        values[name] = mx.array(gguf.quants.dequantize(stored, kind).reshape(tensor.shape))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return values


def pixels(model: Model) -> NDArray[np.float32]:
    return model.generate("a red circle", width=64, height=64, steps=2, seeds=(1,))[0].array


__all__ = ["KLEIN", "Kind", "in_their_names"]
