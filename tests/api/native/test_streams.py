"""Server-sent events as clients receive them."""

import base64
import io
import json
import selectors
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlsplit

import numpy as np
import psutil
import pytest
from PIL import Image

from tests.support.live_server import LiveServer, run_server
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

LARGEST_PREVIEW = 1 << 16
EVENT = b"\r\nevent: "
LAST_CHUNK = b"\r\n0\r\n\r\n"
# A job long enough for a client to connect to its stream.
BODY = {"width": 128, "height": 128, "steps": 8}


@dataclass(frozen=True)
class Event:
    id: str
    name: str
    data: Any


def events(live: LiveServer, path: str, last_id: str | None = None) -> Iterator[Event]:
    """The events of a stream until it ends. Closing the generator closes the connection."""
    headers = {} if last_id is None else {"Last-Event-ID": last_id}
    with live.get(path, stream=True, headers=headers) as reply:
        assert reply.status_code == 200, reply.text
        assert reply.headers["content-type"].startswith("text/event-stream")
        fields: dict[str, str] = {}
        for line in reply.iter_lines(decode_unicode=True):
            if line and not line.startswith(":"):
                name, _, value = line.partition(": ")
                fields[name] = value
            elif not line:
                if "data" in fields:
                    yield Event(fields.get("id", ""), fields.get("event", ""), json.loads(fields["data"]))
                fields = {}


def stream(job_id: str) -> str:
    return f"/api/v1/jobs/{job_id}/stream"


def test_progress_rises_step_by_step_to_the_end(server: LiveServer) -> None:
    job_id = server.submit(**BODY, num_images=2, seed=7)
    found = list(events(server, stream(job_id)))
    assert {event.name for event in found[:-1]} <= {"queued", "started", "progress"}
    last = found[-1]
    assert last.name == "complete"
    assert (last.data["status"], last.data["progress"]) == ("completed", 1.0)
    assert last.data["result"]["seeds"] == [7, 8]
    assert all(base64.b64decode(image).startswith(b"\x89PNG") for image in last.data["result"]["images"])
    progress = [event.data for event in found if event.name == "progress" and event.data.get("stage") == "painting"]
    shares = [data["progress"] for data in progress]
    assert shares == sorted(shares)
    assert (progress[-1]["step"], progress[-1]["steps"], progress[-1]["image"], progress[-1]["of"]) == (8, 8, 2, 2)
    assert set(progress[-1]) >= {"job_id", "status", "eta"}


def test_no_event_is_named_as_a_lost_connection_is(server: LiveServer) -> None:
    job_id = server.submit(model="flux2-tiny", init_images=[cut_off_picture()])
    found = list(events(server, stream(job_id)))
    assert found[-1].name == "failed"
    assert found[-1].data["code"] == "INVALID_IMAGE"
    assert "error" not in {event.name for event in found}


def cut_off_picture() -> str:
    """A PNG with a complete header, so that it is accepted, and truncated pixels; as base64."""
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 50).convert("RGB").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()[:200]).decode()


def test_a_cancelled_job_says_so(server: LiveServer) -> None:
    job_id = server.submit(width=256, height=256, steps=100)
    found = []
    for event in events(server, stream(job_id)):
        found.append(event.name)
        if event.name == "progress" and len(found) == 3:
            server.delete(f"/api/v1/jobs/{job_id}")
    assert found[-1] == "cancelled"


def test_previews_come_to_who_asks_for_them(server: LiveServer) -> None:
    job_id = server.submit(**BODY)
    found = [event.data for event in events(server, stream(job_id) + "?preview=true")]
    previews = [base64.b64decode(data["preview"]) for data in found if "preview" in data]
    assert previews
    assert all(preview.startswith(b"\x89PNG") for preview in previews)
    assert max(map(len, previews)) < LARGEST_PREVIEW
    job_id = server.submit(**BODY)
    assert not [event for event in events(server, stream(job_id)) if "preview" in event.data]


def test_a_stream_goes_on_after_the_last_event_that_was_seen(server: LiveServer) -> None:
    job_id = server.submit(**BODY, num_images=2)
    seen = []
    for event in events(server, stream(job_id)):
        seen.append(event)
        if event.name == "progress" and event.data["step"] == 3:
            break
    rest = list(events(server, stream(job_id), seen[-1].id))
    ids = [event.id for event in (*seen, *rest)]
    assert len(ids) == len(set(ids))
    steps = [
        (event.data["image"], event.data["step"])
        for event in (*seen, *rest)
        if event.name == "progress" and event.data.get("stage") == "painting"
    ]
    assert steps == sorted(set(steps))
    assert [step for image, step in steps if image == 1][-5:] == [4, 5, 6, 7, 8]
    assert rest[-1].name == "complete"


def test_an_unknown_last_event_starts_from_how_it_stands(server: LiveServer) -> None:
    job_id = server.submit(**BODY)
    found = list(events(server, stream(job_id), "gone-42"))
    assert found[0].name == "progress"
    assert found[-1].name == "complete"
    (end,) = events(server, stream(job_id), "gone-42")
    assert end == found[-1]


def test_who_comes_late_gets_the_end_at_once_and_is_not_called_back(server: LiveServer) -> None:
    job_id = server.submit()
    server.wait_for_status(job_id)
    (end,) = events(server, stream(job_id))
    assert end.name == "complete"
    reply = server.get(stream(job_id), headers={"Last-Event-ID": end.id})
    assert (reply.status_code, reply.content) == (204, b"")


def test_the_stream_of_an_unknown_job_is_a_json_error(server: LiveServer) -> None:
    reply = server.get(stream("0123456789ab"))
    assert (reply.status_code, reply.json()["code"]) == (404, "JOB_NOT_FOUND")


def test_everything_is_told_on_one_stream(server: LiveServer) -> None:
    found = events(server, "/api/v1/events")
    names: list[str] = []
    thread = threading.Thread(target=lambda: names.extend(names_until(found, "complete")))
    thread.start()
    server.post("/api/v1/queue/pause")
    try:
        # The server may listen for the stream a moment after its first bytes.
        wait_until(lambda: bool(server.submit(steps=2) and names))
    finally:
        server.post("/api/v1/queue/resume")
    thread.join(60)
    told = [name for name in names if name not in {"paused", "resumed", "progress"}]
    assert (told[0], told[-2:]) == ("queued", ["started", "complete"])


def test_who_resumes_the_stream_of_everything_gets_previews_only_for_the_asking(server: LiveServer) -> None:
    job_id = server.submit(**{**BODY, "steps": 10})
    first, *others = [event for event in events(server, stream(job_id) + "?preview=true") if "preview" in event.data]
    assert others
    missed = []
    for event in events(server, "/api/v1/events", first.id):
        missed.append(event)
        if event.name == "complete":
            break
    assert "progress" in {event.name for event in missed}
    assert not [event for event in missed if "preview" in event.data]


def names_until(found: Iterator[Event], last: str) -> Iterator[str]:
    for event in found:
        yield event.name
        if event.name == last:
            return


def test_a_silent_stream_has_a_heartbeat_and_says_when_to_come_back(tmp_path: Path) -> None:
    with run_server(tmp_path / "output", "--set", "server.heartbeat_seconds=0.2") as live:
        live.post("/api/v1/queue/pause")
        with live.get(stream(live.submit()), stream=True) as reply:
            lines = []
            for line in reply.iter_lines(decode_unicode=True):
                lines.append(line)
                if sum(line.startswith(": ping") for line in lines) == 2:
                    break
    assert "retry: 2000" in lines


def open_unread_stream(live: LiveServer, path: str, *, room: int | None = None) -> socket.socket:
    """Request a stream without reading it. `room`: the size of the socket's receive buffer in bytes."""
    address = urlsplit(live.url)
    sock = socket.socket()
    if room is not None:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, room)
    sock.connect((address.hostname, address.port))
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: {address.netloc}\r\nConnection: close\r\n\r\n".encode())
    return sock


def read_to_the_end(socks: list[socket.socket], seconds: float) -> dict[bytes, int]:
    """Read all sockets at once until they close. Returns the number of streams by the name of their last event.

    A stream without its last HTTP chunk counts as `cut off`.
    """
    end = time.monotonic() + seconds
    names = dict.fromkeys(socks, b"")
    tails = dict.fromkeys(socks, b"")
    with selectors.DefaultSelector() as selector:
        for sock in socks:
            selector.register(sock, selectors.EVENT_READ)
        while selector.get_map():
            assert time.monotonic() < end
            for key, _ in selector.select(1):
                sock = cast(socket.socket, key.fileobj)
                data = sock.recv(1 << 20)
                if not data:
                    selector.unregister(sock)
                text = tails[sock] + data
                start = text.rfind(EVENT)
                if start >= 0:
                    names[sock] = text[start + len(EVENT) :].partition(b"\r\n")[0]
                tails[sock] = text[-100:]
    whole = [names[sock] if tails[sock].endswith(LAST_CHUNK) else b"cut off" for sock in socks]
    return {name: whole.count(name) for name in whole}


def noise(side: int) -> str:
    """A PNG of random pixels, which does not compress; as base64."""
    buffer = io.BytesIO()
    pixels = np.random.default_rng(0).integers(0, 256, (side, side, 3), np.uint8)
    Image.fromarray(pixels).save(buffer, "PNG", compress_level=1)
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.mark.parametrize(
    ("listeners", "stalled"), [(20, 5), pytest.param(200, 50, marks=pytest.mark.slow)], ids=["few", "many"]
)
def test_all_listeners_get_the_end_and_those_that_stall_harm_nobody(
    tmp_path: Path, listeners: int, stalled: int
) -> None:
    # Many readers share a core with the server: on a busy machine it may take seconds to serve one again.
    patience = 4 if listeners == 200 else 2
    with run_server(tmp_path / "output", "--set", f"server.send_seconds={patience}") as live, ExitStack() as sockets:
        process = psutil.Process(live.process.pid)
        # Four megabytes of result do not fit into the socket's buffers; strength 0 takes no time to paint.
        order = {"width": 512, "height": 512, "init_images": [noise(512)], "image_strength": 0, "num_images": 4}
        first = sockets.enter_context(open_unread_stream(live, stream(live.submit(**order))))
        assert read_to_the_end([first], 60) == {b"complete": 1}
        live.post("/api/v1/queue/pause")
        job_id = live.submit(**order)
        for _ in range(stalled):
            sockets.enter_context(open_unread_stream(live, stream(job_id), room=2048))
        streams = [sockets.enter_context(open_unread_stream(live, stream(job_id))) for _ in range(listeners)]
        wait_until(lambda: connections(process) >= listeners + stalled)
        before = process.memory_info().rss
        live.post("/api/v1/queue/resume")
        assert read_to_the_end(streams, 60) == {b"complete": listeners}
        # Clients that never read are dropped, with one log line each.
        wait_until(lambda: connections(process) <= 2)
        wait_until(lambda: sum("stream.dropped" in line for line in live.lines) == stalled)
        assert not [line for line in live.lines if " error " in line]
        # A copy of the last event for each client would take a gigabyte.
        assert process.memory_info().rss - before < 40 * 1024**2
        assert live.wait_for_status(live.submit())["status"] == "completed"


def connections(process: psutil.Process) -> int:
    return sum(connection.status == psutil.CONN_ESTABLISHED for connection in process.net_connections("tcp"))
