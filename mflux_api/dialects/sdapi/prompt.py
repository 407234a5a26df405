"""SD-WebUI's prompt syntax: LoRA tags and emphasis. Prompt editing is in prompt_editing.py.

Follows SD-WebUI's modules/extra_networks.py and modules/prompt_parser.py, in linear time and without recursion.
No text raises an error: invalid syntax is kept as text.
"""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby

TAG = re.compile(r"<(lora|lyco|hypernet):([^<>]+)>", re.I)
LORAS = {"lora", "lyco"}
# Characters beside a tag that are removed with it.
TAG_SEPARATORS = " \t\r\n,"

ATTENTION = re.compile(r"\\[()\[\]\\]|\\|[(\[]|:\s*([+-]?[.\d]+)\s*\)|[)\]]|[^\\()\[\]:]+|:")
ROUND_BRACKET_WEIGHT, SQUARE_BRACKET_WEIGHT = 1.1, 1 / 1.1
# Limits that keep weights finite: the depth of brackets that have an effect, and the largest weight.
DEEPEST, LARGEST = 64, 1000.0
BREAK, AND = re.compile(r"\bBREAK\b"), re.compile(r"\bAND\b")
PART_WEIGHT = re.compile(r"[-+]?(?:\d+\.?|\d*\.\d+)")


def extract_loras(text: str) -> tuple[str, tuple[tuple[str, float], ...]]:
    """Return the text without `<lora:name:weight>` tags, and (name, weight) of each tag.

    A weight that is missing or not a number is 1. Of two weights, the second one is the transformer's, as is `unet=`.
    `<lyco:...>` means the same, `<hypernet:...>` is dropped. Spaces and commas around a tag are reduced to one
    separator.
    """
    words, found, at = [], [], 0
    for tag in TAG.finditer(text):
        words.append(text[at : tag.start()])
        at = tag.end()
        name, _, rest = tag[2].partition(":")
        if tag[1].lower() in LORAS and name.strip():
            found.append((name.strip(), _parse_weights(rest)))
    return _join_pieces([*words, text[at:]]), tuple(found)


def list_networks(text: str) -> list[str]:
    """Return the names of all tags, in order."""
    return [name for tag in TAG.finditer(text) if (name := tag[2].partition(":")[0].strip())]


def _parse_weights(text: str) -> float:
    """Return the transformer's weight of `0.8`, `0.8:0.5` (text encoder, transformer), `te=0.8:unet=0.5`."""
    parts = [part.strip() for part in text.split(":")]
    named = [part.partition("=")[2] for part in parts if part.partition("=")[0].strip().lower() == "unet"]
    numbers = [part for part in parts if "=" not in part]
    return _parse_weight((named or numbers[1:2] or numbers[:1] or [""])[0])


def _parse_weight(text: str) -> float:
    try:
        number = float(text)
    except ValueError:
        return 1.0
    return number if math.isfinite(number) else 1.0


def _join_pieces(pieces: Sequence[str]) -> str:
    """Join the text around the tags, with one separator in place of each tag."""
    done, gap = [pieces[0].rstrip(TAG_SEPARATORS)], _trailing_gap(pieces[0])
    for piece in pieces[1:]:
        words = piece.lstrip(TAG_SEPARATORS)
        gap += piece[: len(piece) - len(words)]
        if words:
            done += [_separator(gap) if done[-1] else "", words.rstrip(TAG_SEPARATORS)]
            gap = _trailing_gap(words)
    return "".join(done) + (gap if len(pieces) == 1 or pieces[-1].strip(TAG_SEPARATORS) else "")


def _trailing_gap(text: str) -> str:
    return text[len(text.rstrip(TAG_SEPARATORS)) :]


def _separator(gap: str) -> str:
    blank = "\n" if "\n" in gap else " "
    return f",{blank}" if "," in gap else blank if gap else ""


def parse_prompt_attention(text: str) -> tuple[tuple[str, float], ...]:
    """Return (text, weight) pairs in order: `(a)` has 1.1, `[a]` 1 / 1.1, `(a:1.3)` 1.3. Nested weights multiply.

    A bracket after `\\` is text, and so is a closing bracket without an opening one. An opening bracket without a
    closing one reaches to the end. `BREAK` becomes a space. Adjacent pairs have different weights. An empty text gives
    ("", 1.0).
    """
    emphasis = AttentionParser()
    for token in ATTENTION.finditer(text):
        emphasis.feed(token[0], token[1])
    return emphasis.result()


@dataclass
class AttentionParser:
    """State of the emphasis parser. `open`: for each kind of bracket, the start of open ones, innermost last."""

    words: list[str] = field(default_factory=list)
    weights: list[float] = field(default_factory=list)
    open: dict[str, list[int]] = field(default_factory=lambda: {"(": [], "[": []})

    def feed(self, token: str, weight: str | None) -> None:
        if token.startswith("\\"):
            self._add(token[1:])
        elif token in self.open:
            self.open[token].append(len(self.words))
        elif token.endswith(")") and self.open["("]:
            self._close(
                "(", ROUND_BRACKET_WEIGHT if weight is None else max(-LARGEST, min(LARGEST, _parse_weight(weight)))
            )
        elif token == "]" and self.open["["]:
            self._close("[", SQUARE_BRACKET_WEIGHT)
        else:
            self._add(_replace_breaks(token))

    def _add(self, words: str) -> None:
        self.words.append(words)
        self.weights.append(1.0)

    def _close(self, opener: str, weight: float) -> None:
        start = self.open[opener].pop()
        if len(self.open[opener]) < DEEPEST:
            for at in range(start, len(self.words)):
                self.weights[at] *= weight

    def result(self) -> tuple[tuple[str, float], ...]:
        for opener, weight in (("(", ROUND_BRACKET_WEIGHT), ("[", SQUARE_BRACKET_WEIGHT)):
            while self.open[opener]:
                self._close(opener, weight)
        merged: list[tuple[list[str], float]] = []
        for words, weight in zip(self.words, self.weights, strict=True):
            if not merged or merged[-1][1] != weight:
                merged.append(([], weight))
            merged[-1][0].append(words)
        return tuple(("".join(words), weight) for words, weight in merged) or (("", 1.0),)


def _replace_breaks(words: str) -> str:
    first, *others = BREAK.split(words)
    return " ".join([first.rstrip(), *(part.strip() for part in others[:-1]), others[-1].lstrip()]) if others else first


def strip_emphasis(text: str) -> str:
    """Return the text of `parse_emphasis` without its weights."""
    return parse_emphasis(text)[0]


def parse_emphasis(text: str) -> tuple[str, tuple[tuple[int, int, float], ...]]:
    """Return the text without syntax, and (start, end, weight) of each part whose weight is not 1.

    Runs of spaces become one; line breaks stay. SD-WebUI's `a :1.2 AND b :0.8` becomes "a, b". Prompt editing must be
    resolved before, by `prompt_editing.parse_schedule`.
    """
    marked = [(letter, weight) for words, weight in parse_prompt_attention(_join_and_parts(text)) for letter in words]
    tidy = _normalise_blanks(marked)
    spans, at = [], 0
    for weight, run in groupby(tidy, key=lambda pair: pair[1]):
        start, at = at, at + sum(1 for _ in run)
        if weight != 1.0:
            spans.append((start, at, weight))
    return "".join(letter for letter, _ in tidy), tuple(spans)


def _normalise_blanks(marked: Sequence[tuple[str, float]]) -> list[tuple[str, float]]:
    """Reduce each run of whitespace to its line breaks, or to one space if it has none. Strip both ends."""
    tidy: list[tuple[str, float]] = []
    gap = ""
    for letter, weight in marked:
        if letter.isspace():
            gap += letter
            continue
        if gap and tidy:
            between = "\n" * gap.count("\n") or " "
            tidy += [(blank, weight if weight == tidy[-1][1] else 1.0) for blank in between]
        gap = ""
        tidy.append((letter, weight))
    return tidy


def _join_and_parts(text: str) -> str:
    """Join parts separated by AND with commas, without their weights.

    Text without AND is unchanged, so that "at 12:30" keeps its time.
    """
    parts = AND.split(text)
    if len(parts) == 1:
        return text
    return ", ".join(filter(None, map(_strip_part_weight, parts)))


def _strip_part_weight(part: str) -> str:
    words, colon, number = part.rpartition(":")
    return (words if colon and PART_WEIGHT.fullmatch(number.strip()) else part).strip(TAG_SEPARATORS)
