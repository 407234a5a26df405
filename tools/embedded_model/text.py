"""The tokenizer, trained on captions, and prompts as token ids, as diffusers' Flux2KleinPipeline makes them."""

import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from tokenizers import Regex, Tokenizer, normalizers, pre_tokenizers, trainers
from tokenizers.models import BPE
from torch import Tensor
from transformers import Qwen2Tokenizer
from transformers.models.qwen2.tokenization_qwen2 import PRETOKENIZE_REGEX

from captions import caption
from scenes import draw_lot

VOCABULARY = 1024
MAX_TOKENS = 48
TOKENIZER = "tokenizer"
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
CHAT_TEMPLATE = (
    "{%- for message in messages %}{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}"
    "{%- endfor %}{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}"
    "{%- if enable_thinking is defined and enable_thinking is false %}{{- '<think>\\n\\n</think>\\n\\n' }}{%- endif %}"
    "{%- endif %}"
)


def train_tokenizer(count: int = 40000, seed: int = 5) -> Qwen2Tokenizer:
    """A byte-level BPE in Qwen's form, its words those of the captions."""
    raw = Tokenizer(BPE())
    raw.normalizer = normalizers.NFC()
    split = pre_tokenizers.Split(Regex(PRETOKENIZE_REGEX), behavior="isolated", invert=False)
    raw.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    raw.train_from_iterator(_corpus(count, seed), trainer)
    with tempfile.TemporaryDirectory() as folder:
        vocab, merges = raw.model.save(folder)
        return _wrap(vocab, merges)


def load_tokenizer(work: Path) -> Qwen2Tokenizer:
    """The run's tokenizer, trained when first asked for."""
    folder = work / TOKENIZER
    if not folder.exists():
        train_tokenizer().save_pretrained(folder)
    return Qwen2Tokenizer.from_pretrained(folder)


def _wrap(vocab: str, merges: str) -> Qwen2Tokenizer:
    tokenizer = Qwen2Tokenizer.from_pretrained(
        str(vocab).rsplit("/", 1)[0],
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        additional_special_tokens=SPECIAL[1:],
        model_max_length=MAX_TOKENS,
        padding_side="right",
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def _corpus(count: int, seed: int) -> Iterator[str]:
    rng = np.random.default_rng(seed)
    for _ in range(count):
        yield caption(draw_lot(rng), rng)
    yield from ["user\n", "assistant\n", "\n\n"] * 500


def encode(tokenizer: Qwen2Tokenizer, prompts: Sequence[str]) -> tuple[Tensor, Tensor]:
    """Token ids and mask, in the chat template without thinking, padded to the full length."""
    texts = [
        tokenizer.apply_chat_template(
            [{"role": "user", "content": prompt}], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        for prompt in prompts
    ]
    made = tokenizer(texts, return_tensors="pt", padding="max_length", truncation=True, max_length=MAX_TOKENS)
    return made["input_ids"].to(torch.int64), made["attention_mask"]
