"""Folders of the project that tests read."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
REFERENCE = ROOT / "tests" / "reference"
CHECKPOINTS = REFERENCE / "checkpoints"
EXAMPLES = ROOT / "tests" / "clients" / "examples"
