"""Prompts into hidden states, remembered across requests."""

from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeAlias

import mlx.core as mx
import numpy as np
from transformers import AutoTokenizer

from mflux_api.engine.flux2.modules import TextEncoder
from mflux_api.engine.precision import computing_in
from mflux_api.errors import ModelCorrupt, ModelIncomplete

Spans: TypeAlias = tuple[tuple[int, int, float], ...]


def load_tokenizer(folder: Path) -> Any:
    """The checkpoint's own tokenizer. Raises ModelIncomplete or ModelCorrupt."""
    if not folder.is_dir():
        raise ModelIncomplete(f"{folder} is missing. Download the model again.", path=str(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelCorrupt(f"The tokenizer in {folder} cannot be read: {error}", path=str(folder)) from error
    if not tokenizer.chat_template:
        raise ModelIncomplete(f"{folder} has no chat template. Download the model again.", path=str(folder))
    return tokenizer


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

    def put(self, prompt: str, embedding: mx.array) -> None:
        if embedding.nbytes > self.limit or prompt in self._entries:
            return
        self._entries[prompt] = embedding
        self.size += embedding.nbytes
        while self.size > self.limit:
            self.size -= self._entries.popitem(last=False)[1].nbytes


class Conditioning:
    """Encodes prompts; loads the text encoder when first needed and lets go of it on request."""

    def __init__(
        self,
        tokenizer: Any,
        load_encoder: Callable[[], TextEncoder],
        text_length: int,
        dtype: mx.Dtype,
        cache: EmbeddingCache,
    ) -> None:
        self.tokenizer = tokenizer
        self.load_encoder = load_encoder
        self.text_length = text_length
        self.dtype = dtype
        self.cache = cache
        self.encoder: TextEncoder | None = None

    def encode(self, prompt: str, spans: Spans = ()) -> mx.array:
        """The prompt's embedding, (1, text_length, states * hidden) in the model's dtype, evaluated.

        `spans`: (start, end, weight) of letters whose tokens count more or less: their embeddings are multiplied.
        """
        embedding = self.cache.get(prompt)
        if embedding is None:
            embedding = self.compute(prompt)
            self.cache.put(prompt, embedding)
        return embedding * self.weights(prompt, spans) if spans else embedding

    def weights(self, prompt: str, spans: Spans) -> mx.array:
        """What each token's embedding is multiplied with: (1, text_length, 1) in the model's dtype.

        As SD-WebUI weights CLIP's tokens, without its renormalisation; docs/performance.md has what it does here.
        """
        text = self.render(prompt)
        first = text.find(prompt)
        places = self.tokenizer(
            text, padding="max_length", truncation=True, max_length=self.text_length, return_offsets_mapping=True
        )["offset_mapping"]
        factors = np.ones(len(places), np.float32)
        for start, end, weight in spans if first >= 0 else ():
            for token, (left, right) in enumerate(places):
                if left < first + end and right > first + start:
                    factors[token] = weight
        return mx.array(factors)[None, :, None].astype(self.dtype)

    def compute(self, prompt: str) -> mx.array:
        """The embedding as `encode` returns it, whether it is remembered or not."""
        encoder = self.load()
        with computing_in(self.dtype):
            embedding = encoder(*self.tokenize(prompt)).astype(self.dtype)
        mx.eval(embedding)
        return embedding

    def tokenize(self, prompt: str) -> tuple[mx.array, mx.array]:
        """Token ids and mask, int32 (1, text_length), in the chat template, cut and padded.

        Source: `_get_qwen3_prompt_embeds` of diffusers' Flux2KleinPipeline.
        """
        text = self.render(prompt)
        tokens = self.tokenizer(
            text, padding="max_length", truncation=True, max_length=self.text_length, return_tensors="np"
        )
        return mx.array(tokens["input_ids"]), mx.array(tokens["attention_mask"])

    def render(self, prompt: str) -> str:
        """The prompt in the chat template."""
        text: str = self.tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return text

    def load(self) -> TextEncoder:
        """The text encoder, loaded now if it is not in memory."""
        if self.encoder is None:
            self.encoder = self.load_encoder()
        return self.encoder

    def release(self) -> None:
        """Give the text encoder's memory back; the next prompt that is not remembered loads it again."""
        self.encoder = None
        mx.clear_cache()
