"""Write the two lock files with uv: hashed, universal, without URLs. Used by `make lock`; ARGS=--upgrade upgrades."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
RUNTIME, DEV = "requirements.lock", "requirements-dev.lock"
COMPILE = [
    *("uv", "pip", "compile", "pyproject.toml", "--quiet", "--no-config"),
    *("--universal", "--python-version", "3.11", "--generate-hashes"),
    *("--extra", "cpu", "--override", "requirements-overrides.txt"),
    *("--custom-compile-command", "make lock"),
]
NEVER = "sys_platform == 'never'"
ADDRESS = re.compile(r"https?://|\.org\b|\.com\b|\.io\b")


def split_entries(text: str) -> list[str]:
    """Split a lock file into its header and one string per pinned package, with hashes and comments."""
    return re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE | re.IGNORECASE)


def clean_lock(path: Path) -> None:
    kept = [entry for entry in split_entries(path.read_text()) if NEVER not in entry.partition("\n")[0]]
    text = "".join(kept)
    if found := ADDRESS.search(text):
        sys.exit(f"{path.name} contains a URL ({found.group()}). It was written for inspection only; do not use it.")
    path.write_text(text)


def compile_lock(name: str, args: list[str]) -> None:
    subprocess.run([*COMPILE, *args, "--output-file", name], cwd=ROOT, check=True)
    clean_lock(ROOT / name)


def main() -> None:
    if not shutil.which("uv"):
        sys.exit("make lock needs uv (pip install uv)")
    upgrade = sys.argv[1:]
    compile_lock(RUNTIME, upgrade)
    compile_lock(DEV, [*upgrade, "--group", "dev", "--constraints", RUNTIME])
    print(f"wrote {RUNTIME} and {DEV}")


if __name__ == "__main__":
    main()
