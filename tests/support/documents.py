"""Run the client examples of the dialects' documents (`examples/`, unchanged) with replacements."""

import os
import subprocess
import sys
from pathlib import Path

from tests.support.live_server import LiveServer
from tests.support.paths import EXAMPLES

FOLDER = EXAMPLES
SMALL_SERVER = Path(__file__).with_name("small_server.py")
QUICK_SERVER = Path(__file__).with_name("quick_server.py")
KEY = "a-key"
SIZE = (('"width": 1024', '"width": 256'), ('"height": 1024', '"height": 256'))
COMET_SIZE = (("1024", "64"), ("768", "64"))
COMMANDS = {".py": sys.executable, ".sh": "sh", ".js": "node"}
MODULES = Path(sys.prefix) / "node" / "node_modules"

Change = tuple[str, str]


def klein_replacements(live: LiveServer) -> tuple[Change, ...]:
    """Return the replacements of address and API key."""
    addresses = tuple((f"http://{name}:8000", f"{live.url}/klein") for name in ("<your-server-ip>", "<ip>"))
    return (*addresses, ("<your-api-key>", KEY), ("<key>", KEY))


def comet_replacements(live: LiveServer) -> tuple[Change, ...]:
    return (("https://api.cometapi.com", live.url), ("YOUR_API_KEY_HERE", KEY))


def edge_replacements(live: LiveServer) -> tuple[Change, ...]:
    return (("https://flux-image-generator.example.workers.dev", f"{live.url}/edge"),)


def read_example(name: str, place: tuple[Change, ...], *changes: Change) -> str:
    """Return an example with address and key replaced, and with these changes; assert that each change applies."""
    found = (FOLDER / name).read_text(encoding="utf-8")
    for before, after in place:
        found = found.replace(before, after)
    for before, after in changes:
        assert before in found, f"{name} has no {before!r}"
        found = found.replace(before, after)
    return found


def run_example(name: str, example: str, folder: Path) -> str:
    """Run an example in this folder and return its output."""
    file = folder / name
    file.write_text(example, encoding="utf-8")
    done = subprocess.run(
        [COMMANDS[file.suffix], file.name],
        cwd=folder,
        env={**os.environ, "NODE_PATH": str(MODULES), "PYTHONIOENCODING": "utf-8"},
        capture_output=True,
        encoding="utf-8",
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout
