"""The text encoder as a language model: token after token, each the likeliest, keys and values of the others kept.

Source: greedy search of transformers' `generate` on Qwen3ForCausalLM and Mistral3ForConditionalGeneration.
"""

from collections.abc import Collection, Iterator, Sequence
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from mflux_api.engine.flux2.mistral import MistralEncoder, Past
from mflux_api.engine.flux2.modules import Encoder, Rest, TextEncoder, causal_mask
from mflux_api.engine.precision import computing_in


class Decoder(Protocol):
    """All layers over the next tokens: (1, L, hidden) -> the same. It remembers the tokens before."""

    def __call__(self, hidden: mx.array) -> mx.array: ...


class QwenDecoder:
    """mflux's layers, which keep room for `length` tokens."""

    def __init__(self, encoder: TextEncoder, layers: Sequence[Any], length: int) -> None:
        self.encoder = encoder
        self.layers = layers
        self.length = length
        self.place = 0
        self.past: list[Any] = [None] * len(layers)

    def __call__(self, hidden: mx.array) -> mx.array:
        count = hidden.shape[1]
        rotary = self.encoder.rotary_emb(hidden, mx.arange(self.place, self.place + count)[None])
        # Several at once come first only, and see none before them.
        mask = causal_mask(mx.ones((1, count)), hidden.dtype) if count > 1 else None
        for number, layer in enumerate(self.layers):
            hidden, self.past[number] = layer(
                hidden, mask, rotary, past_key_value=self.past[number], max_cache_length=self.length
            )
            _settle(hidden, count)
        self.place += count
        return hidden


class MistralDecoder:
    """Our own layers, within the window of tokens that they look back on."""

    def __init__(self, encoder: MistralEncoder, layers: Sequence[Any]) -> None:
        self.encoder = encoder
        self.layers = layers
        self.place = 0
        self.past = [Past() for _ in layers]

    def __call__(self, hidden: mx.array) -> mx.array:
        count = hidden.shape[1]
        end = self.place + count
        tables = self.encoder.tables(self.place, count, hidden.dtype)
        back = np.arange(self.place, end)[:, None] - np.arange(end)[None, :]
        visible = mx.array(((back >= 0) & (back < (self.encoder.window or end)))[None, None])
        for layer, past in zip(self.layers, self.past, strict=True):
            hidden = layer(hidden, tables, visible, past)
            _settle(hidden, count)
        self.place = end
        return hidden


def _settle(hidden: mx.array, count: int) -> None:
    # Layer by layer, so that no command buffer of a GPU runs for seconds; a single token is soon done.
    if count > 1:
        mx.eval(hidden)


class Writer:
    """A whole language model: the encoder's layers and the `rest`, computing in `dtype`."""

    def __init__(self, encoder: Encoder, rest: Rest, dtype: mx.Dtype) -> None:
        self.encoder = encoder
        self.rest = rest
        self.dtype = dtype

    def write(self, ids: Sequence[int], stops: Collection[int], limit: int) -> Iterator[int]:
        """The tokens that follow `ids`, up to one of `stops`, which is left out, and no more than `limit`."""
        decoder = self.decoder(len(ids) + limit)
        token = self.follow(decoder, ids)
        for _ in range(limit):
            if token in stops:
                return
            yield token
            token = self.follow(decoder, [token])

    def decoder(self, length: int) -> Decoder:
        """One that remembers `length` tokens at most, and none yet."""
        layers = [*self.encoder.layers, *self.rest.layers]
        if isinstance(self.encoder, MistralEncoder):
            return MistralDecoder(self.encoder, layers)
        return QwenDecoder(self.encoder, layers, length)

    def follow(self, decoder: Decoder, ids: Sequence[int]) -> int:
        """The likeliest token after these, which come after those that the decoder remembers."""
        with computing_in(self.dtype):
            hidden = decoder(self.encoder.embed_tokens(mx.array([ids])))
            last = self.rest.norm(hidden[:, -1])
            head = self.rest.lm_head if "lm_head" in self.rest else self.encoder.embed_tokens.as_linear
            return int(mx.argmax(head(last)[0]))
