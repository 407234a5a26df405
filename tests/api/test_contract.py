"""Behaviour common to all dialects: the same queue, the same limits, and errors in each dialect's own shape."""

import json
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPConnection
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.documents import SMALL_SERVER
from tests.support.live_server import LiveServer, run_server
from tests.support.marks import slow_but
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

Body = dict[str, Any]
PROMPT = "a red circle"


@dataclass(frozen=True)
class Dialect:
    """How to order a picture, and where the error is in a reply.

    `sized`, `modelled`: fields with a bad size or model; None where requests name none.
    """

    path: str
    body: Body
    error: Callable[[Any], object]
    sized: Body | None = None
    modelled: Body | None = None
    nested: str = ""
    waits: bool = True

    def with_fields(self, **fields: object) -> Body:
        """Return the usual request body with these fields changed."""
        if self.nested:
            return {**self.body, self.nested: {**self.body[self.nested], **fields}}
        return {**self.body, **fields}


SIZE: Body = {"width": 64, "height": 64}
BAD: Body = {"width": 100_000, "height": 64}
NOBODY: Body = {"model": "nobody"}
DIALECTS = {
    "native": Dialect(
        "/api/v1/generate",
        {"prompt": PROMPT, **SIZE, "steps": 1},
        lambda reply: reply["error"],
        BAD,
        NOBODY,
        waits=False,
    ),
    "sdapi": Dialect(
        "/sdapi/v1/txt2img", {"prompt": PROMPT, **SIZE, "steps": 1}, lambda reply: reply["detail"], BAD, NOBODY
    ),
    "klein": Dialect(
        "/klein/generate",
        {"prompt": PROMPT, "width": 256, "height": 256, "steps": 1},
        lambda reply: reply["error"],
        BAD,
    ),
    "edge": Dialect("/edge", {"prompt": PROMPT, "steps": 1}, lambda reply: reply["error"]),
    "flux2-web": Dialect("/flux2-web/generate", {"prompt": PROMPT, "steps": 10}, lambda reply: reply["error"]),
    "bfl": Dialect(
        "/flux/v1/flux-dev",
        {"prompt": PROMPT, **SIZE, "steps": 1},
        lambda reply: reply["detail"],
        BAD,
        waits=False,
    ),
    "replicate": Dialect(
        "/replicate/v1/models/any/flux-dev/predictions",
        {"input": {"prompt": PROMPT, **SIZE, "num_inference_steps": 1}},
        lambda reply: reply["detail"],
        BAD,
        nested="input",
        waits=False,
    ),
    "openai": Dialect(
        "/v1/images/generations",
        {"prompt": PROMPT, "size": "64x64", "steps": 1},
        lambda reply: reply["error"]["message"],
        {"size": "99999x64"},
        NOBODY,
    ),
}


@dataclass(frozen=True)
class PollingDialect:
    """How to poll and cancel an order in a dialect whose clients do not wait.

    `named`: field of the first reply with the order's id, `{id}` in the paths.
    `failed`, `cancelled`: the dialect's words for these states.
    """

    named: str
    path: str
    failed: str
    cancelled: str
    cancel: tuple[str, str] = ("DELETE", "/api/v1/jobs/{id}")

    def get_status(self, live: LiveServer, name: str) -> Body:
        found: Body = live.get(self.path.format(id=name)).json()
        return found


LATER = {
    "native": PollingDialect("job_id", "/api/v1/jobs/{id}", "failed", "cancelled"),
    # It has no endpoint to cancel; the native one takes its task ids, which are job ids.
    "bfl": PollingDialect("id", "/flux/v1/get_result?id={id}", "Error", "Failed"),
    "replicate": PollingDialect(
        *("id", "/replicate/v1/predictions/{id}", "failed", "canceled"),
        cancel=("POST", "/replicate/v1/predictions/{id}/cancel"),
    ),
}
# A picture that takes long enough to be interrupted.
SLOW = {"width": 256, "height": 256, "steps": 100, "num_inference_steps": 100}


@pytest.fixture(scope="module")
def fragile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server whose engine gets killed, and which tries a job once. Its fixed sizes make a step short."""
    output, once = tmp_path_factory.mktemp("fragile") / "output", ("--set", "queue.tries=1")
    with run_server(output, *once, program=SMALL_SERVER, environ={"SIDE": "256"}) as live:
        yield live


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A paused server whose queue of one job is full."""
    with run_server(tmp_path_factory.mktemp("short") / "output", "--set", "queue.limit=1") as live:
        live.post("/api/v1/queue/pause")
        live.submit()
        yield live


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


def parametrize_dialects(has: Callable[[Dialect], object]) -> pytest.MarkDecorator:
    """Parametrize over the dialects for which `has` is true, such as those with sizes, models or waiting clients."""
    return pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if has(dialect)])


def assert_refused(dialect: Dialect, reply: requests.Response, status: int) -> None:
    assert reply.status_code == status, reply.text
    assert dialect.error(reply.json())


def test_a_full_queue_is_said(short: LiveServer, dialect: Dialect) -> None:
    reply = short.post(dialect.path, dialect.body)
    busy = dialect.path.startswith("/flux2-web")
    assert_refused(dialect, reply, 500 if dialect.path == "/edge" else 503)
    if not busy:
        assert int(reply.headers["Retry-After"]) > 0


def test_a_long_prompt_is_refused(server: LiveServer, dialect: Dialect) -> None:
    assert_refused(dialect, server.post(dialect.path, dialect.with_fields(prompt="x" * 10_001)), 400)


def test_a_missing_prompt_is_refused(server: LiveServer, dialect: Dialect) -> None:
    body = dict(dialect.body)
    if dialect.nested:
        body[dialect.nested] = {name: value for name, value in body[dialect.nested].items() if name != "prompt"}
    else:
        del body["prompt"]
    assert_refused(dialect, server.post(dialect.path, body), 400)


@parametrize_dialects(lambda dialect: dialect.sized)
def test_a_size_beyond_the_limits_is_refused(server: LiveServer, name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.sized is not None
    assert_refused(dialect, server.post(dialect.path, dialect.with_fields(**dialect.sized)), 400)


@parametrize_dialects(lambda dialect: dialect.modelled)
def test_an_unknown_model_is_not_found(server: LiveServer, name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.modelled is not None
    assert_refused(dialect, server.post(dialect.path, dialect.with_fields(**dialect.modelled)), 404)


def test_a_foreign_kind_of_body_is_refused(server: LiveServer, dialect: Dialect) -> None:
    reply = requests.post(
        server.url + dialect.path, data=b"prompt=x", headers={"Content-Type": "text/plain"}, timeout=30
    )
    assert reply.status_code in {400, 415}


def test_another_method_is_refused_in_json(server: LiveServer, dialect: Dialect) -> None:
    reply = requests.put(server.url + dialect.path, json={}, timeout=30)
    assert_refused(dialect, reply, 405)


@pytest.fixture(scope="module")
def paused(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with run_server(tmp_path_factory.mktemp("paused") / "output") as live:
        live.post("/api/v1/queue/pause")
        yield live


@parametrize_dialects(lambda dialect: dialect.waits)
def test_who_hangs_up_cancels_the_job(paused: LiveServer, name: str) -> None:
    dialect = DIALECTS[name]
    with closing(HTTPConnection(urlsplit(paused.url).netloc)) as client:
        client.request("POST", dialect.path, json.dumps(dialect.body), {"Content-Type": "application/json"})
        wait_until(lambda: paused.get("/api/v1/health").json()["queue_length"] == 1)
    wait_until(lambda: paused.get("/api/v1/health").json()["queue_length"] == 0)
    assert paused.get("/api/v1/jobs?limit=1").json()["jobs"][0]["status"] == "cancelled"


def kill_the_engine(live: LiveServer) -> None:
    """Kill the engine process once it paints the newest job."""

    def is_painting() -> bool:
        running = live.get("/api/v1/jobs?limit=1&status=generating").json()["jobs"]
        return bool(running) and running[0]["progress"] > 0

    wait_until(is_painting)
    live.engine_processes[0].kill()


@pytest.mark.parametrize("name", slow_but(DIALECTS, "native", "sdapi", "replicate", "openai"))
def test_an_engine_that_dies_fails_the_job_in_the_dialects_words(fragile: LiveServer, name: str) -> None:
    dialect, later = DIALECTS[name], LATER.get(name)
    # As many steps as its document allows, so that no picture is finished.
    slow = {field: value for field, value in SLOW.items() if field in {**dialect.body, **dialect.body.get("input", {})}}
    slow |= {"klein": {"steps": 50}, "edge": {"steps": 8}, "flux2-web": {"steps": 50}}.get(name, {})
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(fragile.post, dialect.path, dialect.with_fields(**slow))
        kill_the_engine(fragile)
        reply = first.result()
    if later is None:
        assert_refused(dialect, reply, 500)
        return
    order = reply.json()[later.named]
    assert fragile.wait_for_status(order, "failed")["code"] == "ENGINE_DIED"
    told = later.get_status(fragile, order)
    assert (told["status"], bool(told["error"])) == (later.failed, True)


def test_after_all_that_pictures_are_painted(fragile: LiveServer) -> None:
    assert fragile.wait_for_status(fragile.submit())["status"] == "completed"


@pytest.mark.parametrize("name", LATER)
@pytest.mark.parametrize("moment", ["waiting", "painted"])
def test_who_does_not_wait_can_cancel(fragile: LiveServer, name: str, moment: str) -> None:
    dialect, later = DIALECTS[name], LATER[name]
    slow = {field: value for field, value in SLOW.items() if field in {**dialect.body, **dialect.body.get("input", {})}}
    if moment == "waiting":
        fragile.post("/api/v1/queue/pause")
    order = fragile.post(dialect.path, dialect.with_fields(**slow)).json()[later.named]
    if moment == "painted":
        fragile.wait_for_status(order, "generating")
    method, path = later.cancel
    requests.request(method, fragile.url + path.format(id=order), timeout=30).raise_for_status()
    fragile.post("/api/v1/queue/resume")
    assert later.get_status(fragile, order)["status"] == later.cancelled
    # The next job in the queue is not blocked.
    assert fragile.wait_for_status(fragile.submit())["status"] == "completed"
