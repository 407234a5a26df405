"""A dialect needs only one object in one tuple: the application adds everything else around it."""

from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.testclient import TestClient

from mflux_api.app.application import build_app
from mflux_api.app.dialects import DIALECTS
from mflux_api.app.lifecycle import Services
from mflux_api.errors import InvalidRequest, MfluxError
from mflux_api.settings import Settings
from mflux_api.settings.schema import DIALECTS as SWITCHABLE
from mflux_api.web.openapi import Endpoint
from mflux_api.wire.dialect import Dialect

KEY = {"X-API-Key": "secret"}
PER_MINUTE = 3


async def greet(request: Request) -> Response:
    return PlainTextResponse("hello", headers={"X-Words": "1"})


async def refuse(request: Request) -> Response:
    raise InvalidRequest("Say something.")


def shape(error: MfluxError, request_id: str) -> JSONResponse:
    return JSONResponse({"wrong": error.message}, error.status)


ENDPOINTS = [
    Endpoint("GET", "/words/hello", greet, "A word", "words", "text/plain"),
    Endpoint("GET", "/words/open", greet, "A word for everybody", "words", "text/plain"),
    Endpoint("POST", "/words/say", refuse, "Say a word", "words", "text/plain"),
]


def words(services: Services) -> Dialect:
    return Dialect(
        name="words",
        prefixes=("/words/",),
        endpoints=lambda service, context: ENDPOINTS,
        error_shape=shape,
        open_paths=frozenset({"/words/open"}),
        exposed_headers=("X-Words",),
        requests_per_minute=PER_MINUTE,
        is_listed=True,
    )


def client(folder: Path, **sections: dict[str, Any]) -> TestClient:
    """Return a test client of the application with this dialect added. The application is not started."""
    settings = {"generation": {"output_dir": folder}, "security": {"api_keys": {"me": KEY["X-API-Key"]}}}
    return TestClient(build_app(Settings.model_validate({**settings, **sections}), dialects=(*DIALECTS, words)))


@pytest.fixture
def speaker(tmp_path: Path) -> TestClient:
    return client(tmp_path)


def test_its_endpoints_answer_who_has_a_key(speaker: TestClient) -> None:
    reply = speaker.get("/words/hello", headers=KEY)
    assert (reply.status_code, reply.text) == (200, "hello")


def test_who_has_no_key_is_refused_in_its_shape(speaker: TestClient) -> None:
    reply = speaker.get("/words/hello")
    assert (reply.status_code, list(reply.json())) == (401, ["wrong"])
    assert reply.headers["WWW-Authenticate"] == "Bearer"


def test_its_open_paths_need_no_key(speaker: TestClient) -> None:
    assert speaker.get("/words/open").text == "hello"


@pytest.mark.parametrize(
    ("method", "path", "status"), [("POST", "say", 400), ("POST", "hello", 405), ("GET", "nothing", 404)]
)
def test_errors_under_its_prefix_have_its_shape(speaker: TestClient, method: str, path: str, status: int) -> None:
    reply = speaker.request(method, f"/words/{path}", headers=KEY)
    assert (reply.status_code, list(reply.json())) == (status, ["wrong"])


def test_errors_elsewhere_keep_theirs(speaker: TestClient) -> None:
    assert list(speaker.get("/word", headers=KEY).json()) == ["error", "code", "details", "request_id"]


def test_openapi_describes_it(speaker: TestClient) -> None:
    paths = speaker.get("/openapi.json").json()["paths"]
    assert paths["/words/hello"]["get"]["summary"] == "A word"
    assert {"/words/open", "/words/say"} <= set(paths)


def test_pages_of_other_origins_may_read_its_headers(speaker: TestClient) -> None:
    reply = speaker.get("/words/open", headers={"Origin": "http://pages.test"})
    assert "X-Words" in reply.headers["Access-Control-Expose-Headers"].split(", ")


def test_its_rate_limit_counts_its_own_requests_alone(speaker: TestClient) -> None:
    for _ in range(PER_MINUTE):
        assert speaker.post("/words/say", headers=KEY).status_code == 400
    reply = speaker.post("/words/say", headers=KEY)
    assert (reply.status_code, list(reply.json())) == (429, ["wrong"])
    assert int(reply.headers["Retry-After"]) > 0
    assert speaker.get("/words/hello", headers=KEY).status_code == 200
    assert speaker.post("/nothing", headers=KEY).status_code == 404


def test_the_servers_own_rate_limit_counts_for_it_too(tmp_path: Path) -> None:
    limited = client(tmp_path, security={"requests_per_minute": 1})
    assert [limited.post("/words/say").status_code for _ in range(2)] == [400, 429]


# The project's own dialects


def test_of_two_prefixes_that_match_the_longer_one_counts(tmp_path: Path) -> None:
    # Black Forest Labs' API has all of /v1 except the paths of OpenAI's API.
    open_to_all = client(tmp_path, security={})
    assert "detail" in open_to_all.get("/v1/nothing/here").json()
    assert open_to_all.get("/v1/images/nothing").json()["error"]["type"] == "invalid_request_error"


def test_a_dialect_that_is_switched_off_has_no_endpoints(tmp_path: Path) -> None:
    reply = client(tmp_path, dialects={"enabled": []}).get("/klein/health")
    assert reply.status_code == 404


@pytest.mark.parametrize(("root", "path"), [("klein", "/health"), ("flux2-web", "/images/none.png")])
def test_at_the_root_a_dialect_answers_what_it_answers_under_its_prefix(tmp_path: Path, root: str, path: str) -> None:
    rooted = client(tmp_path, dialects={"root": root})
    there, here = rooted.get(f"/{root}{path}", headers=KEY), rooted.get(path, headers=KEY)
    assert (here.status_code, here.json()) == (there.status_code, there.json())


def test_every_name_that_the_settings_can_switch_off_is_a_dialect(tmp_path: Path) -> None:
    services: Services = build_app(Settings.model_validate({"generation": {"output_dir": tmp_path}})).state.services
    assert set(SWITCHABLE) <= {make(services).name for make in DIALECTS}
