"""Folders of the project that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests" / "reference"
CHECKPOINTS = REFERENCE / "checkpoints"
EXAMPLES = ROOT / "tests" / "clients" / "examples"
# Documents whose examples run as tests.
EXAMPLE_DOCUMENTS = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("index", "install", "page", "cli", "python", "jobs", "models")),
    ROOT / "docs" / "troubleshooting.md",
    *sorted((ROOT / "docs" / "dialects").glob("*.md")),
]
