"""The files that make the server a service: an agent for launchd, a unit for systemd."""

import plistlib
import re
from collections.abc import Sequence
from pathlib import Path

LABEL = "mflux-api"
# Longer than server.shutdown_seconds: with launchd's default of 20 seconds the running job would be lost.
STOP_SECONDS = 60
RESTART_SECONDS = 10
# Every client uses an open file, and launchd's default limit is 256.
OPEN_FILES = 4096
UNIT = """\
[Unit]
Description=Image server for FLUX.2

[Service]
ExecStart={command}
Restart=always
RestartSec={restart}
# Longer than server.shutdown_seconds. Only the server is told to stop; it ends its engine itself.
TimeoutStopSec={stop}
KillMode=mixed

[Install]
WantedBy=default.target
"""


def make_command(python: str, home: Path) -> list[str]:
    """Return the command that serves a home. It runs in any working directory."""
    return [python, "-P", "-m", "mflux_api", "serve", "--home", str(home)]


def render_agent(command: Sequence[str], log: Path) -> bytes:
    """Return the property list of a launchd agent that starts at login and again whenever it ends."""
    agent = {
        "Label": LABEL,
        "ProgramArguments": list(command),
        "RunAtLoad": True,
        "KeepAlive": True,
        "ThrottleInterval": RESTART_SECONDS,
        "ExitTimeOut": STOP_SECONDS,
        # With other types, launchd throttles CPU and disk.
        "ProcessType": "Interactive",
        "SoftResourceLimits": {"NumberOfFiles": OPEN_FILES},
        "StandardOutPath": str(log),
        "StandardErrorPath": str(log),
    }
    return plistlib.dumps(agent, sort_keys=False)


def render_unit(command: Sequence[str]) -> str:
    """Return a systemd unit for the service manager of a user."""
    words = " ".join(map(_quote, command))
    return UNIT.format(command=words, restart=RESTART_SECONDS, stop=STOP_SECONDS)


def _quote(word: str) -> str:
    """Quote a word for ExecStart (systemd.service(5), "Command lines")."""
    escaped = re.sub(r'([\\"])', r"\\\1", word).replace("%", "%%").replace("$", "$$")
    return word if re.fullmatch(r"[\w./@:+-]+", word) else f'"{escaped}"'
