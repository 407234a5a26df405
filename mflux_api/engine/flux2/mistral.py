"""The text encoder of FLUX.2-dev: the first layers of Mistral Small 3's decoder and their hidden states.
Source: MistralModel of transformers, with its default attention (torch's SDPA).
"""

from typing import Any

import mlx.core as mx
import numpy as np
from mlx import nn
from numpy.typing import NDArray

from mflux_api.checkpoints.language_model import complete_decoder_config
from mflux_api.checkpoints.safetensors import Config
from mflux_api.errors import ModelUnsupported


def read_rope_theta(config: Config) -> float:
    """Read the base of the rotary embeddings. Raises ModelUnsupported for a type other than the default."""
    # transformers 5 writes rope_parameters, earlier versions write rope_theta and rope_scaling.
    rope: dict[str, Any] = config.get("rope_parameters") or config.get("rope_scaling") or {}
    kind = rope.get("rope_type") or rope.get("type") or "default"
    if kind != "default":
        raise ModelUnsupported(f"Rotary embeddings of the type {kind} are not supported.", rope_type=kind)
    return float(rope.get("rope_theta") or config.get("rope_theta") or 10_000.0)


EMBEDDING_STATE = 0
RotaryTables = tuple[mx.array, mx.array]


class KeyValueCache:
    """Keys and values of the previous tokens, each (1, heads, tokens, head_dim)."""

    def __init__(self) -> None:
        self.keys: mx.array | None = None
        self.values: mx.array | None = None

    def update_and_fetch(self, keys: mx.array, values: mx.array) -> tuple[mx.array, mx.array]:
        if self.keys is not None and self.values is not None:
            keys = mx.concatenate([self.keys, keys], axis=2)
            values = mx.concatenate([self.values, values], axis=2)
        self.keys, self.values = keys, values
        return keys, values


class Attention(nn.Module):
    """Causal grouped-query attention: several query heads share a key head."""

    def __init__(self, config: Config, head_dim: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width, self.head_dim = config["hidden_size"], head_dim
        queries, keys = config["num_attention_heads"], config["num_key_value_heads"] or config["num_attention_heads"]
        self.q_proj = nn.Linear(width, queries * head_dim, bias=False)
        self.k_proj = nn.Linear(width, keys * head_dim, bias=False)
        self.v_proj = nn.Linear(width, keys * head_dim, bias=False)
        self.o_proj = nn.Linear(queries * head_dim, width, bias=False)

    def __call__(
        self, hidden: mx.array, tables: RotaryTables, visible: mx.array, cache: KeyValueCache | None = None
    ) -> mx.array:
        """Map (1, L, hidden) to the same shape. Attends to the tokens in `cache`, too, and appends L tokens to it.

        `visible`: bool mask of the attention. A row that sees no token gives zeros, as in torch's SDPA.
        """
        q, k, v = (self._heads(project(hidden)) for project in (self.q_proj, self.k_proj, self.v_proj))
        q, k = _apply_rotary(q, tables), _apply_rotary(k, tables)
        if cache is not None:
            k, v = cache.update_and_fetch(k, v)
        found = mx.fast.scaled_dot_product_attention(q, k, v, scale=self.head_dim**-0.5, mask=visible)
        found = mx.where(visible.any(axis=-1, keepdims=True), found, mx.zeros_like(found))
        return self.o_proj(found.transpose(0, 2, 1, 3).reshape(1, hidden.shape[1], -1))

    def _heads(self, values: mx.array) -> mx.array:
        return values.reshape(1, values.shape[1], -1, self.head_dim).transpose(0, 2, 1, 3)


class FeedForward(nn.Module):
    """A SwiGLU feed-forward layer."""

    def __init__(self, config: Config) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        width, inner = config["hidden_size"], config["intermediate_size"]
        self.gate_proj = nn.Linear(width, inner, bias=False)
        self.up_proj = nn.Linear(width, inner, bias=False)
        self.down_proj = nn.Linear(inner, width, bias=False)

    def __call__(self, hidden: mx.array) -> mx.array:
        return self.down_proj(nn.silu(self.gate_proj(hidden)) * self.up_proj(hidden))


class DecoderLayer(nn.Module):
    def __init__(self, config: Config, head_dim: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.self_attn = Attention(config, head_dim)
        self.mlp = FeedForward(config)
        self.input_layernorm = nn.RMSNorm(config["hidden_size"], eps=config["rms_norm_eps"])
        self.post_attention_layernorm = nn.RMSNorm(config["hidden_size"], eps=config["rms_norm_eps"])

    def __call__(
        self, hidden: mx.array, tables: RotaryTables, visible: mx.array, cache: KeyValueCache | None = None
    ) -> mx.array:
        return self.apply_feed_forward(hidden + self.self_attn(self.input_layernorm(hidden), tables, visible, cache))

    def apply_feed_forward(self, hidden: mx.array) -> mx.array:
        """Apply the feed-forward part only. For rows that see no token this is the whole layer."""
        return hidden + self.mlp(self.post_attention_layernorm(hidden))


class MistralEncoder(nn.Module):
    """The decoder up to the last hidden state needed. Later layers are neither loaded nor computed."""

    def __init__(self, config: Config, states: tuple[int, ...]) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        config = complete_decoder_config(config)
        total = int(config["num_hidden_layers"])
        _check_config(config, states, total)
        head_dim = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
        self.embed_tokens = nn.Embedding(config["vocab_size"], config["hidden_size"])
        self.layers = [DecoderLayer(config, head_dim) for _ in range(max(states))]
        self.states = states
        # In transformers, only the last hidden state is normalised by the final norm.
        self.final_state = total
        if max(states) == total:
            self.norm = nn.RMSNorm(config["hidden_size"], eps=config["rms_norm_eps"])
        self.sliding_window = config["sliding_window"]
        self.frequencies = _make_rotary_frequencies(read_rope_theta(config), head_dim)

    def __call__(self, input_ids: mx.array, attention_mask: mx.array) -> mx.array:
        """Map token ids and mask, int32 (1, L) each, to stacked hidden states (1, L, states * hidden).

        Padding rows before the text see no token and are all equal, so only one of them is computed.
        """
        real = np.array(attention_mask[0]) == 1
        first = int(real.argmax()) if real.any() else len(real)
        parts = []
        if first:
            row = self._compute_states(input_ids[:, :1], None)
            parts.append(mx.repeat(row, first, axis=1))
        if first < len(real):
            parts.append(self._compute_states(input_ids[:, first:], real[first:], first))
        return mx.concatenate(parts, axis=1)

    def _compute_states(self, input_ids: mx.array, real: NDArray[np.bool_] | None, first: int = 0) -> mx.array:
        """Compute the hidden states of rows from position `first` on.

        `real`: False for padding, which no row sees. None: each row sees no token.
        """
        hidden = self.embed_tokens(input_ids)
        seen = (
            None
            if real is None
            else (self.make_rotary_tables(first, len(real), hidden.dtype), self._make_attention_mask(real))
        )
        states = {EMBEDDING_STATE: hidden}
        for number, layer in enumerate(self.layers, start=1):
            hidden = layer.apply_feed_forward(hidden) if seen is None else layer(hidden, *seen)
            # Evaluate layer by layer, so that no command buffer keeps a GPU busy for seconds.
            mx.eval(hidden)
            if number in self.states:
                states[number] = hidden
        if self.final_state in self.states:
            states[self.final_state] = self.norm(hidden)
        return mx.concatenate([states[number] for number in self.states], axis=-1)

    def make_rotary_tables(self, first: int, length: int, dtype: mx.Dtype) -> RotaryTables:
        """Return cosines and sines of the positions from `first` on, each (length, head_dim)."""
        angles = np.arange(first, first + length, dtype=np.float32)[:, None] * self.frequencies
        twice = np.concatenate([angles, angles], axis=-1).astype(np.float64)
        cosines, sines = (mx.array(table(twice).astype(np.float32)).astype(dtype) for table in (np.cos, np.sin))
        return cosines, sines

    def _make_attention_mask(self, real: NDArray[np.bool_]) -> mx.array:
        """Make the attention mask, bool (1, 1, L, L). A row sees itself and earlier real rows within the window."""
        places = np.arange(len(real))
        back = places[:, None] - places[None, :]
        near = back < (self.sliding_window or len(real))
        return mx.array(((back >= 0) & near & real[None, :])[None, None])


def _check_config(config: Config, states: tuple[int, ...], total: int) -> None:
    if not states or max(states) > total or min(states) < EMBEDDING_STATE:
        raise ModelUnsupported(
            f"Hidden states {list(states)} are asked of a text encoder with {total} layers.", layers=list(states)
        )
    if config.get("hidden_act", "silu") != "silu":
        raise ModelUnsupported(f"A text encoder with {config['hidden_act']} instead of silu is not supported.")


def _make_rotary_frequencies(theta: float, head: int) -> NDArray[np.float32]:
    """Return the radians per position, float32 (head / 2), rounded as torch rounds them."""
    powers = np.power(theta, (np.arange(0, head, 2, dtype=np.float32) / np.float32(head)).astype(np.float64))
    frequencies: NDArray[np.float32] = np.float32(1) / powers.astype(np.float32)
    return frequencies


def _apply_rotary(values: mx.array, tables: RotaryTables) -> mx.array:
    cosines, sines = tables
    left, right = mx.split(values, 2, axis=-1)
    return values * cosines + mx.concatenate([-right, left], axis=-1) * sines
