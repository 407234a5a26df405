"""A local prompt filter with an editable list of words."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from mflux_api.resources import find_resource

WORDS = find_resource("configs/moderation.yaml")


@dataclass(frozen=True)
class Moderation:
    """A prompt filter. `words`: for each word, the highest tolerance (0 to 6) at which it is refused."""

    words: Mapping[str, int]

    @classmethod
    def load(cls, path: Path = WORDS) -> "Moderation":
        """Load a YAML file of words by level. Without the file nothing is refused."""
        levels = yaml.safe_load(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return cls({word.casefold(): int(level) for level, words in (levels or {}).items() for word in words or ()})

    def refuses(self, prompt: str, tolerance: int) -> bool:
        """Whether the prompt contains a whole word, in any case, that is refused at this tolerance."""
        found = re.findall(r"\w+", prompt.casefold())
        text = f" {' '.join(found)} "
        return any(level >= tolerance and f" {word} " in text for word, level in self.words.items())
