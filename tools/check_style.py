"""Check what ruff cannot: lengths of files, functions and lines of Markdown, and functions named by a lone participle.

Part of `make lint`. Prints each offender as file:line and exits with 1 where there is one.
"""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

LONGEST_FILE, LONGEST_FUNCTION, WIDEST_MARKDOWN = 450, 60, 120
# A function is a verb. These irregular participles are no verbs; what ends in -ed is found by its ending.
PARTICIPLES = frozenset(
    {
        "begun",
        "bound",
        "broken",
        "brought",
        "built",
        "caught",
        "chosen",
        "done",
        "drawn",
        "driven",
        "fallen",
        "felt",
        "found",
        "given",
        "gone",
        "grown",
        "heard",
        "held",
        "hidden",
        "kept",
        "known",
        "laid",
        "left",
        "lent",
        "lost",
        "made",
        "meant",
        "met",
        "paid",
        "said",
        "seen",
        "sent",
        "shown",
        "spent",
        "spoken",
        "stood",
        "struck",
        "sworn",
        "taken",
        "taught",
        "thought",
        "thrown",
        "told",
        "torn",
        "understood",
        "won",
        "worn",
        "woven",
        "written",
    }
)
VERBS = frozenset({"embed", "exceed", "feed", "need", "proceed", "seed", "shed", "speed"})
# Pure helpers in the manner of sorted(): what they return is their argument, changed.
ALLOWED = frozenset({"cropped", "padded"})


def find_faults(root: Path) -> Iterator[str]:
    """Check the files that git tracks below a folder; yield "file:line: what is wrong"."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=root, capture_output=True, text=True, check=True).stdout
    for name in filter(None, listed.split("\0")):
        path = root / name
        if path.suffix == ".md" and path.is_file():
            yield from (f"{name}:{number}: over {WIDEST_MARKDOWN} wide" for number in _wide_lines(path))
        if path.suffix == ".py" and path.is_file() and not name.startswith("tests/clients/examples/"):
            yield from (f"{name}:{fault}" for fault in _python_faults(path, public=name.startswith("mflux_api/")))


def _wide_lines(path: Path) -> Iterator[int]:
    lines = path.read_text(encoding="utf-8").splitlines()
    return (number for number, line in enumerate(lines, 1) if len(line) > WIDEST_MARKDOWN)


def _python_faults(path: Path, *, public: bool) -> Iterator[str]:
    text = path.read_text(encoding="utf-8")
    lines = len(text.splitlines())
    if lines > LONGEST_FILE:
        yield f"1: {lines} lines, at most {LONGEST_FILE}"
    for node in ast.walk(ast.parse(text)):
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            continue
        length = (node.end_lineno or node.lineno) - node.lineno + 1
        if length > LONGEST_FUNCTION:
            yield f"{node.lineno}: {node.name} has {length} lines, at most {LONGEST_FUNCTION}"
        if public and _is_lone_participle(node):
            yield f"{node.lineno}: {node.name}: name what it does (a verb) or what it is (a noun)"


def _is_lone_participle(node: ast.FunctionDef | ast.AsyncFunctionDef) -> bool:
    name = node.name
    if name in VERBS | ALLOWED or not re.fullmatch(r"[a-z]+", name):
        return False
    return name in PARTICIPLES or name.endswith("ed")


if __name__ == "__main__":
    named = sys.argv[1:]
    faults = sorted(find_faults(Path(named[0]) if named else Path(__file__).parent.parent))
    print(*faults, sep="\n" if faults else "")
    sys.exit(bool(faults))
