"""Checks of the project itself: locks, documents, sizes of files and functions, and the Makefile."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import mflux_api
from tests.support.paths import ROOT

LOCKS = ("requirements.lock", "requirements-dev.lock")
EVERY_LOCK = sorted([*ROOT.glob("requirements*.lock"), *ROOT.glob("tools/*/requirements*.lock")])
ADDRESS = re.compile(r"https?://|\b[\w-]+\.(?:org|com|io|net)\b")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
DEV = PROJECT["dependency-groups"]["dev"]
DIRECT = [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["cpu"]]
DOCUMENTS = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
# A path from the project's root or from the package's, such as jobs/service.py.
SOURCE = re.compile(r"(?<![\w./-])(?:\w+/)+\w+\.(?:py|js)\b")
GUARD = re.compile(r"`(tests/[\w/]+\.py)::(test_\w+)`")


def name_of(requirement: str) -> str:
    return re.split(r"[^\w-]", requirement, maxsplit=1)[0].lower()


def pins(lock: str) -> dict[str, str]:
    """Map each package to the rest of its line in the lock: version and marker. Of several versions, the last."""
    found = re.findall(r"^([\w-]+)==(.+?) *\\?$", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return dict(found)


def hashes(lock: str, package: str) -> int:
    entry = re.search(rf"^{package}==.*(?:\n    .*)*", (ROOT / lock).read_text(), flags=re.MULTILINE)
    return entry.group().count("--hash=sha256:") if entry else 0


def test_the_version_has_one_source_and_a_heading_in_the_changelog() -> None:
    assert PROJECT["project"]["dynamic"] == ["version"]
    assert PROJECT["tool"]["hatch"]["version"]["path"] == "mflux_api/version.py"
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
    targets = {"run", "demo", "test", "test-all", "crash", "check", "lint", "format", "bench", "lock", "clean"}
    assert {target for target in targets if f"make {target} " not in shown} == set()


@pytest.mark.parametrize("command", ["make run", "make demo", "make test"])
def test_the_readme_names_the_newcomers_commands(command: str) -> None:
    assert command in (ROOT / "README.md").read_text()


def test_the_architecture_names_every_folder() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    tracked = ("mflux_api", "configs", "models", "output", "tests", "tools", "docs")
    assert [folder for folder in tracked if f"`{folder}/`" not in text] == []


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


def test_the_style_check_finds_long_files_long_functions_wide_documents_and_lone_participles(tmp_path: Path) -> None:
    package = tmp_path / "mflux_api"
    package.mkdir()
    (package / "long.py").write_text("x = 1\n" * 451)
    (package / "named.py").write_text("def told():\n" + "    pass\n" * 60 + "def embed():\n    pass\n")
    (tmp_path / "wide.md").write_text("a" * 121 + "\n")
    subprocess.run("git init -q && git add .", shell=True, cwd=tmp_path, check=True)
    check = [sys.executable, "tools/check_style.py", str(tmp_path)]
    found = subprocess.run(check, cwd=ROOT, capture_output=True, text=True, check=False)
    assert found.stdout.splitlines() == [
        "mflux_api/long.py:1: 451 lines, at most 450",
        "mflux_api/named.py:1: told has 61 lines, at most 60",
        "mflux_api/named.py:1: told: name what it does (a verb) or what it is (a noun)",
        "wide.md:1: over 120 wide",
    ]
    assert found.returncode == 1


def is_defined(path: Path, name: str) -> bool:
    return path.is_file() and f"def {name}(" in path.read_text()
