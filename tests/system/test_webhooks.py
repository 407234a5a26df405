"""Webhooks: signatures, filters, retries after failures and after a restart."""

import base64
import hashlib
import hmac
import json
import queue
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from mflux_api.jobs.webhooks import signature_headers
from tests.support.documents import QUICK_SERVER
from tests.support.live_server import LiveServer, run_server

SMALL: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1, "seed": 7}
TRUSTED = ("--set", "security.fetch_hosts=127.0.0.1")
PATIENCE = 30


class Receiver:
    """An HTTP server that answers with `statuses` in turn, repeating the last, and records the requests."""

    def __init__(self, *statuses: int, port: int = 0) -> None:
        self.told: queue.Queue[tuple[dict[str, str], bytes]] = queue.Queue()
        left = list(statuses)
        told = self.told

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                told.put(({name.lower(): value for name, value in self.headers.items()}, body))
                status = left.pop(0) if len(left) > 1 else left[0]
                self.send_response(status)
                if status == 302:
                    self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/told?token=1"
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def wait_for_request(self) -> tuple[dict[str, str], bytes]:
        return self.told.get(timeout=PATIENCE)


@contextmanager
def run_receiver(*statuses: int, port: int = 0) -> Iterator[Receiver]:
    receiver = Receiver(*statuses, port=port)
    try:
        yield receiver
    finally:
        receiver.server.shutdown()
        receiver.server.server_close()


def order_with_webhook(live: LiveServer, url: str, secret: str = "") -> str:
    body = {**SMALL, "webhook_url": url, "webhook_secret": secret}
    reply = live.post("/flux/v1/flux-2-flex", body)
    assert reply.status_code == 200, reply.text
    job_id: str = reply.json()["id"]
    return job_id


def test_a_webhook_is_told_what_a_client_would_be(trusting: LiveServer) -> None:
    with run_receiver(200) as receiver:
        job_id = order_with_webhook(trusting, receiver.url, "my secret")
        headers, body = receiver.wait_for_request()
    told = json.loads(body)
    assert (told["id"], told["status"], told["result"]["seed"]) == (job_id, "Ready", 7)
    assert trusting.get(told["result"]["sample"].removeprefix(trusting.url)).status_code == 200
    assert headers["x-webhook-secret"] == "my secret"
    message = f"{job_id}.{headers['webhook-timestamp']}.".encode() + body
    expected = base64.b64encode(hmac.new(b"my secret", message, hashlib.sha256).digest()).decode()
    assert headers["webhook-signature"] == f"v1,{expected}"


def create_prediction(live: LiveServer, url: str, *events: str, **fields: object) -> str:
    """Order a prediction with a webhook and return its id."""
    wanted = {"webhook_events_filter": events} if events else {}
    body = {"input": {"prompt": "x", "width": 64, "height": 64, "num_inference_steps": 1, **fields}, "webhook": url}
    reply = live.post("/replicate/v1/models/black-forest-labs/flux-dev/predictions", {**body, **wanted})
    assert reply.status_code == 201, reply.text
    job_id: str = reply.json()["id"]
    return job_id


def list_deliveries(live: LiveServer, job_id: str) -> dict[str, dict[str, Any]]:
    """Return the webhook deliveries of a job by event."""
    found = live.get("/api/v1/webhooks/deliveries?limit=200").json()["deliveries"]
    return {each["event"]: each for each in found if each["job_id"] == job_id}


def wait_for_deliveries(live: LiveServer, job_id: str) -> dict[str, dict[str, Any]]:
    """Wait until no delivery of the job is waiting; return `list_deliveries`."""
    end = time.monotonic() + PATIENCE
    while any(each["state"] == "waiting" for each in list_deliveries(live, job_id).values()):
        assert time.monotonic() < end
        time.sleep(0.05)
    return list_deliveries(live, job_id)


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ((), ["processing", "succeeded"]),
        (("start", "output", "logs", "completed"), ["processing", "processing", "succeeded"]),
        (("start",), ["processing"]),
        (("completed", "start"), ["processing", "succeeded"]),
    ],
)
def test_a_prediction_tells_the_events_that_were_asked_for(
    trusting: LiveServer, asked: tuple[str, ...], told: list[str]
) -> None:
    with run_receiver(204) as receiver:
        job_id = create_prediction(trusting, receiver.url, *asked)
        bodies = [receiver.wait_for_request() for _ in told]
        assert {each["state"] for each in wait_for_deliveries(trusting, job_id).values()} == {"delivered"}
    found = [json.loads(body) for _, body in bodies]
    assert [(each["id"], each["status"]) for each in found] == [(job_id, status) for status in told]
    # Each body has the state at its event: no output at the start, and no end time before the end.
    assert [bool(each["completed_at"]) for each in found] == [status == "succeeded" for status in told]
    if "start" in asked:
        assert (found[0]["output"], bool(found[0]["started_at"])) == (None, True)
    if not asked or "output" in asked:
        assert found[-2]["output"] == found[-1]["output"]
        assert found[-2]["output"][0].startswith(f"{trusting.url}/files/{job_id}/0.webp?")
    assert len({headers["webhook-id"] for headers, _ in bodies}) == len(told)


def test_events_that_are_none_are_refused(server: LiveServer) -> None:
    body = {"input": {"prompt": "x"}, "webhook": "https://a.test/", "webhook_events_filter": ["finished"]}
    assert server.post("/replicate/v1/models/a/flux-dev/predictions", body).status_code == 400


NOWHERE = [
    *("http://127.0.0.1:9/", "http://localhost/", "http://LOCALHOST./x", "http://a.localhost/", "http://127.1/"),
    *("http://2130706433/", "http://0x7f000001/", "http://0/", "http://[::1]/", "http://[::ffff:127.0.0.1]/"),
    *("http://10.0.0.8/", "https://192.168.1.5:8443/x?token=1", "http://172.16.0.1/", "http://169.254.169.254/"),
    *("http://100.64.0.1/", "http://[fd00::1]/", "http://[fe80::1%25eth0]/", "http://[64:ff9b::7f00:1]/"),
    *(
        "http://224.0.0.1/",
        "http://255.255.255.255/",
        "ftp://example.com/",
        "http://",
        "told",
        "http://u:p@example.com",
    ),
]
ORDERS: dict[str, tuple[str, dict[str, Any]]] = {
    "/flux/v1/flux-dev": ("webhook_url", SMALL),
    "/v1/flux-dev": ("webhook_url", SMALL),
    "/replicate/v1/predictions": ("webhook", {"version": "flux-dev", "input": {"prompt": "x"}}),
    "/replicate/v1/models/any/flux-dev/predictions": ("webhook", {"input": {"prompt": "x"}}),
}


@pytest.mark.parametrize("url", NOWHERE)
@pytest.mark.parametrize("path", ORDERS)
def test_a_webhook_that_can_never_be_delivered_is_refused_with_its_order(
    server: LiveServer, path: str, url: str
) -> None:
    field, body = ORDERS[path]
    before = server.get("/api/v1/jobs?limit=1").json()["total"]
    reply = server.post(path, {**body, field: url})
    assert reply.status_code == 400
    assert reply.json()["detail"].startswith(f"{field}: ")
    assert "token" not in reply.text
    assert server.get("/api/v1/jobs?limit=1").json()["total"] == before


@pytest.mark.parametrize(
    "url", ["https://8.8.8.8/told", "https://hooks.example.test/told", "http://[2606:4700::1]:81/"]
)
def test_a_webhook_that_may_be_delivered_is_taken(server: LiveServer, url: str) -> None:
    for path, (field, body) in ORDERS.items():
        small = {**body["input"], "width": 64, "height": 64, "num_inference_steps": 1} if "input" in body else None
        reply = server.post(path, {**body, **({"input": small} if small else {}), field: url})
        assert reply.status_code in {200, 201}


@pytest.mark.system
def test_what_never_came_about_is_not_told(tmp_path: Any) -> None:
    with run_receiver(200) as receiver, run_server(tmp_path / "output", *TRUSTED, program=QUICK_SERVER) as live:
        live.post("/api/v1/queue/pause")
        job_id = create_prediction(live, receiver.url, "start", "output", "completed")
        live.post(f"/replicate/v1/predictions/{job_id}/cancel")
        assert json.loads(receiver.wait_for_request()[1])["status"] == "canceled"
        states = {event: each["state"] for event, each in wait_for_deliveries(live, job_id).items()}
        assert states == {"start": "dropped", "output": "dropped", "completed": "delivered"}
        # After a retry, all events are delivered again.
        live.post("/api/v1/queue/resume")
        live.post(f"/api/v1/jobs/{job_id}/retry")
        assert [json.loads(receiver.wait_for_request()[1])["status"] for _ in range(3)] == [
            "processing",
            "processing",
            "succeeded",
        ]


def test_deliveries_can_be_read(trusting: LiveServer) -> None:
    with run_receiver(503, 200) as receiver:
        job_id = order_with_webhook(trusting, receiver.url, "my secret")
        receiver.wait_for_request()
        trusting.wait_for_status(job_id, "completed")
        end = time.monotonic() + PATIENCE
        while not (tried := list_deliveries(trusting, job_id)["completed"])["attempts"]:
            assert time.monotonic() < end
        assert (tried["state"], tried["status"], tried["error"]) == ("waiting", 503, "answered with status 503")
        assert tried["next_try"] > "2026"
        # Without the query, which may hold a secret.
        assert tried["url"] == receiver.url.partition("?")[0]
        receiver.wait_for_request()
        done = wait_for_deliveries(trusting, job_id)["completed"]
    assert (done["state"], done["attempts"], done["status"]) == ("delivered", 2, 200)
    assert (done["error"], done["next_try"]) == (None, None)
    first = trusting.get("/api/v1/webhooks/deliveries?limit=1&state=delivered").json()
    following = trusting.get(f"/api/v1/webhooks/deliveries?limit=1&state=delivered&before={first['next']}").json()
    assert first["deliveries"][0]["number"] > following["deliveries"][0]["number"]
    assert first["total"] >= 2
    assert "my secret" not in trusting.get("/api/v1/webhooks/deliveries").text
    assert trusting.get("/api/v1/webhooks/deliveries?state=nonsense").status_code == 400


@pytest.mark.parametrize("trouble", [500, 404, 302])
def test_a_receiver_that_fails_is_told_again(trusting: LiveServer, trouble: int) -> None:
    with run_receiver(trouble, 200) as receiver:
        job_id = order_with_webhook(trusting, receiver.url)
        both = [json.loads(receiver.wait_for_request()[1])["id"] for _ in range(2)]
    assert both == [job_id, job_id]


@pytest.mark.system
def test_a_restart_forgets_nobody(tmp_path: Any, free_tcp_port: int) -> None:
    with run_server(tmp_path / "output", *TRUSTED, program=QUICK_SERVER) as live:
        # Nothing listens there yet.
        job_id = order_with_webhook(live, f"http://127.0.0.1:{free_tcp_port}/")
        live.wait_for_status(job_id, "completed")
    with (
        run_receiver(200, port=free_tcp_port) as receiver,
        run_server(tmp_path / "output", *TRUSTED, program=QUICK_SERVER),
    ):
        assert json.loads(receiver.wait_for_request()[1])["id"] == job_id


def test_a_name_of_an_address_inside_is_never_told(server: LiveServer) -> None:
    with run_receiver(200) as receiver:
        # Only its delivery can find out that this machine's own name leads inside.
        url = receiver.url.replace("127.0.0.1", socket.gethostname())
        job_id = order_with_webhook(server, url)
        server.wait_for_status(job_id, "completed")
        # By the end of the next job, the delivery of this one was tried.
        server.wait_for_status(order_with_webhook(server, url), "completed")
        with pytest.raises(queue.Empty):
            receiver.told.get(timeout=1)
    assert any("webhook" in line and job_id in line and "public" in line for line in server.lines)


@pytest.mark.parametrize("address", ["ftp://x/", "file:///etc/passwd", "http://me:secret@x/", "x"])
def test_what_is_no_plain_address_is_refused_at_once(server: LiveServer, address: str) -> None:
    assert server.post("/flux/v1/flux-2-flex", {**SMALL, "webhook_url": address}).status_code == 400


def test_a_secret_of_standard_webhooks_is_taken_apart() -> None:
    key = base64.b64encode(b"0123456789").decode()
    headers = signature_headers("id", b"body", f"whsec_{key}")
    message = f"id.{headers['Webhook-Timestamp']}.body".encode()
    expected = base64.b64encode(hmac.new(b"0123456789", message, hashlib.sha256).digest()).decode()
    assert headers["Webhook-Signature"] == f"v1,{expected}"
    assert "Webhook-Signature" not in signature_headers("id", b"body", "")
