"""Read adapter files: their tensors in float32, and the updates that they mean for the layers of a transformer.

A file is used whole or refused. Only tensors of other parts of a pipeline are left out, and they are reported.
"""

import json
import math
import re
from collections import defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np

from mflux_api.checkpoints.adapter_names import AdapterKey, LayerNames, Target, is_left_out, parse_adapter_key
from mflux_api.checkpoints.safetensors import Shard, read_shard
from mflux_api.engine.flux2.adapter_layers import Delta, Dense, Hadamard, Kronecker, LowRank, Update
from mflux_api.errors import LoraInvalid, ModelCorrupt

SUFFIX = ".safetensors"
# numpy has no bfloat16 and no 8-bit floats: they are read as integers.
STORED = {"F64": "<f8", "F32": "<f4", "F16": "<f2", "BF16": "<u2", "F8_E4M3": "u1", "F8_E5M2": "u1"}
INTEGERS = {"I64": "<i8", "I32": "<i4", "I16": "<i2", "U8": "u1", "I8": "i1"}
# PEFT and diffusers write their settings into the header or, with this file name, beside the file.
METADATA = "lora_adapter_metadata"
PEFT_FILE, PEFT_CONFIG = "adapter_model.safetensors", "adapter_config.json"
SHOWN = 3
Tensors = dict[str, mx.array]
Config = Mapping[str, Any]


@dataclass(frozen=True)
class AdapterFile:
    """A checked file. `configs`: settings of PEFT by component ("" for all). `left_out`: names that are not used."""

    path: str
    tensors: Tensors
    configs: Mapping[str, Config]
    left_out: tuple[str, ...]


def read_adapter(path: str) -> AdapterFile:
    """Read a file. Raises LoraInvalid."""
    if Path(path).suffix != SUFFIX:
        raise LoraInvalid(f"{path} is not a {SUFFIX} file; other formats can run code.", path=path)
    try:
        shard = read_shard(Path(path))
    except ModelCorrupt as error:
        raise LoraInvalid(error.message, path=path) from error
    left_out = tuple(sorted(filter(is_left_out, shard.tensors)))
    tensors = _read_tensors(shard, set(shard.tensors) - set(left_out))
    broken = [name for name, tensor in tensors.items() if not mx.isfinite(tensor).all().item()]
    if broken:
        raise LoraInvalid(f"{path} holds values that are not finite, in {broken[0]}.", path=path)
    return AdapterFile(path, tensors, _read_configs(shard), left_out)


def _read_tensors(shard: Shard, wanted: set[str]) -> Tensors:
    data = np.memmap(shard.path, mode="r") if wanted else np.zeros(0, np.uint8)
    found = {}
    for name in sorted(wanted):
        tensor = shard.tensors[name]
        kind = {**STORED, **INTEGERS}.get(tensor.dtype)
        if kind is None or tensor.nbytes != tensor.count * np.dtype(kind).itemsize:
            raise LoraInvalid(
                f"{shard.path} holds {name} as {tensor.dtype} {list(tensor.shape)}, which cannot be read.",
                path=str(shard.path),
            )
        values = np.frombuffer(data[tensor.offset : tensor.offset + tensor.nbytes].tobytes(), kind)
        array = _decode(values, tensor.dtype).reshape(tensor.shape)
        # A linear layer's factors may be stored as those of a convolution over one pixel.
        while array.ndim > 2 and array.shape[-1] == 1:
            array = array.squeeze(-1)
        found[name] = array
    return found


def _decode(values: "np.ndarray[Any, Any]", dtype: str) -> mx.array:
    if dtype == "BF16":
        return mx.array(values).view(mx.bfloat16).astype(mx.float32)
    if dtype == "F8_E4M3":
        return mx.from_fp8(mx.array(values), mx.float32)
    if dtype == "F8_E5M2":
        # It is the upper half of a 16-bit float.
        return mx.array((values.astype(np.uint16) << 8).view(np.float16).astype(np.float32))
    return mx.array(values.astype(np.float32))


def _read_configs(shard: Shard) -> dict[str, Config]:
    """Return PEFT's settings by component. Settings that cannot be read are refused: a strength would be guessed."""
    beside = shard.path.with_name(PEFT_CONFIG)
    try:
        if METADATA in shard.metadata:
            return _split_components(json.loads(shard.metadata[METADATA]))
        if shard.path.name == PEFT_FILE and beside.is_file():
            return {"": dict(json.loads(beside.read_text(encoding="utf-8")))}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        raise LoraInvalid(f"The settings of {shard.path} cannot be read: {error}", path=str(shard.path)) from error
    return {}


def _split_components(flat: Mapping[str, Any]) -> dict[str, Config]:
    found: dict[str, dict[str, Any]] = defaultdict(dict)
    for key, value in flat.items():
        component, _, name = key.rpartition(".")
        found[component][name] = value
    return dict(found)


def build_updates(file: AdapterFile, names: LayerNames, use_index: int) -> list[tuple[Target, Update]]:
    """Return the updates of a file by layer. Raises LoraInvalid if any tensor cannot be used."""
    grouped: dict[tuple[str, str], dict[str, mx.array]] = defaultdict(dict)
    unknown = []
    for name, tensor in file.tensors.items():
        key = parse_adapter_key(name)
        if key is None:
            unknown.append(name)
        else:
            _add(grouped[key.layer, key.adapter], key, tensor, file.path)
    _check_layers(file, grouped, unknown, names)
    _share_plain_tensors(grouped)
    found = []
    for (layer, _), tensors in grouped.items():
        group = _Group(file, layer, tensors)
        targets = names.find_targets(layer)
        found += [(target, group.build_update(target, use_index)) for target in targets]
    return found


def _add(tensors: Tensors, key: AdapterKey, tensor: mx.array, path: str) -> None:
    if key.kind in tensors:
        raise LoraInvalid(f"{path} holds two tensors for {key.kind} of {key.layer}.", path=path)
    tensors[key.kind] = tensor


def _share_plain_tensors(grouped: dict[tuple[str, str], Tensors]) -> None:
    """Give tensors without an adapter's name (alpha, dora_scale) to the only named adapter of their layer."""
    for layer, adapter in list(grouped):
        named = [each for each in grouped if each[0] == layer and each[1]]
        if not adapter and len(named) == 1 and grouped[layer, ""].keys() <= {"alpha", "magnitude"}:
            grouped[named[0]] = {**grouped.pop((layer, "")), **grouped[named[0]]}


def _check_layers(
    file: AdapterFile, grouped: Mapping[tuple[str, str], Tensors], unknown: list[str], names: LayerNames
) -> None:
    layers = {layer for layer, _ in grouped}
    foreign = sorted(layer for layer in layers if not names.find_targets(layer))
    # Layers of blocks are probably those of a larger or an older model, others of something else.
    if len(foreign) == len(layers) and not any("blocks" in layer for layer in foreign):
        raise LoraInvalid(_format_no_match(file), path=file.path)
    if foreign:
        raise LoraInvalid(
            f"{file.path} was made for another model: {len(foreign)} of its layers do not fit, "
            f"{_strip_first(foreign[0])} among them.",
            path=file.path,
        )
    if unknown:
        raise LoraInvalid(
            f"{file.path} cannot be used whole: {len(unknown)} of its tensors are of an unsupported kind, "
            f"{', '.join(unknown[:SHOWN])} among them.",
            path=file.path,
            tensors=unknown[:SHOWN],
        )


def _strip_first(layer: str) -> str:
    return layer.removeprefix("transformer.")


def _format_no_match(file: AdapterFile) -> str:
    shown = ", ".join(sorted([*file.tensors, *file.left_out])[:SHOWN])
    return f"No layer of {file.path} belongs to FLUX.2 (its keys are like {shown})."


@dataclass(frozen=True, eq=False)
class _Group:
    """The tensors of one layer in a file, by kind."""

    file: AdapterFile
    layer: str
    tensors: Tensors

    def build_update(self, target: Target, use_index: int) -> Update:
        """Return the update of one of the layers that the file's layer means."""
        rows, delta = _Rows(target), self.delta
        if "magnitude" in self.tensors and delta is None:
            raise self._invalid("has a magnitude and no update")
        try:
            return Update(
                use_index=use_index,
                delta=None if delta is None else rows.select(delta),
                unit=self.unit,
                bias=None if self.bias is None else rows.take(self.bias),
                magnitude=self._read_magnitude(target),
            )
        except (ValueError, TypeError, AttributeError, re.error) as error:
            raise self._invalid(f"does not fit: {error}") from error

    @cached_property
    def delta(self) -> Delta | None:
        """The update of the weight; None if the file changes only the bias."""
        builders: dict[str, Callable[[], Delta]] = {
            "lora": lambda: LowRank(self._take("down"), self._take("up")),
            "lokr": lambda: Kronecker(self._take_factor("lokr_w1"), self._take_factor("lokr_w2")),
            "hada": lambda: Hadamard(self._take_pair("hada_w1"), self._take_pair("hada_w2")),
            "diff": lambda: Dense(self._take("diff")),
        }
        methods = sorted({_METHODS[kind] for kind in self.tensors if kind in _METHODS})
        if len(methods) > 1:
            raise self._invalid(f"mixes {' and '.join(methods)}")
        if not methods and "diff_bias" not in self.tensors:
            raise self._invalid("has no update")
        try:
            return builders[methods[0]]() if methods else None
        except ValueError as error:
            raise self._invalid(f"has factors that do not fit: {error}") from error

    @cached_property
    def unit(self) -> float:
        """The factor of the update: alpha over the rank, or 1."""
        rank = self._find_rank()
        alpha = self.tensors.get("alpha")
        if alpha is not None:
            if alpha.size != 1:
                raise self._invalid("has an alpha that is no number")
            return float(np.array(alpha).item()) / rank if rank else 1.0
        return self._read_configured_unit(rank)

    @cached_property
    def bias(self) -> mx.array | None:
        """What is added to the output."""
        found = self.tensors.get("diff_bias")
        if "up_bias" in self.tensors or "down_bias" in self.tensors:
            bias = self.tensors.get("up_bias", mx.array(0.0))
            if "down_bias" in self.tensors:
                bias = bias + self._take("up") @ self.tensors["down_bias"]
            found = self.unit * bias + (0.0 if found is None else found)
        return None if found is None else found.reshape(-1)

    def _find_rank(self) -> int | None:
        """Return the rank; None for whole matrices, which alpha does not change."""
        for kind, axis in (("down", 0), ("lokr_w1_b", 0), ("lokr_w2_b", 0), ("hada_w1_b", 0)):
            if kind in self.tensors:
                return self.tensors[kind].shape[axis] or None
        return None

    def _read_configured_unit(self, rank: int | None) -> float:
        """Return the factor that PEFT's settings give this layer; 1 without settings."""
        configs = self.file.configs
        component = next((name for name in configs if name and self.layer.startswith(f"{name}.")), "")
        config = configs.get(component) or (next(iter(configs.values())) if len(configs) == 1 else {})
        alpha = config.get("lora_alpha", config.get("alpha"))
        layer = self.layer.removeprefix(f"{component}.")
        alpha = _match_pattern(config.get("alpha_pattern"), layer, alpha)
        rank = rank or _match_pattern(config.get("rank_pattern"), layer, config.get("r"))
        if alpha is None or not rank:
            return 1.0
        return float(alpha) / (math.sqrt(rank) if config.get("use_rslora") else rank)

    def _read_magnitude(self, target: Target) -> mx.array | None:
        """Return the magnitudes of the target: (rows, 1) or (1, columns)."""
        found = self.tensors.get("magnitude")
        if found is None:
            return None
        if found.ndim == 2 and found.shape[0] == 1 and found.shape[1] > 1:
            if target.parts > 1:
                raise self._invalid("has magnitudes of columns over query, key and value together")
            return found
        return _Rows(target).take(found.reshape(-1, 1))

    def _take(self, kind: str) -> mx.array:
        if kind not in self.tensors:
            missing = {"down": "lora_A", "up": "lora_B"}.get(kind, kind)
            raise self._invalid(f"has no {missing}")
        return self.tensors[kind]

    def _take_pair(self, kind: str) -> LowRank:
        pair = LowRank(self._take(f"{kind}_b"), self._take(f"{kind}_a"))
        _check_product(pair.up, pair.down)
        return pair

    def _take_factor(self, kind: str) -> mx.array:
        """Return a factor of a Kronecker product, stored whole or as a product."""
        factor = self.tensors[kind] if kind in self.tensors else self._take_pair(kind).build()
        if factor.ndim != 2:
            raise ValueError(f"{kind} is {factor.shape}")
        return factor

    def _invalid(self, reason: str) -> LoraInvalid:
        return LoraInvalid(f"{self.file.path} cannot be used: {self.layer} {reason}.", path=self.file.path)


_METHODS = {
    **dict.fromkeys(("down", "up", "down_bias", "up_bias"), "lora"),
    **{f"lokr_{part}": "lokr" for part in ("w1", "w1_a", "w1_b", "w2", "w2_a", "w2_b")},
    **{f"hada_{part}": "hada" for part in ("w1_a", "w1_b", "w2_a", "w2_b")},
    "diff": "diff",
}


def _match_pattern(patterns: Any, layer: str, default: Any) -> Any:
    found = (value for pattern, value in (patterns or {}).items() if re.match(rf"(.*\.)?({pattern})$", layer))
    return next(found, default)


def _check_product(left: mx.array, right: mx.array) -> None:
    if left.ndim != 2 or right.ndim != 2 or left.shape[1] != right.shape[0]:
        raise ValueError(f"{left.shape} and {right.shape}")


@dataclass(frozen=True)
class _Rows:
    """Select a target's rows of what a file has for all of its layers."""

    target: Target

    def take(self, values: mx.array) -> mx.array:
        part, rest = divmod(len(values), self.target.parts)
        if rest:
            raise ValueError(f"{len(values)} rows are not those of {self.target.parts} equal layers")
        taken = values[self.target.index * part : (self.target.index + 1) * part]
        return mx.roll(taken, part // 2, 0) if self.target.swapped else taken

    def select(self, delta: Delta) -> Delta:
        if self.target.parts == 1 and not self.target.swapped:
            return delta
        if isinstance(delta, LowRank):
            return LowRank(delta.down, self.take(delta.up))
        if isinstance(delta, Hadamard):
            first = LowRank(delta.first.down, self.take(delta.first.up))
            return Hadamard(first, LowRank(delta.second.down, self.take(delta.second.up)))
        if isinstance(delta, Kronecker) and len(delta.outer) % (2 if self.target.swapped else self.target.parts) == 0:
            return Kronecker(self.take(delta.outer), delta.inner)
        return Dense(self.take(delta.build()))
