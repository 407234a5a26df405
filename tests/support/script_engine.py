"""Replace the engine process by a script, to force faults."""

import sys
import textwrap
from pathlib import Path

import pytest

HEAD = """
import os, resource, signal, socket, sys, time
from mflux_api.ipc import transport
from mflux_api.ipc.messages import CommandDone, EngineMemory, FinishedPicture, Ready, Thumbnail

resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
line = socket.socket(fileno=int(sys.argv[-1]))
receive = lambda: transport.receive_message(line)
send = lambda *messages: line.sendall(b"".join(map(transport.pack_message, messages)))
receive()
READY = Ready(device="cpu", chip="none", mlx="0", bytes_per_value=4, budget=1)
"""


def replace_engine(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    """Make engines that start from now on run this script. Its files are written into the folder."""
    code, program = folder / "engine.py", folder / "python"
    code.write_text(HEAD + textwrap.dedent(script), encoding="utf-8")
    program.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{code}" "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
