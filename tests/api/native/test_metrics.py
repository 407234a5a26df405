"""Prometheus metrics and the log."""

import base64
import io
import json
import re
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families
from starlette.routing import Route

from mflux_api.app.application import build_app
from mflux_api.settings import Settings
from tests.support.live_server import LiveServer, run_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

MODEL = "flux2-tiny"
SECRET = "a secret garden behind the red wall"
LONG = {"width": 256, "height": 256, "steps": 100}


@pytest.fixture
def quiet(tmp_path: Path) -> Iterator[LiveServer]:
    """Run a server with the default log: text, without prompts."""
    with run_server(tmp_path / "output") as live:
        yield live


@pytest.fixture(scope="module")
def chatty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Run a server whose log is JSON with prompts."""
    folder = Path(tmp_path_factory.mktemp("chatty"))
    with run_server(folder / "output", "--set", "logging.format=json", "--set", "logging.prompts=true") as live:
        yield live


def parse_samples(live: LiveServer) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Every sample by name and labels, read by Prometheus' own parser."""
    reply = live.get("/metrics")
    assert reply.headers["content-type"].startswith("text/plain")
    families = text_string_to_metric_families(reply.text)
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in families
        for sample in family.samples
    }


def sample_value(live: LiveServer, name: str, **labels: str) -> float:
    return parse_samples(live).get((name, tuple(sorted(labels.items()))), 0)


def cut_off_picture() -> str:
    """A PNG with a complete header, so that it is accepted, and truncated pixels; as base64."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()[:200]).decode()


def test_jobs_count_by_their_outcome_and_pictures_by_their_model(server: LiveServer) -> None:
    outcomes = ("completed", "failed", "cancelled")

    def counts() -> list[float]:
        jobs = [sample_value(server, "mflux_jobs_total", outcome=outcome, model=MODEL) for outcome in outcomes]
        return [
            *jobs,
            sample_value(server, "mflux_pictures_total", model=MODEL),
            sample_value(server, "mflux_job_seconds_count", model=MODEL),
            sample_value(server, "mflux_step_seconds_count", model=MODEL),
        ]

    before = counts()
    server.wait_for_status(server.submit(num_images=2, steps=3))
    server.wait_for_status(server.submit(init_images=[cut_off_picture()]))
    assert [now - then for now, then in zip(counts(), before, strict=True)] == [1, 1, 0, 2, 1, 6]
    job_id = server.submit(**LONG)
    wait_until(lambda: float(str(server.get_job(job_id)["progress"])) > 0)
    server.delete(f"/api/v1/jobs/{job_id}")
    wait_until(lambda: sample_value(server, "mflux_jobs_total", outcome="cancelled", model=MODEL) == before[2] + 1)


def test_the_depth_of_the_queue_and_the_engines_memory_are_shown(server: LiveServer) -> None:
    server.post("/api/v1/queue/pause")
    waiting = [server.submit() for _ in range(3)]
    try:
        assert sample_value(server, "mflux_queue_depth") == 3
    finally:
        server.post("/api/v1/queue/resume")
    for job_id in waiting:
        server.wait_for_status(job_id)
    assert sample_value(server, "mflux_queue_depth") == 0
    assert sample_value(server, "mflux_engine_memory_bytes", kind="active") > 1_000_000
    assert sample_value(server, "mflux_info", version=server.get("/api/v1/health").json()["version"]) == 1


def routes(live: LiveServer) -> set[str]:
    return {dict(labels)["route"] for name, labels in parse_samples(live) if name == "mflux_http_seconds_count"}


def test_requests_count_by_the_pattern_of_their_route_and_never_by_their_path(server: LiveServer) -> None:
    found = {"method": "GET", "route": "/api/v1/jobs/{job_id}", "status": "200"}
    missing = {**found, "status": "404"}
    before = sample_value(server, "mflux_http_seconds_count", **missing)
    job_id = server.submit()
    server.wait_for_status(job_id)
    for number in range(5):
        assert server.get(f"/api/v1/jobs/{number:012x}").status_code == 404
        assert server.get(f"/nowhere/{number}").status_code == 404
    assert sample_value(server, "mflux_http_seconds_count", **missing) == before + 5
    assert sample_value(server, "mflux_http_seconds_count", **found) >= 1
    assert sample_value(server, "mflux_http_seconds_count", method="GET", route="other", status="404") >= 5
    text = server.get("/metrics").text
    assert job_id not in text
    assert "nowhere" not in text
    known = {route.path for route in build_app(Settings()).routes if isinstance(route, Route)}
    assert routes(server) <= known | {"other"}


def lines(live: LiveServer, event: str) -> list[str]:
    """The lines of a text log about an event."""
    return [line for line in live.lines if re.match(rf"\d\d:\d\d:\d\d \w+ +{re.escape(event)} ", line)]


def test_a_job_is_one_line_of_the_log_without_its_prompt(quiet: LiveServer) -> None:
    job_id = quiet.submit(prompt=SECRET, steps=2, num_images=2, negative_prompt=f"not {SECRET}")
    quiet.wait_for_status(job_id)
    failed = quiet.submit(prompt=SECRET, init_images=[cut_off_picture()])
    quiet.wait_for_status(failed)
    wait_until(lambda: len(lines(quiet, "job")) == 2)
    first, second = lines(quiet, "job")
    for word in (f"id={job_id}", f"model={MODEL}", "size=64x64", "steps=2", "pictures=2", "outcome=completed"):
        assert word in first.split()
    assert re.search(r" seconds=\d+(\.\d+)?", first)
    assert {f"id={failed}", "outcome=failed", "code=INVALID_IMAGE"} <= set(second.split())
    assert quiet.stop(signal.SIGTERM) == 0
    quiet._reader.join(10)
    assert not [line for line in quiet.lines if "secret" in line]


def events(live: LiveServer, name: str) -> list[dict[str, Any]]:
    """The lines of a JSON log about an event, parsed. Asserts that every line is JSON."""
    found = [json.loads(line) for line in live.lines]
    assert all({"time", "level", "event"} <= set(line) for line in found)
    return [line for line in found if line["event"] == name]


def test_the_log_is_json_with_prompts_where_a_setting_says_so(chatty: LiveServer) -> None:
    prompt = 'two\nlines, "quoted", and ünïcödé'
    job_id = chatty.submit(prompt=prompt)
    chatty.wait_for_status(job_id)
    wait_until(lambda: bool(events(chatty, "job")))
    (line,) = events(chatty, "job")
    facts = {"id": job_id, "model": MODEL, "size": "64x64", "steps": 1, "outcome": "completed", "prompt": prompt}
    assert facts.items() <= line.items()
    assert line["seconds"] > 0


@pytest.mark.parametrize(
    ("path", "body", "code"),
    [
        ("/api/v1/generate", {"prompt": "x", "width": 7}, "INVALID_REQUEST"),
        ("/sdapi/v1/txt2img", {"prompt": "x", "model": "schnell"}, "MODEL_NOT_FOUND"),
        ("/sdapi/v1/img2img", {"prompt": "x", "init_images": [cut_off_picture()]}, "INVALID_IMAGE"),
        ("/nowhere", {}, "NOT_FOUND"),
        ("/api/v1/health", {}, "METHOD_NOT_ALLOWED"),
    ],
)
def test_the_log_knows_every_error_by_the_id_of_its_request(
    chatty: LiveServer, path: str, body: dict[str, object], code: str
) -> None:
    reply = chatty.post(path + "?token=hidden", body)
    name = reply.headers["X-Request-ID"]
    assert (reply.json()["code"], reply.json()["request_id"]) == (code, name)
    wait_until(lambda: any(line.get("request_id") == name for line in events(chatty, "http.refused")))
    (line,) = [line for line in events(chatty, "http.refused") if line["request_id"] == name]
    assert (line["code"], line["status"], line["method"], line["path"]) == (code, reply.status_code, "POST", path)
    assert not [line for line in chatty.lines if "hidden" in line]


def test_the_log_is_no_place_for_a_clients_lines(chatty: LiveServer) -> None:
    name = "mine-42"
    chatty.get("/nowhere/%0Aforged%1b[31m", headers={"X-Request-ID": name})
    wait_until(lambda: any(line.get("request_id") == name for line in events(chatty, "http.refused")))
    assert not [line for line in chatty.lines if line.startswith("forged") or "\x1b" in line]
