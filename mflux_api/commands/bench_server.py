"""`bench --server`: measure the server's overhead in time and memory on this machine."""

import http.client
import json
import os
import re
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing, contextmanager
from functools import partial
from typing import Any, NamedTuple

import httpx
import psutil

from mflux_api.engine.bench import Measurement
from mflux_api.engine.model import Model, load_model
from mflux_api.pixels.png import encode_png
from mflux_api.resources import make_child_environ

MODEL = "flux2-tiny"
PROMPT = "a red circle on a white background"
MEBIBYTE = 1024**2
QUEUES = (100, 1_000, 10_000)
PROBES = 1_000
PACE_SECONDS = 0.01
# OpenBLAS's threads spin for 120 ms after a picture, and would take a core from the next measurement.
REST_SECONDS = 0.2
ROUNDS = 15
PLAIN = """
import sys, uvicorn
async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})
uvicorn.run(app, port=int(sys.argv[1]), log_level="error", access_log=False, lifespan="off")
"""
SMALL = {"prompt": PROMPT, "width": 64, "height": 64, "steps": 1, "seed": 1}


class BenchServer:
    """Client of a server that runs in a temporary folder."""

    def __init__(self, client: httpx.Client, process: psutil.Process) -> None:
        self.client = client
        self.process = process

    def post(self, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        reply = self.client.post(path, json=body)
        reply.raise_for_status()
        content: dict[str, Any] = reply.json()
        return content

    def submit(self, **fields: object) -> str:
        job_id: str = self.post("/api/v1/generate", {**SMALL, **fields})["job_id"]
        return job_id

    def wait(self, job_id: str) -> None:
        while self.client.get(f"/api/v1/jobs/{job_id}?images=false").json()["completed_at"] is None:
            time.sleep(0.02)

    def get_painting_seconds(self) -> float:
        """Return the seconds of painting alone of the latest picture."""
        (latest,) = self.client.get("/api/v1/jobs?limit=1").json()["jobs"]
        job = self.client.get(f"/api/v1/jobs/{latest['id']}?images=false").json()
        seconds: float = job["result"]["timings"][0]["total"]
        return seconds

    @property
    def rss(self) -> float:
        """Resident memory of the server's process, without the engine's, in MiB."""
        return self.process.memory_info().rss / MEBIBYTE


def measure_server(jobs: int) -> Iterator[Measurement]:
    """Yield the lines of the table. `jobs`: number of jobs to run while the server's memory is watched."""
    yield Measurement("machine's load", os.getloadavg()[0], "", f"{os.cpu_count()} cores; {MODEL}")
    with _start_server() as bench:
        yield Measurement("server (RSS) after start", bench.rss, "MiB")
        yield from _measure_overhead(bench)
        yield from _measure_health(bench)
        yield from _measure_memory(bench, jobs)
        yield from _measure_queue(bench)


@contextmanager
def _start_server() -> Iterator[BenchServer]:
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--host", "127.0.0.1", "--port", "0", "--output-dir", folder, "--model", MODEL]
        limit = ["--set", "queue.limit=100000"]
        command = [sys.executable, "-P", "-m", "mflux_api", "serve", *flags, *limit]
        with subprocess.Popen(command, env=make_child_environ(), stderr=subprocess.PIPE, text=True) as process:
            try:
                with httpx.Client(base_url=_wait_for_address(process), timeout=600) as client:
                    yield BenchServer(client, psutil.Process(process.pid))
            finally:
                process.terminate()


def _wait_for_address(process: "subprocess.Popen[str]") -> str:
    assert process.stderr is not None
    for line in process.stderr:
        if match := re.search(r"MFLUX API at (http://\S+)", line):
            # Keep reading, or the log would fill the pipe and block the server.
            threading.Thread(target=process.stderr.read, daemon=True).start()
            return match[1]
    raise RuntimeError("The server did not start.")


class RequestTime(NamedTuple):
    """Total seconds for a picture, and the seconds of painting alone."""

    wall: float
    painting: float

    @property
    def overhead(self) -> float:
        return self.wall - self.painting


def _measure_overhead(bench: BenchServer) -> Iterator[Measurement]:
    """Paint the same picture with the library and over HTTP, in turn; the difference is the server's overhead.

    Painting speed varies between two processes, above all on a busy machine. So the difference without the painting
    time is reported too.
    """
    model = load_model(MODEL)
    for size, steps, rounds in ((64, 1, 60), (256, 4, 20)):
        with _open_poster(bench, {**SMALL, "width": size, "height": size, "steps": steps}) as over_http:
            taken = _alternate({"library": partial(_time_painting, model, size, steps), "HTTP": over_http}, rounds)
        for name, times in taken.items():
            yield Measurement(f"{size}x{size}, {steps} steps: {name}", _median_ms(each.wall for each in times), "ms")
        # Compared in pairs: a slowdown of the machine affects both of a pair.
        costs = [over.wall - here.wall for over, here in zip(taken["HTTP"], taken["library"], strict=True)]
        spread = statistics.stdev(costs) / rounds**0.5 * 1000
        note = f"at most 10; ±{spread:.0f} (standard error)"
        yield Measurement(f"{size}x{size}: HTTP costs", _median_ms(costs), "ms", note)
        around = {name: _median_ms(each.overhead for each in times) for name, times in taken.items()}
        yield Measurement(f"{size}x{size}: without the painting", around["HTTP"] - around["library"], "ms")


def _median_ms(values: Iterable[float]) -> float:
    return statistics.median(values) * 1000


def _time_painting(model: Model, size: int, steps: int) -> RequestTime:
    began = time.perf_counter()
    picture = model.generate(PROMPT, width=size, height=size, steps=steps, seeds=(1,))[0]
    encode_png(picture.image, {})
    return RequestTime(time.perf_counter() - began, picture.timings["total"])


@contextmanager
def _open_poster(bench: BenchServer, body: dict[str, Any]) -> Iterator[Callable[[], RequestTime]]:
    """Yield a function that posts `body` with http.client, because httpx's own overhead would be measured as well.

    The connection stays open between requests, as in browsers.
    """
    with closing(http.client.HTTPConnection(bench.client.base_url.netloc.decode(), timeout=600)) as connection:

        def post() -> RequestTime:
            began = time.perf_counter()
            connection.request("POST", "/sdapi/v1/txt2img", json.dumps(body), {"Content-Type": "application/json"})
            reply = connection.getresponse()
            content = reply.read()
            wall = time.perf_counter() - began
            if reply.status != 200:
                raise RuntimeError(f"The server answered with status {reply.status}: {content[:500]!r}")
            return RequestTime(wall, bench.get_painting_seconds())

        yield post


def _alternate(arms: dict[str, Callable[[], RequestTime]], rounds: int) -> dict[str, list[RequestTime]]:
    taken: dict[str, list[RequestTime]] = {name: [] for name in arms}
    for turn in range(rounds + 1):
        for name in list(arms)[:: 1 if turn % 2 else -1]:
            time.sleep(REST_SECONDS)
            found = arms[name]()
            if turn:
                taken[name].append(found)
    return taken


def _measure_health(bench: BenchServer) -> Iterator[Measurement]:
    """Measure the latency of /api/v1/health with an idle and with a busy engine.

    Requests alternate with those to a minimal server, whose latency shows the machine's own share.
    """
    body = {"width": 512, "height": 512, "steps": 50, "num_images": 4}
    with _start_plain_server() as plain:
        arms: dict[str, Callable[[], object]] = {
            "health": lambda: bench.client.get("/api/v1/health"),
            "nothing": lambda: plain.get("/"),
        }
        for name in ("idle", "while painting"):
            job_id = bench.submit(**body) if name != "idle" else None
            time.sleep(1)
            times: dict[str, list[float]] = {arm: [] for arm in arms}
            for _ in range(PROBES):
                for arm, ask in arms.items():
                    times[arm].append(_time_call(ask))
            if job_id is not None:
                bench.client.delete(f"/api/v1/jobs/{job_id}")
            for arm, values in times.items():
                yield Measurement(f"{arm} {name}: median", statistics.median(values) * 1000, "ms")
                yield Measurement(f"{arm} {name}: p99", statistics.quantiles(values, n=100)[98] * 1000, "ms")


@contextmanager
def _start_plain_server() -> Iterator[httpx.Client]:
    """Run a minimal ASGI application with uvicorn, and yield a client of it."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port = found.getsockname()[1]
    with subprocess.Popen([sys.executable, "-c", PLAIN, str(port)]) as process:
        try:
            # The retries give it a few seconds to start.
            transport = httpx.HTTPTransport(retries=6)
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=60, transport=transport) as client:
                client.get("/")
                yield client
        finally:
            process.terminate()


def _time_call(call: Callable[[], object]) -> float:
    time.sleep(PACE_SECONDS)
    began = time.perf_counter()
    call()
    return time.perf_counter() - began


def _measure_memory(bench: BenchServer, jobs: int) -> Iterator[Measurement]:
    before = 0.0
    for number in range(1, jobs + 1):
        bench.wait(bench.submit(seed=number))
        if number in {jobs // 5, jobs}:
            note = f"{bench.rss - before:+.1f}" if before else ""
            yield Measurement(f"server (RSS) after {number} jobs", bench.rss, "MiB", note)
            before = bench.rss


def _measure_queue(bench: BenchServer) -> Iterator[Measurement]:
    """Measure each queue operation at growing queue lengths."""
    bench.post("/api/v1/queue/pause")
    waiting: list[str] = []
    for length in QUEUES:
        while len(waiting) < length:
            waiting.append(bench.submit())
        last = waiting[-1]
        verbs: dict[str, Callable[[], object]] = {
            "submit": lambda: waiting.append(bench.submit()),
            "list": lambda: bench.client.get("/api/v1/jobs"),
            "position": partial(bench.client.get, f"/api/v1/jobs/{last}?images=false"),
            "queue": lambda: bench.client.get("/api/v1/queue"),
            "cancel": lambda: bench.client.delete(f"/api/v1/jobs/{waiting.pop()}"),
        }
        for name, verb in verbs.items():
            value = statistics.median(_time_call(verb) for _ in range(ROUNDS))
            yield Measurement(f"{length} waiting: {name}", value * 1000, "ms")
