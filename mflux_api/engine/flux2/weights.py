"""Tensors of a checkpoint into a network: names, layouts, dtypes, and a check that all of them fit."""

import re
from collections.abc import Callable, Iterable

import mlx.core as mx
from mlx import nn
from mlx.utils import tree_flatten

from mflux_api.checkpoints.safetensors import Shard
from mflux_api.checkpoints.tensor_names import SWAPPED, single_file_name, unfused
from mflux_api.engine.flux2.stored import Wish, arrays
from mflux_api.errors import ModelUnsupported

Weights = dict[str, mx.array]
Rename = Callable[[str], str | None]

QUANTIZED_SUFFIXES = (".scales", ".biases")


def read_weights(shards: Iterable[Shard], wish: Wish, rename: Rename, wanted: set[str], *, transpose: bool) -> Weights:
    """The tensors whose new name is wanted, as `stored.arrays` has them. `transpose`: torch convolutions to MLX's
    (O, H, W, I)."""

    def new_name(old: str) -> str:
        new = rename(old)
        return new if new is not None and (new in wanted or _quantized_owner(new) in wanted) else ""

    weights: Weights = {}
    for old, tensor in arrays(shards, wish, lambda old: bool(new_name(old))):
        weights[new_name(old)] = tensor.transpose(0, 2, 3, 1) if transpose and tensor.ndim == 4 else tensor
    return weights


def read_single_file(shards: Iterable[Shard], wish: Wish) -> Weights:
    """As `read_weights`, from Black Forest Labs' names: attention taken apart, the last modulation's halves swapped."""
    found: Weights = {}
    for old, tensor in arrays(shards, wish, lambda _: True):
        names = unfused(single_file_name(old) or old)
        whole = mx.roll(tensor, len(tensor) // 2, 0) if SWAPPED.fullmatch(names[0]) else tensor
        found.update(zip(names, mx.split(whole, len(names)), strict=True))
    return found


def _quantized_owner(name: str) -> str:
    return re.sub(r"\.(scales|biases)$", ".weight", name)


def parameters(module: nn.Module) -> Weights:
    """The parameters a checkpoint must supply, by name (rotary tables are computed)."""
    flat = tree_flatten(module.parameters(), destination={})
    assert isinstance(flat, dict)
    return {name: value for name, value in flat.items() if not name.endswith("inv_freq")}


def apply_weights(module: nn.Module, weights: Weights, component: str, dtype: mx.Dtype) -> None:
    """Put every tensor in its place in `dtype`. Raises ModelUnsupported when one is missing or has another shape."""
    _check_fit(component, {name: value.shape for name, value in parameters(module).items()}, weights)
    module.load_weights([(name, _cast(value, dtype)) for name, value in weights.items()], strict=False)


def _check_fit(component: str, expected: dict[str, tuple[int, ...]], weights: Weights) -> None:
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
