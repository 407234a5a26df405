"""SD-WebUI's styles: named texts around a prompt, kept in a styles.csv."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NONE = "None"
PLACEHOLDER = "{prompt}"


@dataclass(frozen=True)
class Style:
    """`{prompt}` in a text is where the prompt goes; without it the text is appended."""

    name: str
    prompt: str
    negative_prompt: str


def load_styles(path: Path | None) -> list[Style]:
    """The styles in SD-WebUI's file, the last of each name; none without a file. Raises OSError if it is unreadable.

    Columns: name, prompt (older files: text), negative_prompt. Left out: rows that are no CSV, have no name, or one
    that begins with `#`.
    """
    if path is None or not path.is_file():
        return []
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        found = {row["name"]: _parse_style(row) for row in _read_rows(csv.DictReader(file, skipinitialspace=True))}
    return list(found.values())


def _read_rows(reader: "csv.DictReader[str]") -> Iterator[dict[str | Any, str | Any]]:
    while True:
        try:
            row = next(reader)
        except csv.Error:
            continue
        except StopIteration:
            return
        if row.get("name") and not row["name"].startswith("#"):
            yield row


def _parse_style(row: dict[str | Any, str | Any]) -> Style:
    prompt = row["prompt"] if "prompt" in row else row.get("text")
    return Style(row["name"], prompt or "", row.get("negative_prompt") or "")


def apply_styles(prompt: str, negative: str, names: Sequence[str], styles: Sequence[Style]) -> tuple[str, str]:
    """Both prompts with the named styles, in the order of the names. Unknown ones and "None" change nothing.

    Each is applied once: a style that has `{prompt}` twice would double the text each time.
    """
    known = {style.name: style for style in styles if style.name != NONE}
    chosen = [known[name] for name in dict.fromkeys(names) if name in known]
    return (
        _apply_texts(prompt, [style.prompt for style in chosen]),
        _apply_texts(negative, [style.negative_prompt for style in chosen]),
    )


def _apply_texts(prompt: str, texts: Sequence[str]) -> str:
    prompt = prompt.strip()
    for text in (text.strip() for text in texts):
        prompt = (
            text.replace(PLACEHOLDER, prompt)
            if PLACEHOLDER in text
            else ", ".join(part for part in (prompt, text) if part)
        )
    return prompt
