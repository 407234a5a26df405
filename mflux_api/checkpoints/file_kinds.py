"""Recognise files that are not what their name says, as they come from interrupted or wrong downloads."""

import logging
import re
from pathlib import Path

logger = logging.getLogger(__name__)
_reported_links: set[Path] = set()

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
    Links to nothing are skipped, and logged once.
    """
    found = sorted(path for path in folder.glob(pattern) if not path.name.startswith("."))
    return [path for path in found if not is_broken_link(path)]


def list_files(folder: Path, pattern: str = "*") -> list[Path]:
    """Return the files among `list_visible`."""
    return [path for path in list_visible(folder, pattern) if path.is_file()]


def is_broken_link(path: Path) -> bool:
    """Return whether a path is a link to nothing, or in a circle. Logs each such link once."""
    if not path.is_symlink() or path.exists():
        return False
    if path not in _reported_links:
        _reported_links.add(path)
        logger.warning("%s is skipped: it is a link to %s, which is not there.", path, _read_link(path))
    return True


def _read_link(path: Path) -> str:
    try:
        return str(path.readlink())
    except OSError:
        return "nothing"
