"""SD-WebUI's styles: named texts that are added to a prompt, read from a styles.csv."""

import csv
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

NONE = "None"
PLACEHOLDER = "{prompt}"


@dataclass(frozen=True)
class Style:
    """A style. `{prompt}` in a text is replaced by the prompt; without it the text is appended to the prompt."""

    name: str
    prompt: str
    negative_prompt: str


def load_styles(path: Path | None) -> list[Style]:
    """Load the styles of SD-WebUI's file; the last one of each name counts. Without a file there are none.

    Columns: name, prompt (older files: text), negative_prompt. Skips rows that are not CSV, that have no name, or whose
    name begins with `#`. Raises OSError if the file cannot be read.
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
    """Apply the named styles to both prompts, in the order of the names. Unknown names and "None" are ignored.

    Each style is applied once: a style that has `{prompt}` twice would double the text each time.
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
