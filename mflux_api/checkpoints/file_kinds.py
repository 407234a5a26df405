"""Recognise files that are not what their name says, as they come from interrupted or wrong downloads."""

import re
from pathlib import Path

LONGEST_PREFIX = 512
KINDS = (
    (
        re.compile(rb"version https://git-lfs"),
        "it is a Git LFS pointer; run `git lfs pull`, or download the file itself",
    ),
    (
        re.compile(rb"\s*<(!doctype html|html|head|\?xml)", re.IGNORECASE),
        "it is a web page (HTML), not the file itself",
    ),
    (re.compile(rb"\s*[{\[]\s*[\"}\]{]"), "it is a text (JSON)"),
    (re.compile(rb"\x00\x05\x16\x07"), "it is a companion file of macOS"),
    (re.compile(rb"PK\x03\x04|\x80\x02"), "it is a pickled or zipped file, which can run code"),
    (re.compile(rb"GGUF"), "it is a GGUF file"),
    (re.compile(rb"\x00{64}"), "it holds zeros, as a download that was not finished does"),
)


def describe_wrong_content(path: Path) -> str | None:
    """Return what a file that cannot be read holds instead, as the end of a sentence; None if it is not known."""
    try:
        with path.open("rb") as file:
            start = file.read(LONGEST_PREFIX)
    except OSError:
        return None
    if not start:
        return "it is empty"
    return next((text for pattern, text in KINDS if pattern.match(start)), None)


def list_visible(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the entries of a folder by name, none if there is no folder.

    Names that begin with a dot are skipped: macOS writes companion files (`._x`) beside every file on foreign disks.
    """
    return sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
