"""A local filter of prompts: a list of words that a person may edit."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from mflux_api.models.registry import PROJECT_DIR

WORDS = PROJECT_DIR / "configs" / "moderation.yaml"


@dataclass(frozen=True)
class Moderation:
    """`words`: the highest tolerance, 0 to 6, at which each is still refused."""

    words: Mapping[str, int]

    @classmethod
    def load(cls, path: Path = WORDS) -> "Moderation":
        """Words by level. A missing file refuses nothing."""
        levels = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return cls({word.casefold(): int(level) for level, words in (levels or {}).items() for word in words or ()})

    def refuses(self, prompt: str, tolerance: int) -> bool:
        """Whether the prompt has a word, whole and in any case, that this tolerance does not bear."""
        found = re.findall(r"\w+", prompt.casefold())
        text = f" {' '.join(found)} "
        return any(level >= tolerance and f" {word} " in text for word, level in self.words.items())
