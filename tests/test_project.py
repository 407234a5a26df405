"""The project's own promises: locks, documents, sizes, and the two commands a newcomer types."""

import ast
import re
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

import mflux_api

ROOT = Path(__file__).parent.parent
LOCKS = ("requirements.lock", "requirements-dev.lock")
EVERY_LOCK = sorted([*ROOT.glob("requirements*.lock"), *ROOT.glob("tools/*/requirements*.lock")])
LONGEST_FILE, LONGEST_FUNCTION = 450, 60
ADDRESS = re.compile(r"https?://|\b[\w-]+\.(?:org|com|io|net)\b")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEV = PROJECT["dependency-groups"]["dev"]
DIRECT = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["cpu"]]
PACKAGE = sorted((ROOT / "mflux_api").rglob("*.py"))
# The architecture's document names files of a room by their stems.
DOCUMENTS = [ROOT / "README.md", *sorted({*(ROOT / "docs").rglob("*.md")} - {ROOT / "docs" / "architecture.md"})]
# From the project's root, or from the package's: jobs/service.py.
SOURCE = re.compile(r"(?<![\w./-])(?:\w+/)+\w+\.(?:py|js)\b")
GUARD = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def name_of(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement, maxsplit=1)[0].lower()


def pins(lock: str) -> dict[str, str]:
    """Package -> the rest of its line in the lock: version and marker. Several versions keep the last."""
    found = re.findall(r"^([\w-]+)==(.+?) *\\?$", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return dict(found)


def hashes(lock: str, package: str) -> int:
    entry = re.search(rf"^{package}==.*(?:\n    .*)*", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return entry.group().count("--hash=sha256:") if entry else 0


def test_the_version_is_the_same_everywhere() -> None:
    assert mflux_api.__version__ == PROJECT["project"]["version"]
    assert f"## {mflux_api.__version__}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("path", EVERY_LOCK, ids=lambda path: str(path.relative_to(ROOT)))
def test_a_lock_holds_no_address(path: Path) -> None:
    assert not ADDRESS.findall(path.read_text())


@pytest.mark.parametrize("lock", LOCKS)
def test_every_package_in_a_lock_has_a_hash(lock: str) -> None:
    assert [package for package in pins(lock) if not hashes(lock, package)] == []


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_brings_metal_to_macos_and_the_cpu_backend_to_linux(lock: str) -> None:
    found = pins(lock)
    version = found["mlx"]
    assert found["mlx-metal"] == f"{version} ; sys_platform == 'darwin'"
    assert found["mlx-cpu"] == f"{version} ; sys_platform == 'linux'"
    # One wheel for each of macOS 14, 15 and 26; for Linux on x86-64 and arm64.
    assert hashes(lock, "mlx-metal") >= 3
    assert hashes(lock, "mlx-cpu") >= 2
    assert hashes(lock, "mlx") >= 4 * (3 + 2)


@pytest.mark.parametrize("lock", LOCKS)
def test_a_lock_leaves_torch_and_cuda_out(lock: str) -> None:
    assert not [package for package in pins(lock) if package == "torch" or "cuda" in package]


def test_every_direct_dependency_is_locked() -> None:
    assert {name_of(entry) for entry in DIRECT} <= set(pins("requirements.lock"))
    assert {name_of(entry) for entry in DEV} <= set(pins("requirements-dev.lock"))


def test_the_development_lock_agrees_with_the_runtime_lock() -> None:
    runtime, dev = pins("requirements.lock"), pins("requirements-dev.lock")
    assert {package: dev.get(package) for package in runtime} == runtime


def test_every_direct_dependency_is_justified() -> None:
    reasons = (ROOT / "docs" / "dependencies.md").read_text()
    assert [name for name in map(name_of, [*DIRECT, *DEV]) if f"| `{name}` |" not in reasons] == []


def test_bare_make_lists_every_target() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    targets = {"run", "demo", "quick", "test", "crash", "check", "lint", "format", "bench", "lock", "clean"}
    assert {target for target in targets if f"make {target} " not in shown} == set()


@pytest.mark.parametrize("command", ["make run", "make demo", "make test"])
def test_the_readme_names_the_newcomers_commands(command: str) -> None:
    assert command in (ROOT / "README.md").read_text()


def test_the_readme_names_every_folder() -> None:
    readme = (ROOT / "README.md").read_text()
    tracked = ("mflux_api", "configs", "models", "output", "tests", "tools", "docs")
    assert [folder for folder in tracked if f"`{folder}/`" not in readme] == []


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_every_source_file_that_a_document_names_exists(document: Path) -> None:
    names = SOURCE.findall(document.read_text())
    assert [name for name in names if not any((base / name).is_file() for base in (ROOT, ROOT / "mflux_api"))] == []


def test_every_test_that_guards_a_trap_exists() -> None:
    guards = GUARD.findall((ROOT / "docs" / "traps.md").read_text())
    assert guards
    assert [f"{path}::{name}" for path, name in guards if not is_defined(ROOT / path, name)] == []


def test_every_trap_names_its_guard_or_says_why_there_is_none() -> None:
    traps = re.split(r"^\* ", (ROOT / "docs" / "traps.md").read_text(), flags=re.MULTILINE)[1:]
    assert [trap.splitlines()[0] for trap in traps if not (GUARD.search(trap) or "\n  No test: " in trap)] == []


def test_a_file_is_short() -> None:
    lengths = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in PACKAGE}
    assert {path: lines for path, lines in lengths.items() if lines > LONGEST_FILE} == {}


def test_a_function_is_short() -> None:
    found = [(path.relative_to(ROOT), name, lines) for path in PACKAGE for name, lines in functions(path)]
    assert [f"{path}, {name}: {lines} lines" for path, name, lines in found if lines > LONGEST_FUNCTION] == []


def functions(path: Path) -> Iterator[tuple[str, int]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node.name, (node.end_lineno or node.lineno) - node.lineno + 1


def is_defined(path: Path, name: str) -> bool:
    return path.is_file() and f"def {name}(" in path.read_text()
