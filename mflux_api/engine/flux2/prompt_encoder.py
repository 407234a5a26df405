"""Encode prompts to embeddings and cache them across requests."""

from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TypeAlias

import mlx.core as mx
import numpy as np

from mflux_api.engine.flux2.chat_templates import ChatTemplate
from mflux_api.engine.flux2.networks import Encoder
from mflux_api.engine.memory import release_unused
from mflux_api.engine.precision import use_dtype

Spans: TypeAlias = tuple[tuple[int, int, float], ...]


class EmbeddingCache:
    """LRU cache of prompt embeddings. `limit`: size in bytes, 0 to cache none."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.size = 0
        self.hits = 0
        self._entries: OrderedDict[str, mx.array] = OrderedDict()

    def get(self, prompt: str) -> mx.array | None:
        embedding = self._entries.get(prompt)
        if embedding is not None:
            self._entries.move_to_end(prompt)
            self.hits += 1
        return embedding

    def __contains__(self, prompt: str) -> bool:
        return prompt in self._entries

    def put(self, prompt: str, embedding: mx.array) -> None:
        if embedding.nbytes > self.limit or prompt in self._entries:
            return
        self._entries[prompt] = embedding
        self.size += embedding.nbytes
        while self.size > self.limit:
            self.size -= self._entries.popitem(last=False)[1].nbytes


class PromptEncoder:
    """Encodes prompts. Loads the text encoder when it is first needed and unloads it on request."""

    def __init__(
        self,
        chat_template: ChatTemplate,
        load_encoder: Callable[[], Encoder],
        dtype: mx.Dtype,
        cache: EmbeddingCache,
    ) -> None:
        self.chat_template = chat_template
        self.load_encoder = load_encoder
        self.dtype = dtype
        self.cache = cache
        self.encoder: Encoder | None = None

    def encode(self, prompt: str, spans: Spans = ()) -> mx.array:
        """Return the prompt's embedding, (1, text_length, states * hidden) in the model's dtype.

        `spans`: (start, end, weight) in characters. The embeddings of tokens in a span are multiplied by its weight.
        Evaluated if there are no `spans`.
        """
        embedding = self.cache.get(prompt)
        if embedding is None:
            embedding = self.compute_embedding(prompt)
            self.cache.put(prompt, embedding)
        return embedding * self.make_token_weights(prompt, spans) if spans else embedding

    def make_token_weights(self, prompt: str, spans: Spans) -> mx.array:
        """Return the factor of each token's embedding, (1, text_length, 1) in the model's dtype.

        Source: SD-WebUI's weights of CLIP tokens, without its renormalisation. See docs/performance.md for the effect.
        """
        places = self.chat_template.tokenize(prompt)["offset_mapping"]
        factors = np.ones(len(places), np.float32)
        for start, end, weight in self._shift_spans(prompt, spans):
            for token, (left, right) in enumerate(places):
                if left < end and right > start:
                    factors[token] = weight
        return mx.array(factors)[None, :, None].astype(self.dtype)

    def compute_embedding(self, prompt: str) -> mx.array:
        """Compute the embedding without the cache, evaluated."""
        encoder = self.get_encoder()
        with use_dtype(self.dtype):
            embedding = encoder(*self.tokenize(prompt)).astype(self.dtype)
        mx.eval(embedding)
        return embedding

    def tokenize(self, prompt: str) -> tuple[mx.array, mx.array]:
        """Return token ids and mask, int32 (1, text_length) each, in the chat template, truncated and padded."""
        read = self.chat_template.tokenize(prompt)
        return mx.array([read["input_ids"]]), mx.array([read["attention_mask"]])

    def has_cached(self, prompts: Iterable[str]) -> bool:
        """Whether all prompts are cached, so that the text encoder is not needed."""
        return all(prompt in self.cache for prompt in prompts)

    def _shift_spans(self, prompt: str, spans: Spans) -> Spans:
        """Shift the spans to positions in the rendered prompt. Returns none if the template changes the prompt."""
        first, kept = self.chat_template.find_prompt_start(prompt), self.chat_template.clean_prompt
        if first is None:
            return ()
        return tuple((first + len(kept(prompt[:a])), first + len(kept(prompt[:b])), weight) for a, b, weight in spans)

    def get_encoder(self) -> Encoder:
        """Return the text encoder. Loads it if it is not in memory."""
        if self.encoder is None:
            self.encoder = self.load_encoder()
        return self.encoder

    def release(self) -> None:
        """Unload the text encoder. The next prompt that is not cached loads it again."""
        self.encoder = None
        release_unused()
