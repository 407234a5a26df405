"""Tokenize prompts for a text encoder: chat template, special tokens, padding."""

import json
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any

from transformers import AutoTokenizer

from mflux_api.checkpoints.safetensors import read_json_if_present
from mflux_api.errors import ModelCorrupt, ModelIncomplete

# Keep the line break after "object". It is in Black Forest Labs' and diffusers' system_messages.py, and is a token.
SYSTEM_MESSAGE = (
    "You are an AI that reasons about image descriptions. You give structured responses focusing on object "
    "relationships, object\nattribution and actions without speculation."
)
IMAGE_TOKEN = "[IMG]"
SENTINEL = "\x00"


def load_tokenizer(folder: Path) -> Any:
    """Load the checkpoint's own tokenizer. Raises ModelIncomplete or ModelCorrupt."""
    if not folder.is_dir():
        raise ModelIncomplete(f"{folder} is missing. Download the model again.", path=str(folder))
    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    except (OSError, ValueError, KeyError) as error:
        raise ModelCorrupt(f"The tokenizer in {folder} cannot be read: {error}", path=str(folder)) from error
    # Processors of transformers 4 store the template in a separate file.
    tokenizer.chat_template = tokenizer.chat_template or _read_processor_template(folder)
    if not tokenizer.chat_template:
        raise ModelIncomplete(f"{folder} has no chat template. Download the model again.", path=str(folder))
    return tokenizer


def _read_processor_template(folder: Path) -> str | None:
    template = read_json_if_present(folder / "chat_template.json").get("chat_template")
    return template if isinstance(template, str) else None


class ChatTemplate(ABC):
    """Renders one prompt as a conversation and tokenizes it to `max_length` tokens."""

    def __init__(self, folder: Path, length: int) -> None:
        self.tokenizer = load_tokenizer(folder)
        self.max_length = length

    @abstractmethod
    def render(self, prompt: str) -> str:
        """Return the prompt in the chat template."""

    def make_message(self, role: str, text: str) -> dict[str, Any]:
        """Make a message for the chat template. `role`: "system" or "user"."""
        return {"role": role, "content": text}

    def tokenize(self, prompt: str) -> dict[str, list[Any]]:
        """Tokenize the rendered prompt, truncated and padded to `max_length`.

        Returns `input_ids`, `attention_mask` and `offset_mapping`.
        """
        text = self.render(prompt)
        found: dict[str, list[Any]] = self.tokenizer(
            text,
            padding="max_length",
            truncation=True,
            max_length=self.max_length,
            return_offsets_mapping=True,
            **self._get_tokenizer_options(text),
        )
        return found

    def tokenize_instruction(self, instruction: str, prompt: str) -> list[int]:
        """Return token ids that ask the text encoder, as a language model, to follow the instruction on the prompt."""
        text: str = self.tokenizer.apply_chat_template(
            [self.make_message("system", instruction), self.make_message("user", self.clean_prompt(prompt))],
            tokenize=False,
            add_generation_prompt=True,
            enable_thinking=False,
        )
        ids: list[int] = self.tokenizer(text, **self._get_tokenizer_options(text))["input_ids"]
        return ids

    def find_prompt_start(self, prompt: str) -> int | None:
        """Return the prompt's start in the rendered text, in characters; None if the template changes the prompt."""
        start = self.render(SENTINEL).find(SENTINEL)
        kept = self.clean_prompt(prompt)
        return start if start >= 0 and self.render(prompt).startswith(kept, start) else None

    def clean_prompt(self, prompt: str) -> str:
        """Return the prompt without the text that the template does not allow."""
        return prompt

    def _get_tokenizer_options(self, text: str) -> dict[str, Any]:
        return {}


class QwenChatTemplate(ChatTemplate):
    """Source: `_get_qwen3_prompt_embeds` of diffusers' Flux2KleinPipeline."""

    def render(self, prompt: str) -> str:
        text: str = self.tokenizer.apply_chat_template(
            [self.make_message("user", prompt)], tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        return text


class MistralChatTemplate(ChatTemplate):
    """Source: `format_input` and `_get_mistral_3_small_prompt_embeds` of diffusers' Flux2Pipeline."""

    def __init__(self, folder: Path, length: int) -> None:
        super().__init__(folder, length)
        self.padding_side = read_padding_side(folder) or "left"

    def render(self, prompt: str) -> str:
        messages = [self.make_message("system", SYSTEM_MESSAGE), self.make_message("user", self.clean_prompt(prompt))]
        text: str = self.tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=False)
        return text

    def make_message(self, role: str, text: str) -> dict[str, Any]:
        return {"role": role, "content": [{"type": "text", "text": text}]}

    def clean_prompt(self, prompt: str) -> str:
        return prompt.replace(IMAGE_TOKEN, "")

    def _get_tokenizer_options(self, text: str) -> dict[str, Any]:
        # As in transformers' processors: add no special tokens if the template has written the first one already.
        first = self.tokenizer.bos_token
        return {"padding_side": self.padding_side, "add_special_tokens": not (first and text.startswith(first))}


def read_padding_side(folder: Path) -> str | None:
    """Read the padding side from the checkpoint's tokenizer files: "left", "right", or None if they do not give it.

    Do not ask the tokenizer object: it always has a side, which depends on the class that transformers has chosen and
    changes with its version.
    """
    side = read_json_if_present(folder / "tokenizer_config.json").get("padding_side") or _read_tokenizer_padding(folder)
    return str(side).lower() if side else None


def _read_tokenizer_padding(folder: Path) -> str | None:
    path = folder / "tokenizer.json"
    # The file is large, but the tokenizer has read it just before.
    padding = json.loads(path.read_text(encoding="utf-8")).get("padding") if path.is_file() else None
    return padding.get("direction") if isinstance(padding, dict) else None
