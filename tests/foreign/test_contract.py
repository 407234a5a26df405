"""What every dialect keeps, whatever its words: the same queue, the same limits, its own shape of errors."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import pytest
import requests

from tests.server.live import Live, running

Body = dict[str, Any]
PROMPT = "a red circle"


@dataclass(frozen=True)
class Dialect:
    """How a picture is ordered, and where the words of an error are. `sized`, `modelled`: what a request may name."""

    path: str
    body: Body
    error: Callable[[Any], object]
    sized: Body | None = None
    modelled: Body | None = None
    nested: str = ""
    waits: bool = True

    def with_fields(self, **fields: object) -> Body:
        """The usual order, changed."""
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


@pytest.fixture(scope="module")
def short(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    """One job may wait, and nothing is begun."""
    with running(tmp_path_factory.mktemp("short") / "output", "--set", "queue.limit=1") as live:
        live.post("/api/v1/queue/pause")
        live.submit()
        yield live


@pytest.fixture(params=DIALECTS)
def dialect(request: pytest.FixtureRequest) -> Dialect:
    return DIALECTS[request.param]


def those(has: Callable[[Dialect], object]) -> pytest.MarkDecorator:
    """The dialects that have something: not every one names sizes or models, and not every one's clients wait."""
    return pytest.mark.parametrize("name", [name for name, dialect in DIALECTS.items() if has(dialect)])


def refused(dialect: Dialect, reply: requests.Response, status: int) -> None:
    assert reply.status_code == status, reply.text
    assert dialect.error(reply.json())


def test_a_full_queue_is_said(short: Live, dialect: Dialect) -> None:
    reply = short.post(dialect.path, dialect.body)
    busy = dialect.path.startswith("/flux2-web")
    refused(dialect, reply, 500 if dialect.path == "/edge" else 503)
    if not busy:
        assert int(reply.headers["Retry-After"]) > 0


def test_a_long_prompt_is_refused(server: Live, dialect: Dialect) -> None:
    refused(dialect, server.post(dialect.path, dialect.with_fields(prompt="x" * 10_001)), 400)


def test_a_missing_prompt_is_refused(server: Live, dialect: Dialect) -> None:
    body = dict(dialect.body)
    if dialect.nested:
        body[dialect.nested] = {name: value for name, value in body[dialect.nested].items() if name != "prompt"}
    else:
        del body["prompt"]
    refused(dialect, server.post(dialect.path, body), 400)


@those(lambda dialect: dialect.sized)
def test_a_size_beyond_the_limits_is_refused(server: Live, name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.sized is not None
    refused(dialect, server.post(dialect.path, dialect.with_fields(**dialect.sized)), 400)


@those(lambda dialect: dialect.modelled)
def test_an_unknown_model_is_not_found(server: Live, name: str) -> None:
    dialect = DIALECTS[name]
    assert dialect.modelled is not None
    refused(dialect, server.post(dialect.path, dialect.with_fields(**dialect.modelled)), 404)


def test_a_foreign_kind_of_body_is_refused(server: Live, dialect: Dialect) -> None:
    reply = requests.post(
        server.url + dialect.path, data=b"prompt=x", headers={"Content-Type": "text/plain"}, timeout=30
    )
    assert reply.status_code in {400, 415}


def test_another_method_is_refused_in_json(server: Live, dialect: Dialect) -> None:
    reply = requests.put(server.url + dialect.path, json={}, timeout=30)
    refused(dialect, reply, 405)


@those(lambda dialect: dialect.waits)
def test_who_hangs_up_cancels_the_job(tmp_path: Any, name: str) -> None:
    dialect = DIALECTS[name]
    with running(tmp_path / "output") as live:
        live.post("/api/v1/queue/pause")
        with pytest.raises(requests.Timeout):
            requests.post(live.url + dialect.path, json=dialect.body, timeout=1)
        end = time.monotonic() + 20
        while live.get("/api/v1/jobs").json()["jobs"][0]["status"] != "cancelled":
            assert time.monotonic() < end
            time.sleep(0.05)
