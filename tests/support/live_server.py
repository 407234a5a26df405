"""Start a real server in its own process, on a free port, with the embedded model."""

import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import psutil
import requests

from tests.support.paths import ROOT

ADDRESS = re.compile(r"""(?:MFLUX API at |"url": ?")(http://[^\s"]+)""")
START_SECONDS = 60
# An engine in the background gets nothing where other programs want both cores, such as another worker's tests.
USUAL_ENVIRON = {"MFLUX_ENGINE_BACKGROUND": "false"}


class LiveServer:
    """A running server. `url`: its address. `lines`: its standard error so far, by line."""

    def __init__(self, process: subprocess.Popen[str], output: Path) -> None:
        self.process = process
        self.output = output
        self.lines: list[str] = []
        self.url = ""
        self._ready = threading.Event()
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()
        if not self._ready.wait(START_SECONDS) or not self.url:
            self.close()
            raise RuntimeError("The server did not start:\n" + "\n".join(self.lines))

    @property
    def engine_processes(self) -> list[psutil.Process]:
        """The engine process; empty when it does not run."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def get(self, path: str, **options: object) -> requests.Response:
        return requests.get(self.url + path, timeout=60, **options)  # type: ignore[arg-type]

    def post(self, path: str, json: object = None, **options: object) -> requests.Response:
        return requests.post(self.url + path, json=json, timeout=120, **options)  # type: ignore[arg-type]

    def delete(self, path: str, **options: object) -> requests.Response:
        return requests.delete(self.url + path, timeout=60, **options)  # type: ignore[arg-type]

    def submit(self, **fields: object) -> str:
        """Submit a job for a small picture and return its id."""
        body = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1, **fields}
        reply = self.post("/api/v1/generate", body)
        assert reply.status_code == 200, reply.text
        job_id: str = reply.json()["job_id"]
        return job_id

    def get_job(self, job_id: str) -> dict[str, object]:
        found: dict[str, object] = self.get(f"/api/v1/jobs/{job_id}").json()
        return found

    def wait_for_status(self, job_id: str, *statuses: str, seconds: float = 60) -> dict[str, object]:
        """Wait until the job has one of these statuses (by default: a final one) and return it."""
        wanted = statuses or ("completed", "failed", "cancelled")
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            job = self.get_job(job_id)
            if job["status"] in wanted:
                return job
            time.sleep(0.05)
        raise AssertionError(f"job {job_id} is {job['status']}, not {' or '.join(wanted)}, after {seconds} s")

    def stop(self, sign: signal.Signals = signal.SIGTERM, seconds: float = 60) -> int:
        """Send a signal, wait for the process to exit and return its exit code."""
        self.process.send_signal(sign)
        return self.process.wait(seconds)

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self._reader.join()

    def _read_lines(self) -> None:
        assert self.process.stderr is not None
        with self.process.stderr as lines:
            for line in lines:
                self.lines.append(line.rstrip())
                if match := ADDRESS.search(line):
                    self.url = match[1]
                    self._ready.set()
        self._ready.set()


@contextmanager
def run_server(
    output: Path, *arguments: str, environ: Mapping[str, str] | None = None, program: Path = ROOT / "api_main.py"
) -> Iterator[LiveServer]:
    """Run `python api_main.py` with these arguments and kill it at the end. Settings: `--set name=value`."""
    flags = ["--host", "127.0.0.1", "--port", "0", "--output-dir", str(output), "--model", "flux2-tiny", *arguments]
    process = subprocess.Popen(
        [sys.executable, str(program), *flags],
        cwd=output.parent,
        env={**os.environ, **USUAL_ENVIRON, **(environ or {})},
        stderr=subprocess.PIPE,
        text=True,
    )
    live = LiveServer(process, output)
    try:
        yield live
    finally:
        live.close()
