"""Run `mflux-api` as an example of a document does: a server is stopped, as by Ctrl+C, once it is ready.

Prints the server's log and exits with its exit code. Tests put this on the PATH under the name `mflux-api`.
"""

import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
READY = "MFLUX API at"
INSTALLED = shutil.which("mflux-api", path=str(Path(sys.executable).parent))
COMMAND = [INSTALLED] if INSTALLED else [sys.executable, "-m", "mflux_api"]


def run_until_ready(arguments: list[str]) -> int:
    """Start a server, stop it when it announces its address, and return its exit code."""
    process = subprocess.Popen([*COMMAND, *arguments], stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        sys.stderr.write(line)
        if READY in line:
            process.send_signal(signal.SIGINT)
    return process.wait()


if __name__ == "__main__":
    if sys.argv[1:2] != ["serve"]:
        os.execv(COMMAND[0], [*COMMAND, *sys.argv[1:]])
    sys.exit(run_until_ready(sys.argv[1:]))
