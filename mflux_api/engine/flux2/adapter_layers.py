"""Layers with adapters: a layer of the transformer, unchanged, and the updates of its weight.

The updates are added while the layer runs, so that removing them restores the model exactly, quantized or not. Sources:
LyCORIS and PEFT for the formulas, ComfyUI for the strength of a DoRA, which is a way between the two weights.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import mlx.core as mx
from mlx import nn


class Delta(Protocol):
    """An update of a weight: a matrix (rows, columns)."""

    def multiply(self, x: mx.array) -> mx.array:
        """Return x times the transposed matrix, in x's dtype."""

    def build(self) -> mx.array:
        """Return the matrix in float32."""

    @property
    def shape(self) -> tuple[int, ...] | None:
        """The matrix's shape; None if its factors do not fit each other."""

    def describe(self) -> str:
        """Return the factors' shapes as the end of a sentence."""


@dataclass(frozen=True, eq=False)
class LowRank:
    """`up` (rows, rank) times `down` (rank, columns)."""

    down: mx.array
    up: mx.array

    def multiply(self, x: mx.array) -> mx.array:
        return (x @ self.down.astype(x.dtype).T) @ self.up.astype(x.dtype).T

    def build(self) -> mx.array:
        return self.up @ self.down

    @property
    def shape(self) -> tuple[int, ...] | None:
        fits = self.down.ndim == self.up.ndim == 2 and self.down.shape[0] == self.up.shape[1] > 0
        return (self.up.shape[0], self.down.shape[1]) if fits else None

    def describe(self) -> str:
        return f"the adapter's factors are {self.down.shape} and {self.up.shape}"


@dataclass(frozen=True, eq=False)
class Kronecker:
    """The Kronecker product of `outer` (a, b) and `inner` (c, d): a matrix (a * c, b * d)."""

    outer: mx.array
    inner: mx.array

    def multiply(self, x: mx.array) -> mx.array:
        groups = x.reshape(*x.shape[:-1], self.outer.shape[1], self.inner.shape[1])
        rows = mx.swapaxes(groups @ self.inner.astype(x.dtype).T, -1, -2) @ self.outer.astype(x.dtype).T
        return mx.swapaxes(rows, -1, -2).reshape(*x.shape[:-1], -1)

    def build(self) -> mx.array:
        return mx.kron(self.outer, self.inner)

    @property
    def shape(self) -> tuple[int, ...] | None:
        rows, columns = zip(self.outer.shape, self.inner.shape, strict=True)
        return (math.prod(rows), math.prod(columns)) if self.outer.ndim == 2 else None

    def describe(self) -> str:
        return f"the adapter's factors are {self.outer.shape} and {self.inner.shape}"


@dataclass(frozen=True, eq=False)
class Hadamard:
    """The elementwise product of two low-rank matrices. Built on every use: whole, it is as large as the weight."""

    first: LowRank
    second: LowRank

    def multiply(self, x: mx.array) -> mx.array:
        return x @ self.build().astype(x.dtype).T

    def build(self) -> mx.array:
        return self.first.build() * self.second.build()

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self.first.shape if self.first.shape == self.second.shape else None

    def describe(self) -> str:
        return f"of the adapter's two products, {self.first.describe()}, and {self.second.describe()}"


@dataclass(frozen=True, eq=False)
class Dense:
    """A whole matrix."""

    matrix: mx.array

    def multiply(self, x: mx.array) -> mx.array:
        return x @ self.matrix.astype(x.dtype).T

    def build(self) -> mx.array:
        return self.matrix

    @property
    def shape(self) -> tuple[int, ...] | None:
        return self.matrix.shape

    def describe(self) -> str:
        return f"the adapter's is {self.matrix.shape}"


@dataclass(eq=False)
class Update:
    """The update of one layer by one adapter.

    `use_index`: the adapter's place in the uses. `delta`: times `unit` it is added to the weight. `bias`: added to the
    output. `magnitude`: lengths of the rows (rows, 1) or columns (1, columns) that a DoRA gives the sum of weight and
    update. `strength`: 1 is the whole update. `factors`: magnitudes over the sum's own lengths.
    """

    use_index: int
    delta: Delta | None
    unit: float
    bias: mx.array | None
    magnitude: mx.array | None
    strength: float = 1.0
    factors: mx.array | None = None

    def list_arrays(self) -> list[mx.array]:
        """Return its arrays, to evaluate them."""
        parts = [self.delta.first, self.delta.second] if isinstance(self.delta, Hadamard) else [self.delta]
        values = [value for part in parts if part is not None for value in vars(part).values()]
        return [value for value in (*values, self.bias, self.magnitude) if value is not None]


class AdaptedLinear(nn.Module):
    """A linear layer with updates, applied in order. `original`: the layer itself."""

    def __init__(self, original: nn.Module, updates: Sequence[Update]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.original = original
        self._updates = _Updates(tuple(updates))

    def __call__(self, x: mx.array) -> mx.array:
        active = [update for update in self._updates.items if update.strength]
        return self._run(active, x)

    def _run(self, updates: Sequence[Update], x: mx.array) -> mx.array:
        if not updates:
            whole: mx.array = self.original(x)
            return whole
        *before, update = updates
        y = self._run(before, x)
        if update.magnitude is not None:
            change = self._run_dora(before, update, x, y)
        elif update.delta is not None:
            change = update.unit * update.delta.multiply(x)
        else:
            change = mx.zeros_like(y)
        if update.bias is not None:
            change = change + update.bias.astype(y.dtype)
        return y + update.strength * change

    def _run_dora(self, before: Sequence[Update], update: Update, x: mx.array, y: mx.array) -> mx.array:
        """Return the change of the output by a DoRA. Biases are no part of what it rescales."""
        assert update.factors is not None
        assert update.delta is not None
        factors, bias = update.factors.astype(x.dtype), self._sum_biases(before, y.dtype)
        if update.magnitude.shape[0] == 1:  # type: ignore[union-attr]
            scaled = x * factors[0]
            rescaled = self._run(before, scaled) - bias + update.unit * update.delta.multiply(scaled)
            return rescaled - (y - bias)
        merged = y - bias + update.unit * update.delta.multiply(x)
        return factors[:, 0] * merged - (y - bias)

    def _sum_biases(self, updates: Sequence[Update], dtype: mx.Dtype) -> mx.array:
        own = self.original.bias.astype(dtype) if "bias" in self.original else mx.array(0, dtype)
        for update in updates:
            if update.bias is not None:
                own = own + update.strength * update.bias.astype(dtype)
        return own

    def prepare(self) -> None:
        """Compute the DoRAs' factors for the present strengths."""
        if all(update.magnitude is None for update in self._updates.items):
            return
        weight = read_weight(self.original)
        for update in self._updates.items:
            if update.strength and update.delta is not None:
                merged = weight + update.unit * update.delta.build()
                if update.magnitude is not None:
                    axis = 0 if update.magnitude.shape[0] == 1 else 1
                    lengths = mx.linalg.norm(merged, axis=axis, keepdims=True)
                    update.factors = update.magnitude / mx.maximum(lengths, mx.finfo(mx.float32).eps)
                    merged = update.factors * merged
                    mx.eval(update.factors)
                weight = weight + update.strength * (merged - weight)


class AdaptedNorm(nn.Module):
    """A norm whose weight is changed by updates. `original`: the norm itself."""

    def __init__(self, original: nn.Module, updates: Sequence[Update]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.original = original
        self.changed = original
        self._updates = _Updates(tuple(updates))

    def __call__(self, x: mx.array) -> mx.array:
        normed: mx.array = self.changed(x)
        return normed

    def prepare(self) -> None:
        """Compute the weight for the present strengths."""
        weight = read_weight(self.original)
        active = [update for update in self._updates.items if update.strength]
        for update in active:
            assert update.delta is not None
            weight = weight + update.strength * update.unit * update.delta.build()
        self.changed = copy.copy(self.original)
        if active:
            self.changed.weight = weight.astype(self.original.weight.dtype)


@dataclass(frozen=True, eq=False)
class _Updates:
    """Updates as one object: a tuple would become a part of the module's parameters."""

    items: tuple[Update, ...]


def read_weight(layer: nn.Module) -> mx.array:
    """Return a layer's weight in float32, unpacked."""
    weight: mx.array = layer.weight
    if isinstance(layer, nn.QuantizedLinear):
        weight = mx.dequantize(
            weight, layer.scales, layer.biases, group_size=layer.group_size, bits=layer.bits, mode=layer.mode
        )
    return weight.astype(mx.float32)


def read_shape(layer: nn.Module) -> tuple[int, ...]:
    """Return the shape of a layer's weight: (rows, columns), or (values,) of a norm."""
    rows, *columns = layer.weight.shape
    packed = isinstance(layer, nn.QuantizedLinear)
    return (rows, *(each * 32 // layer.bits if packed else each for each in columns))
