"""Upsample a prompt: rewrite it in more detail with the model's own text encoder (`prompt_upsampling`).

Source of the generation: greedy search of transformers' `generate` on Qwen3ForCausalLM and
Mistral3ForConditionalGeneration.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from mflux_api.checkpoints.language_model import MAX_INPUT_TOKENS, MAX_NEW_TOKENS
from mflux_api.checkpoints.safetensors import read_json_if_present
from mflux_api.engine.flux2.chat_templates import ChatTemplate
from mflux_api.engine.flux2.mistral import KeyValueCache, MistralEncoder
from mflux_api.engine.flux2.networks import Encoder, LanguageModelTail, Qwen3Encoder, make_causal_mask
from mflux_api.engine.precision import use_dtype
from mflux_api.ipc.messages import UpsamplingProgress


class Decoder(Protocol):
    """Applies all layers to the next tokens and caches their keys and values. Maps (1, L, hidden) to the same shape."""

    def __call__(self, hidden: mx.array) -> mx.array: ...


class QwenDecoder:
    """mflux's Qwen3 layers with a cache of `length` tokens."""

    def __init__(self, encoder: Qwen3Encoder, layers: Sequence[Any], length: int) -> None:
        self.encoder = encoder
        self.layers = layers
        self.length = length
        self.position = 0
        self.caches: list[Any] = [None] * len(layers)

    def __call__(self, hidden: mx.array) -> mx.array:
        count = hidden.shape[1]
        rotary = self.encoder.rotary_emb(hidden, mx.arange(self.position, self.position + count)[None])
        # Several tokens come only in the first call, when the cache is empty, so they need a causal mask alone.
        mask = make_causal_mask(mx.ones((1, count)), hidden.dtype) if count > 1 else None
        for number, layer in enumerate(self.layers):
            hidden, self.caches[number] = layer(
                hidden, mask, rotary, past_key_value=self.caches[number], max_cache_length=self.length
            )
            _evaluate_prefill(hidden, count)
        self.position += count
        return hidden


class MistralDecoder:
    """The Mistral layers of this package, with their sliding attention window."""

    def __init__(self, encoder: MistralEncoder, layers: Sequence[Any]) -> None:
        self.encoder = encoder
        self.layers = layers
        self.position = 0
        self.caches = [KeyValueCache() for _ in layers]

    def __call__(self, hidden: mx.array) -> mx.array:
        count = hidden.shape[1]
        end = self.position + count
        tables = self.encoder.make_rotary_tables(self.position, count, hidden.dtype)
        back = np.arange(self.position, end)[:, None] - np.arange(end)[None, :]
        visible = mx.array(((back >= 0) & (back < (self.encoder.sliding_window or end)))[None, None])
        for layer, cache in zip(self.layers, self.caches, strict=True):
            hidden = layer(hidden, tables, visible, cache)
            _evaluate_prefill(hidden, count)
        self.position = end
        return hidden


def _evaluate_prefill(hidden: mx.array, count: int) -> None:
    # Evaluate layer by layer, so that no command buffer keeps a GPU busy for seconds. A single token is fast enough.
    if count > 1:
        mx.eval(hidden)


class TextGenerator:
    """A complete language model: the encoder's layers and the `tail`. Computes in `dtype`."""

    def __init__(self, encoder: Encoder, tail: LanguageModelTail, dtype: mx.Dtype) -> None:
        self.encoder = encoder
        self.tail = tail
        self.dtype = dtype

    def generate_tokens(self, ids: Sequence[int], stop_tokens: Collection[int], limit: int) -> Iterator[int]:
        """Yield at most `limit` tokens that follow `ids`. Ends before the first of `stop_tokens`."""
        decoder = self.make_decoder(len(ids) + limit)
        token = self.predict_next(decoder, ids)
        for _ in range(limit):
            if token in stop_tokens:
                return
            yield token
            token = self.predict_next(decoder, [token])

    def make_decoder(self, length: int) -> Decoder:
        """Make a decoder with an empty cache for at most `length` tokens."""
        layers = [*self.encoder.layers, *self.tail.layers]
        if isinstance(self.encoder, MistralEncoder):
            return MistralDecoder(self.encoder, layers)
        return QwenDecoder(self.encoder, layers, length)

    def predict_next(self, decoder: Decoder, ids: Sequence[int]) -> int:
        """Return the most likely next token. `ids` follow the tokens in the decoder's cache."""
        with use_dtype(self.dtype):
            hidden = decoder(self.encoder.embed_tokens(mx.array([ids])))
            last = self.tail.norm(hidden[:, -1])
            head = self.tail.lm_head if "lm_head" in self.tail else self.encoder.embed_tokens.as_linear
            return int(mx.argmax(head(last)[0]))


INSTRUCTION = (
    "You rewrite prompts for an image generator. Turn the user's prompt into one paragraph of 40 to 120 words that "
    "describes a single picture: first the subject and what it does, then the surroundings, the light, the colours, "
    "the composition, and the medium or style. Keep every fact of the prompt. Keep words in quotation marks exactly as "
    "they are, with their quotation marks. Add only what fits. Write in the language of the prompt. Answer with the "
    "paragraph and nothing else."
)
# For an edit, the prompt must not describe the whole picture again.
EDIT_INSTRUCTION = (
    "You rewrite instructions for an image editor. The user says how pictures are to be changed; you do not see them. "
    "Say the same in one to three clear sentences: what changes, how it looks then, and that all else stays as it is. "
    "Keep every fact, and words in quotation marks exactly as they are. Invent nothing that is in the pictures. Write "
    "in the language of the user. Answer with these sentences and nothing else."
)
# Number of tokens between two progress events.
TOKENS_PER_EVENT = 8
THOUGHTS = ("<think>", "</think>")
QUOTES = "\"'“”„«»"


def upsample_prompt(
    generator: TextGenerator, chat_template: ChatTemplate, folder: Path, prompt: str, *, edit: bool
) -> Generator[UpsamplingProgress, None, str]:
    """Yield progress and return the new prompt.

    Returns the old prompt if the answer is empty or the prompt is too long already. `folder`: the text encoder's
    folder. The result is deterministic: each token is the most likely one.
    """
    ids = chat_template.tokenize_instruction(EDIT_INSTRUCTION if edit else INSTRUCTION, prompt)
    if len(ids) > MAX_INPUT_TOKENS:
        return prompt
    yield UpsamplingProgress(tokens=0)
    found: list[int] = []
    for token in generator.generate_tokens(ids, read_stop_tokens(chat_template, folder), MAX_NEW_TOKENS):
        found.append(token)
        if len(found) % TOKENS_PER_EVENT == 0:
            yield UpsamplingProgress(tokens=len(found))
    text = str(chat_template.tokenizer.decode(strip_thoughts(found, chat_template), skip_special_tokens=True))
    return tidy_answer(text, whole=len(found) < MAX_NEW_TOKENS) or prompt


def read_stop_tokens(chat_template: ChatTemplate, folder: Path) -> frozenset[int]:
    """Return the tokens that end an answer: the tokenizer's and those of generation_config.json."""
    named = read_json_if_present(folder / "generation_config.json").get("eos_token_id")
    listed = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in [*listed, chat_template.tokenizer.eos_token_id] if token is not None)


def strip_thoughts(ids: list[int], chat_template: ChatTemplate) -> list[int]:
    """Remove thoughts. The chat template disables them, but a model may write them anyway."""
    begin, end = (chat_template.tokenizer.convert_tokens_to_ids(mark) for mark in THOUGHTS)
    if end in ids:
        return ids[len(ids) - ids[::-1].index(end) :]
    return ids[: ids.index(begin)] if begin in ids else ids


def tidy_answer(text: str, *, whole: bool) -> str:
    """Convert an answer to a prompt: one line, without quotation marks around it.

    `whole`: the answer is complete; if not, it is cut after its last sentence.
    """
    words = " ".join(text.split())
    if not whole:
        # The last character may be incomplete, too.
        words = words[: words.rindex(".") + 1] if "." in words else words.rstrip("\ufffd")
    if len(words) > 1 and words[0] in QUOTES and words[-1] in QUOTES and not _has_quotes(words[1:-1]):
        words = words[1:-1].strip()
    return words


def _has_quotes(words: str) -> bool:
    """Whether there are quotation marks inside. Those at the ends may then belong to two different quotations."""
    return any(mark in words for mark in QUOTES if mark != "'")
