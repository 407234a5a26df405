"""The documents' own client examples, in `examples/` as they stand there, run with the changes that a test names."""

import os
import subprocess
import sys
from pathlib import Path

from tests.foreign import small_server
from tests.server.live import LiveServer

FOLDER = Path(__file__).parent / "examples"
SMALL_SERVER = Path(str(small_server.__file__))
KEY = "a-key"
SIZE = (('"width": 1024', '"width": 256'), ('"height": 1024', '"height": 256'))
COMET_SIZE = (("1024", "64"), ("768", "64"))
COMMANDS = {".py": sys.executable, ".sh": "sh", ".js": "node"}
MODULES = Path(sys.prefix) / "node" / "node_modules"

Change = tuple[str, str]


def klein_replacements(live: LiveServer) -> tuple[Change, ...]:
    """Where it is, and the key."""
    addresses = tuple((f"http://{name}:8000", f"{live.url}/klein") for name in ("<your-server-ip>", "<ip>"))
    return (*addresses, ("<your-api-key>", KEY), ("<key>", KEY))


def comet_replacements(live: LiveServer) -> tuple[Change, ...]:
    return (("https://api.cometapi.com", live.url), ("YOUR_API_KEY_HERE", KEY))


def edge_replacements(live: LiveServer) -> tuple[Change, ...]:
    return (("https://flux-image-generator.example.workers.dev", f"{live.url}/edge"),)


def read_example(name: str, place: tuple[Change, ...], *changes: Change) -> str:
    """An example with another address and key, and these changes, each of which has something to change."""
    found = (FOLDER / name).read_text(encoding="utf-8")
    for before, after in place:
        found = found.replace(before, after)
    for before, after in changes:
        assert before in found, f"{name} has no {before!r}"
        found = found.replace(before, after)
    return found


def run_example(name: str, example: str, folder: Path) -> str:
    """What it prints, run in a folder of its own."""
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
