"""Every event stream: heartbeats, headers for proxies, an end, and no job without its client."""

import base64
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
import requests

from tests.support.live_server import LiveServer, run_server
from tests.support.photographs import encode, scene

pytestmark = pytest.mark.system

IMAGES = {"prompt": "x", "size": "64x64", "steps": 2, "stream": True}
LONG = {**IMAGES, "size": "256x256", "steps": 150, "n": 4}
PICTURE = encode(scene(64, 64))


@pytest.fixture(scope="module")
def beating(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose streams have a heartbeat ten times a second."""
    output = Path(tmp_path_factory.mktemp("beating")) / "output"
    with run_server(output, "--set", "server.heartbeat_seconds=0.1") as live:
        yield live


def edit(server: LiveServer, **fields: str) -> requests.Response:
    data = {"prompt": "x", "steps": "2", "stream": "true", **fields}
    files = [("image", ("a.png", PICTURE, "image/png"))]
    return requests.post(f"{server.url}/v1/images/edits", data=data, files=files, timeout=60, stream=True)


def stream(server: LiveServer, door: str) -> requests.Response:
    """Open a stream of each kind."""
    match door:
        case "openai":
            return requests.post(f"{server.url}/v1/images/generations", json=IMAGES, timeout=60, stream=True)
        case "openai edits":
            return edit(server)
        case "replicate":
            body = {"version": "flux2-tiny", "input": {"prompt": "x", "width": 64, "height": 64}}
            path = server.post("/replicate/v1/predictions", body).json()["urls"]["stream"]
            return requests.get(path, timeout=60, stream=True)
        case "native":
            return requests.get(f"{server.url}/api/v1/jobs/{server.submit()}/stream", timeout=60, stream=True)
        case _:
            return requests.get(f"{server.url}/api/v1/events", timeout=60, stream=True)


ENDS = {
    "openai": "image_generation.completed",
    "openai edits": "image_edit.completed",
    "replicate": "done",
    "native": "complete",
}


@pytest.mark.parametrize("door", [*ENDS, "all events"])
def test_a_stream_is_neither_buffered_nor_cached(server: LiveServer, door: str) -> None:
    with stream(server, door) as reply:
        assert reply.headers["Content-Type"].startswith("text/event-stream")
        assert reply.headers["Cache-Control"] == "no-store"
        assert reply.headers["X-Accel-Buffering"] == "no"


@pytest.mark.parametrize("door", ENDS)
def test_a_stream_has_its_end_event(server: LiveServer, door: str) -> None:
    with stream(server, door) as reply:
        names = [line[7:] for line in reply.text.splitlines() if line.startswith("event: ")]
    assert names[-1] == ENDS[door]


@pytest.mark.parametrize("door", ENDS)
def test_a_stream_of_a_waiting_job_has_heartbeats(beating: LiveServer, door: str) -> None:
    beating.post("/api/v1/queue/pause")
    try:
        with stream(beating, door) as reply:
            lines = reply.iter_lines(chunk_size=1, decode_unicode=True)
            assert [line for line in (next(lines) for _ in range(40)) if line == ": ping"]
    finally:
        beating.post("/api/v1/queue/resume")


def test_openais_client_reads_a_stream_with_heartbeats(beating: LiveServer) -> None:
    beating.post("/api/v1/queue/pause")
    with openai.OpenAI(api_key="any", base_url=f"{beating.url}/v1", max_retries=0) as client:
        events: Any = client.images.generate(prompt="x", stream=True, partial_images=1, extra_body={"steps": 3})
        time.sleep(0.3)
        beating.post("/api/v1/queue/resume")
        kinds = [event.type for event in events]
    assert set(kinds) <= {"image_generation.partial_image", "image_generation.completed"}
    assert kinds[-1] == "image_generation.completed"


def test_openais_client_reads_a_streamed_edit(server: LiveServer) -> None:
    with openai.OpenAI(api_key="any", base_url=f"{server.url}/v1", max_retries=0) as client:
        events: Any = client.images.edit(
            image=("a.png", PICTURE), prompt="x", stream=True, partial_images=1, extra_body={"steps": 9}
        )
        kinds = [event.type for event in events]
    assert kinds[-1] == "image_edit.completed"
    assert all(kind.startswith("image_edit.") for kind in kinds)


def jobs_of(server: LiveServer, prompt: str) -> list[dict[str, Any]]:
    return [job for job in server.get("/api/v1/jobs").json()["jobs"] if job["prompt"] == prompt]


def wait_for_end(server: LiveServer, prompt: str) -> str:
    """Wait until the job with this prompt has ended and return its status."""
    job = jobs_of(server, prompt)[0]
    status: Any = server.wait_for_status(job["id"], seconds=10)["status"]
    return str(status)


@pytest.mark.parametrize("waiting", [False, True])
def test_a_client_that_leaves_ends_its_streamed_job(beating: LiveServer, waiting: bool) -> None:
    prompt = f"left {waiting}"
    if waiting:
        beating.post("/api/v1/queue/pause")
    try:
        reply = requests.post(
            f"{beating.url}/v1/images/generations", json={**LONG, "prompt": prompt}, timeout=60, stream=True
        )
        next(reply.iter_lines())
        reply.close()
        assert wait_for_end(beating, prompt) == "cancelled"
    finally:
        beating.post("/api/v1/queue/resume")


def test_a_job_that_somebody_cancels_ends_its_stream_with_an_error(server: LiveServer) -> None:
    with requests.post(
        f"{server.url}/v1/images/generations", json={**LONG, "prompt": "cancelled"}, timeout=60, stream=True
    ) as reply:
        coming = reply.iter_lines(decode_unicode=True)
        next(coming)
        server.delete(f"/api/v1/jobs/{jobs_of(server, 'cancelled')[0]['id']}")
        lines = [line for line in coming if line.startswith(("event: ", "data: "))]
    assert lines[-2] == "event: error"
    assert json.loads(lines[-1][6:])["error"]["code"] == "cancelled"


def test_a_streamed_job_that_fails_ends_with_an_error(server: LiveServer) -> None:
    files = [("image", ("a.png", PICTURE[: len(PICTURE) // 2], "image/png"))]
    fields = {"prompt": "x", "stream": "true"}
    reply = requests.post(f"{server.url}/v1/images/edits", data=fields, files=files, timeout=60)
    assert "event: error" in reply.text
    assert "invalid_image" in reply.text


def test_the_pictures_of_a_stream_are_the_same_as_without(server: LiveServer) -> None:
    body = {**IMAGES, "seed": 3}
    streamed = server.post("/v1/images/generations", body).text
    last = json.loads([line for line in streamed.splitlines() if line.startswith("data: ")][-1][6:])
    plain = server.post("/v1/images/generations", {**body, "stream": False}).json()
    assert base64.b64decode(last["b64_json"])[:8] == base64.b64decode(plain["data"][0]["b64_json"])[:8]
    assert last["size"] == plain["size"] == "64x64"
