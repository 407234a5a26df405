"""`service`: run the server as a launchd agent, at every login and again whenever it ends. macOS only.

On other systems the commands refuse, and `install` prints a unit for systemd.
"""

import os
import platform
import plistlib
import re
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from mflux_api.commands.service_files import LABEL, make_command, render_agent, render_unit
from mflux_api.errors import MfluxError
from mflux_api.home import LOG_FILE
from mflux_api.resources import find_checkout

SYSTEM = platform.system()
OK, FAILED = 0, 1
# `launchctl bootout` returns at once, but the server may take 60 seconds to finish the running job.
UNLOAD_SECONDS = 70
# What to do on a system without launchd.
ELSEWHERE = {
    "install": "Standard output is a unit for systemd: write it to ~/.config/systemd/user/mflux-api.service, then run "
    "`systemctl --user daemon-reload` and `systemctl --user enable --now mflux-api`.",
    "uninstall": "With systemd: `systemctl --user disable --now mflux-api`, then delete its unit.",
    "status": "With systemd: `systemctl --user status mflux-api`.",
    "logs": "With systemd: `journalctl --user -u mflux-api -n 50 -f`.",
}


def run(action: str, home: Path, *, print_only: bool, lines: int, follow: bool) -> int:
    """Run "install", "uninstall", "status" or "logs", and return an exit code.

    With `print_only`, print the service's file and change nothing. Raises MfluxError.
    """
    # A service has no working directory of its own: in a checkout its home is the checkout.
    home = (find_checkout() or Path()) / home
    if print_only or (action == "install" and SYSTEM != "Darwin"):
        print(render_file(home), end="", flush=True)
    if print_only:
        return OK
    if SYSTEM != "Darwin":
        raise MfluxError(f"launchd is part of macOS. {ELSEWHERE[action]}")
    if os.getuid() == 0:
        raise MfluxError("Run this without sudo, as the user who runs the server.")
    if action == "install":
        return install(home)
    if action == "uninstall":
        return uninstall(home)
    return print_status(home) if action == "status" else print_log(home, lines, follow=follow)


def render_file(home: Path) -> str:
    """Return the agent's property list on macOS, a systemd unit elsewhere."""
    command = make_command(sys.executable, home)
    return render_agent(command, home / LOG_FILE).decode() if SYSTEM == "Darwin" else render_unit(command)


def install(home: Path) -> int:
    """Write the agent, and start it in place of one that runs. Raises MfluxError."""
    _check_package()
    agent = _find_agent()
    agent.parent.mkdir(parents=True, exist_ok=True)
    # launchd creates the log, but not its folder.
    (home / LOG_FILE).parent.mkdir(parents=True, exist_ok=True)
    _unload(home)
    agent.write_text(render_file(home), encoding="utf-8")
    started = _launchctl("bootstrap", _domain(), str(agent))
    if started.returncode:
        raise MfluxError(f"launchctl cannot load {agent}: {started.stderr.strip()}")
    print(f"Installed {agent}. Home: {home}, log: {home / LOG_FILE}")
    return OK


def uninstall(home: Path) -> int:
    """Stop the agent and delete its file. Raises MfluxError."""
    _unload(home)
    _find_agent().unlink(missing_ok=True)
    print("Removed the service. Models, pictures and the log are kept.")
    return OK


def print_status(home: Path) -> int:
    """Print the agent's state and files. Returns 0 if the server runs, else 1."""
    shown = _launchctl("print", f"{_domain()}/{LABEL}")
    if shown.returncode:
        print("not installed")
        return FAILED
    process = re.search(r"^\s*pid = (\d+)$", shown.stdout, flags=re.MULTILINE)
    print(f"running, process {process[1]}" if process else "installed, not running")
    print(f"agent: {_find_agent()}\nlog: {_find_log(home)}")
    return OK if process else FAILED


def print_log(home: Path, lines: int, *, follow: bool) -> int:
    """Print the last lines of the log, and with `follow` new ones until Ctrl+C. Raises MfluxError."""
    log = _find_log(home)
    if not log.exists():
        raise MfluxError(f"There is no log at {log}.")
    # -F goes on when the log is emptied or replaced.
    command = ["tail", "-n", str(lines), *(["-F"] if follow else []), str(log)]
    with suppress(KeyboardInterrupt):
        return subprocess.run(command, check=False).returncode
    return OK


def _check_package() -> None:
    """Check before anything changes that the agent's Python can run the server."""
    command = [sys.executable, "-P", "-m", "mflux_api", "--version"]
    tried = subprocess.run(command, capture_output=True, text=True, check=False)
    if tried.returncode:
        raise MfluxError(f"{sys.executable} has no mflux-api. Install it; in a checkout: make clean, then make demo.")


def _unload(home: Path) -> None:
    """Stop the agent, and wait until it has. Raises MfluxError."""
    _launchctl("bootout", f"{_domain()}/{LABEL}")
    for _ in range(UNLOAD_SECONDS):
        if _launchctl("print", f"{_domain()}/{LABEL}").returncode:
            return
        time.sleep(1)
    raise MfluxError(f"The running server does not stop. See {_find_log(home)}")


def _launchctl(*arguments: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(["launchctl", *arguments], capture_output=True, text=True, check=False)


def _domain() -> str:
    return f"gui/{os.getuid()}"


def _find_agent() -> Path:
    return Path.home() / "Library" / "LaunchAgents" / f"{LABEL}.plist"


def _find_log(home: Path) -> Path:
    """Return the log of the installed agent, which may have another home. Without an agent, that of `home`."""
    agent = _find_agent()
    return Path(plistlib.loads(agent.read_bytes())["StandardErrorPath"]) if agent.exists() else home / LOG_FILE
