"""Prompts into hidden states, remembered across requests."""

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
    """Embeddings of the prompts last used, at most `limit` bytes of them. 0 keeps none."""

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
    """Encodes prompts; loads the text encoder when first needed and lets go of it on request."""

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
        """The prompt's embedding, (1, text_length, states * hidden) in the model's dtype, evaluated.

        `spans`: (start, end, weight) of letters whose tokens count more or less: their embeddings are multiplied.
        """
        embedding = self.cache.get(prompt)
        if embedding is None:
            embedding = self.compute_embedding(prompt)
            self.cache.put(prompt, embedding)
        return embedding * self.make_token_weights(prompt, spans) if spans else embedding

    def make_token_weights(self, prompt: str, spans: Spans) -> mx.array:
        """What each token's embedding is multiplied with: (1, text_length, 1) in the model's dtype.

        As SD-WebUI weights CLIP's tokens, without its renormalisation; docs/performance.md has what it does here.
        """
        places = self.chat_template.tokenize(prompt)["offset_mapping"]
        factors = np.ones(len(places), np.float32)
        for start, end, weight in self._shift_spans(prompt, spans):
            for token, (left, right) in enumerate(places):
                if left < end and right > start:
                    factors[token] = weight
        return mx.array(factors)[None, :, None].astype(self.dtype)

    def compute_embedding(self, prompt: str) -> mx.array:
        """The embedding as `encode` returns it, whether it is remembered or not."""
        encoder = self.get_encoder()
        with use_dtype(self.dtype):
            embedding = encoder(*self.tokenize(prompt)).astype(self.dtype)
        mx.eval(embedding)
        return embedding

    def tokenize(self, prompt: str) -> tuple[mx.array, mx.array]:
        """Token ids and mask, int32 (1, text_length), in the chat template, cut and padded."""
        read = self.chat_template.tokenize(prompt)
        return mx.array([read["input_ids"]]), mx.array([read["attention_mask"]])

    def has_cached(self, prompts: Iterable[str]) -> bool:
        """Whether all of them are remembered, so that no text encoder is needed."""
        return all(prompt in self.cache for prompt in prompts)

    def _shift_spans(self, prompt: str, spans: Spans) -> Spans:
        """The spans in what is rendered of the prompt; none where the template changes it."""
        first, kept = self.chat_template.find_prompt_start(prompt), self.chat_template.clean_prompt
        if first is None:
            return ()
        return tuple((first + len(kept(prompt[:a])), first + len(kept(prompt[:b])), weight) for a, b, weight in spans)

    def get_encoder(self) -> Encoder:
        """The text encoder, loaded now if it is not in memory."""
        if self.encoder is None:
            self.encoder = self.load_encoder()
        return self.encoder

    def release(self) -> None:
        """Give the text encoder's memory back; the next prompt that is not remembered loads it again."""
        self.encoder = None
        release_unused()
