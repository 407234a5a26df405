"""Shutdown: graceful within `server.shutdown_seconds`, else immediate; no process is left."""

import http.client
import json
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.live_server import LiveServer, run_server
from tests.support.marks import slow_but
from tests.support.paths import ROOT
from tests.support.processes import is_gone
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

LONG = {"prompt": "a red circle", "width": 256, "height": 256, "steps": 100}
SHORT = {**LONG, "width": 128, "height": 128, "steps": 24}


def is_painting(live: LiveServer) -> bool:
    active = live.get("/api/v1/queue").json()["active"]
    return active is not None and active["progress"] > 0


class WaitingClient(threading.Thread):
    """A client that waits for its picture in a thread, and the status and code of its reply."""

    def __init__(self, live: LiveServer, body: dict[str, object]) -> None:
        super().__init__()
        self.live = live
        self.body = body
        self.status = 0
        self.code = ""
        self.start()

    def run(self) -> None:
        try:
            reply = self.live.post("/sdapi/v1/txt2img", self.body)
        except requests.ConnectionError:
            return
        self.status, self.code = reply.status_code, reply.json().get("code", "")


@pytest.mark.parametrize("sign", slow_but([signal.SIGTERM, signal.SIGINT], signal.SIGTERM))
def test_the_running_job_is_finished_and_the_next_one_kept(tmp_path: Path, sign: signal.Signals) -> None:
    output = tmp_path / "output"
    with run_server(output) as live:
        first = WaitingClient(live, dict(SHORT))
        wait_until(lambda: is_painting(live))
        second = WaitingClient(live, dict(SHORT))
        wait_until(lambda: live.get("/api/v1/health").json()["queue_length"] == 1)
        engine = live.engine_processes[0].pid
        assert live.stop(sign) == 0
        first.join()
        second.join()
        assert (first.status, second.status, second.code) == (200, 503, "SHUTTING_DOWN")
        wait_until(lambda: is_gone(engine))
    with run_server(output) as live:
        statuses = [live.wait_for_status(row["id"])["status"] for row in live.get("/api/v1/jobs").json()["jobs"]]
        assert statuses == ["completed", "completed"]


@pytest.mark.slow
def test_those_who_wait_for_their_turn_are_answered_at_once_and_new_orders_refused(tmp_path: Path) -> None:
    with run_server(tmp_path / "output", "--set", "server.shutdown_seconds=4") as live:
        first = WaitingClient(live, dict(LONG))
        wait_until(lambda: is_painting(live))
        second = WaitingClient(live, dict(SHORT))
        wait_until(lambda: live.get("/api/v1/health").json()["queue_length"] == 1)
        (row,) = live.get("/api/v1/queue").json()["queued"]
        stream = live.get(f"/api/v1/jobs/{row['job_id']}/stream", stream=True)
        half_sent = started_order(live)
        # The server must have read the half-sent order by now: it closes connections without data at once.
        time.sleep(0.5)
        live.process.send_signal(signal.SIGTERM)
        second.join()
        assert (second.status, second.code) == (503, "SHUTTING_DOWN")
        assert "event: closing" in stream.raw.read().decode()
        half_sent.send(b'"}')
        reply = half_sent.getresponse()
        assert (reply.status, json.loads(reply.read())["code"]) == (503, "SHUTTING_DOWN")
        half_sent.close()
        with pytest.raises(requests.ConnectionError):
            live.post("/api/v1/generate", SHORT)
        assert first.is_alive()
        assert live.process.wait(10) == 0
        first.join()


def started_order(live: LiveServer) -> http.client.HTTPConnection:
    """Send half of an order and return the connection."""
    connection = http.client.HTTPConnection(urlsplit(live.url).netloc, timeout=20)
    connection.putrequest("POST", "/api/v1/generate")
    connection.putheader("Content-Type", "application/json")
    connection.putheader("Content-Length", "14")
    connection.endheaders(b'{"prompt": "')
    return connection


@pytest.mark.slow
def test_the_last_job_is_in_the_log(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        job_id = live.submit(width=128, height=128, steps=30)
        wait_until(lambda: is_painting(live))
        assert live.stop() == 0
        live.close()
        assert [line for line in live.lines if f"id={job_id}" in line and "outcome=completed" in line]


def test_past_the_deadline_the_running_job_goes_back_into_the_line_uncounted(tmp_path: Path) -> None:
    output = tmp_path / "output"
    with run_server(output, "--set", "server.shutdown_seconds=0.5") as live:
        client = WaitingClient(live, dict(LONG))
        wait_until(lambda: is_painting(live))
        assert live.stop() == 0
        client.join()
        assert (client.status, client.code) == (503, "SHUTTING_DOWN")
    with run_server(output) as live:
        (row,) = live.get("/api/v1/jobs").json()["jobs"]
        job = live.wait_for_status(row["id"], "generating")
        assert job["attempts"] == 1
        wait_until(lambda: is_painting(live))


def test_streams_are_told(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        reply = live.get("/api/v1/events", stream=True)
        wait_until(lambda: live.get("/api/v1/health").status_code == 200)
        live.stop()
        assert "event: closing" in reply.raw.read().decode()


@pytest.mark.parametrize("sign", slow_but([signal.SIGTERM, signal.SIGINT], signal.SIGINT))
def test_a_second_signal_ends_it_at_once(tmp_path: Path, sign: signal.Signals) -> None:
    with run_server(tmp_path / "output") as live:
        live.post("/api/v1/generate", LONG)
        wait_until(lambda: is_painting(live))
        engine = live.engine_processes[0].pid
        live.process.send_signal(signal.SIGTERM)
        wait_until(lambda: any("server.stopping" in line for line in live.lines))
        # A first signal alone would wait 30 seconds for the job.
        assert live.stop(sign, seconds=15) == 1
        wait_until(lambda: is_gone(engine), 15)


@pytest.mark.slow
def test_the_engine_ends_with_a_server_that_is_killed(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        live.post("/api/v1/generate", LONG)
        wait_until(lambda: is_painting(live))
        engine = live.engine_processes[0].pid
        live.stop(signal.SIGKILL)
        # The painting takes longer.
        wait_until(lambda: is_gone(engine), 10)


def serve(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(ROOT / "api_main.py"), "--host", "127.0.0.1", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_a_second_server_on_the_same_folder_is_refused_and_the_first_unharmed(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        second = serve("--port", "0", "--output-dir", str(tmp_path / "output"))
        assert second.returncode == 2
        assert f"process {live.process.pid}" in second.stderr
        assert "Traceback" not in second.stderr
        assert live.wait_for_status(live.submit())["status"] == "completed"


def test_a_port_in_use_is_one_clear_line(tmp_path: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        done = serve("--port", str(port), "--output-dir", str(tmp_path / "output"))
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].startswith(f"error: 127.0.0.1, port {port} cannot be listened on")
    assert "Traceback" not in done.stderr
