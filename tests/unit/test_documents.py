"""The documents: links and anchors, the languages of their blocks, and the length of the README."""

import re
import subprocess
from collections import Counter
from pathlib import Path
from statistics import mean

import pytest

from tests.support.markdown import list_anchors, list_links, list_sentences, make_slug, read_blocks
from tests.support.paths import EXAMPLE_DOCUMENTS, ROOT

# Every document of the project, as git knows them.
DOCUMENTS = [
    ROOT / name
    for name in subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "*.md"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    ).stdout.split()
]
README = ROOT / "README.md"
LONGEST_README, LONGEST_SENTENCES, WIDEST = 160, 17, 120
# What tests run, and what shows a reply or a file.
RUN, SHOWN = {"sh", "python", "javascript", "yaml"}, {"json", "text"}
# Blocks of commands that cannot run in a test, because they install, download or change the machine. A new one is
# counted here on purpose, so that no example is left out by accident.
CONSOLE = {"README.md": 1, "docs/install.md": 5, "docs/models.md": 1}


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


def is_broken(document: Path, link: str) -> bool:
    """Return whether a relative link leads to no file, or to no heading of it."""
    target, _, anchor = link.partition("#")
    file = (document.parent / target).resolve() if target else document
    return not file.exists() or bool(anchor and anchor not in list_anchors(file))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_every_link_leads_to_a_file_and_a_heading(document: Path) -> None:
    relative = [link for link in list_links(document) if not re.match(r"\w+:", link)]
    assert [link for link in relative if is_broken(document, link)] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_no_line_is_wider_than_120(document: Path) -> None:
    lines = enumerate(document.read_text(encoding="utf-8").splitlines(), 1)
    assert [number for number, line in lines if len(line) > WIDEST] == []


@pytest.mark.parametrize(
    ("heading", "slug"),
    [
        ("FLUX.2 [klein] on your Mac", "flux2-klein-on-your-mac"),
        ("`flux2-tiny`, 4 steps, float32, medians of 9", "flux2-tiny-4-steps-float32-medians-of-9"),
        ("With [a link](to.md)", "with-a-link"),
    ],
)
def test_an_anchor_is_what_github_makes_of_a_heading(heading: str, slug: str) -> None:
    assert make_slug(heading) == slug


@pytest.mark.parametrize("document", EXAMPLE_DOCUMENTS, ids=name_of)
def test_every_block_is_run_shown_or_counted(document: Path) -> None:
    languages = Counter(block.language for block in read_blocks(document))
    assert set(languages) <= RUN | SHOWN | {"console"}
    assert languages["console"] == CONSOLE.get(name_of(document), 0)


def test_the_index_leads_to_every_document() -> None:
    index = ROOT / "docs" / "index.md"
    linked = {(index.parent / link.partition("#")[0]).resolve() for link in list_links(index)}
    assert [name_of(document) for document in DOCUMENTS if document not in {*linked, index}] == []


def test_the_readme_is_short() -> None:
    assert len(README.read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_the_readme_has_short_sentences() -> None:
    lengths = [len(sentence.split()) for sentence in list_sentences(README)]
    assert len(lengths) > 30
    assert mean(lengths) <= LONGEST_SENTENCES
