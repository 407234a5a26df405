"""Read Markdown documents: fenced blocks, headings, links and sentences."""

import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FENCE = re.compile(r"^ *```(\w*)$")
HEADING = re.compile(r"^#{1,6} (.*)$")
LINK = re.compile(r"\[((?:[^\[\]]|\[[^\]]*\])*)\]\(([^()\s]+)\)")
REFERENCE = re.compile(r"^\[[^\]]+\]: (\S+)$", re.MULTILINE)
CODE_SPAN = re.compile(r"`[^`]*`")


@dataclass(frozen=True)
class Block:
    """A fenced block. `line`: number of its first line in the document, from 1."""

    language: str
    line: int
    text: str


def read_blocks(document: Path) -> list[Block]:
    """Return the fenced blocks of a document in their order."""
    blocks: list[Block] = []
    lines: list[str] = []
    opened: tuple[str, int] | None = None
    for number, line in enumerate(document.read_text(encoding="utf-8").splitlines(), 1):
        fence = FENCE.match(line)
        if fence is None:
            lines.append(line)
        elif opened is None:
            opened, lines = (fence[1], number + 1), []
        else:
            blocks.append(Block(*opened, "\n".join(lines) + "\n"))
            opened = None
    assert opened is None, f"{document} has a block that does not end"
    return blocks


def strip_blocks(text: str) -> str:
    """Remove the fenced blocks."""
    return re.sub(r"^ *```.*?^ *```$", "", text, flags=re.MULTILINE | re.DOTALL)


def list_anchors(document: Path) -> set[str]:
    """Return the anchors of a document's headings, by GitHub's rule."""
    seen: Counter[str] = Counter()
    anchors = set()
    for line in strip_blocks(document.read_text(encoding="utf-8")).splitlines():
        if heading := HEADING.match(line):
            slug = make_slug(heading[1])
            anchors.add(f"{slug}-{seen[slug]}" if seen[slug] else slug)
            seen[slug] += 1
    return anchors


def make_slug(heading: str) -> str:
    """Return GitHub's anchor of a heading: lower case, no punctuation, hyphens for spaces."""
    words = LINK.sub(r"\1", heading).strip().lower()
    return re.sub(r"[^\w\- ]", "", words).replace(" ", "-")


def list_links(document: Path) -> list[str]:
    """Return the targets of a document's links and pictures."""
    text = CODE_SPAN.sub("", strip_blocks(document.read_text(encoding="utf-8")))
    return [*(target for _, target in _iter_links(text)), *REFERENCE.findall(text)]


def _iter_links(text: str) -> Iterator[tuple[str, str]]:
    for name, target in LINK.findall(text):
        yield name, target
        yield from _iter_links(name)


def list_sentences(document: Path) -> list[str]:
    """Return the sentences of a document's text, without blocks, tables, headings and pictures.

    A link counts by its words, code by one word. A sentence ends at `.`, `!` or `?` before a space, and at the end
    of a paragraph or a list item.
    """
    text = strip_blocks(document.read_text(encoding="utf-8"))
    text = REFERENCE.sub("", re.sub(r"^(?:#|\||!\[).*$", "", text, flags=re.MULTILINE))
    text = LINK.sub(r"\1", CODE_SPAN.sub("code", text))
    paragraphs = re.split(r"\n\s*\n|^\s*(?:[*-]|\d+\.) ", text, flags=re.MULTILINE)
    sentences = (sentence for paragraph in paragraphs for sentence in re.split(r"(?<=[.!?])\s+", paragraph.strip()))
    return [" ".join(sentence.split()) for sentence in sentences if sentence]
