"""A prompt put into more words by the model's own text encoder (`prompt_upsampling`).

Source of the generation: greedy search of transformers' `generate` on Qwen3ForCausalLM and
Mistral3ForConditionalGeneration.
"""

from collections.abc import Collection, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

import mlx.core as mx
import numpy as np

from mflux_api.checkpoints.language_model import LONGEST_ANSWER, LONGEST_QUESTION
from mflux_api.checkpoints.safetensors import read_json_if_present
from mflux_api.engine.flux2.chat_templates import Chat
from mflux_api.engine.flux2.mistral import MistralEncoder, Past
from mflux_api.engine.flux2.networks import Encoder, LanguageModelTail, TextEncoder, causal_mask
from mflux_api.engine.precision import computing_in
from mflux_api.ipc.messages import Writing


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
    """A whole language model: the encoder's layers and its `tail`, computing in `dtype`."""

    def __init__(self, encoder: Encoder, tail: LanguageModelTail, dtype: mx.Dtype) -> None:
        self.encoder = encoder
        self.tail = tail
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
        layers = [*self.encoder.layers, *self.tail.layers]
        if isinstance(self.encoder, MistralEncoder):
            return MistralDecoder(self.encoder, layers)
        return QwenDecoder(self.encoder, layers, length)

    def follow(self, decoder: Decoder, ids: Sequence[int]) -> int:
        """The likeliest token after these, which come after those that the decoder remembers."""
        with computing_in(self.dtype):
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
# Who changes a picture does not want it described anew.
EDIT_INSTRUCTION = (
    "You rewrite instructions for an image editor. The user says how pictures are to be changed; you do not see them. "
    "Say the same in one to three clear sentences: what changes, how it looks then, and that all else stays as it is. "
    "Keep every fact, and words in quotation marks exactly as they are. Invent nothing that is in the pictures. Write "
    "in the language of the user. Answer with these sentences and nothing else."
)
# A word is said of the work each time so many tokens are there.
TOKENS_EACH = 8
THOUGHTS = ("<think>", "</think>")
QUOTES = "\"'“”„«»"


def rewrite(writer: Writer, chat: Chat, folder: Path, prompt: str, *, edit: bool) -> Generator[Writing, None, str]:
    """Yields how far it is; returns the new prompt, or the old one where nothing came of it or it is long already.

    `folder`: the text encoder's. Always the same for the same prompt: each token is the likeliest.
    """
    ids = chat.asked(EDIT_INSTRUCTION if edit else INSTRUCTION, prompt)
    if len(ids) > LONGEST_QUESTION:
        return prompt
    yield Writing(tokens=0)
    found: list[int] = []
    for token in writer.write(ids, stops(chat, folder), LONGEST_ANSWER):
        found.append(token)
        if len(found) % TOKENS_EACH == 0:
            yield Writing(tokens=len(found))
    text = str(chat.tokenizer.decode(spoken(found, chat), skip_special_tokens=True))
    return tidied(text, whole=len(found) < LONGEST_ANSWER) or prompt


def stops(chat: Chat, folder: Path) -> frozenset[int]:
    """The tokens that end an answer: the tokenizer's, and those of generation_config.json."""
    named = read_json_if_present(folder / "generation_config.json").get("eos_token_id")
    listed = named if isinstance(named, list) else [named]
    return frozenset(int(token) for token in [*listed, chat.tokenizer.eos_token_id] if token is not None)


def spoken(ids: list[int], chat: Chat) -> list[int]:
    """Without thoughts, should there be any all the same."""
    begin, end = (chat.tokenizer.convert_tokens_to_ids(mark) for mark in THOUGHTS)
    if end in ids:
        return ids[len(ids) - ids[::-1].index(end) :]
    return ids[: ids.index(begin)] if begin in ids else ids


def tidied(text: str, *, whole: bool) -> str:
    """An answer as a prompt: one line without quotation marks around it; cut to whole sentences if not `whole`."""
    words = " ".join(text.split())
    if not whole:
        # The last letter may be half there, too.
        words = words[: words.rindex(".") + 1] if "." in words else words.rstrip("\ufffd")
    if len(words) > 1 and words[0] in QUOTES and words[-1] in QUOTES and not _quoted(words[1:-1]):
        words = words[1:-1].strip()
    return words


def _quoted(words: str) -> bool:
    """Whether there are more quotation marks: those at the ends may belong to two different quotations."""
    return any(mark in words for mark in QUOTES if mark != "'")
