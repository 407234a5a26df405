"""Errors about addresses, methods and bodies, and request ids: the documented status, body and headers."""

import json
import re
import socket
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.refusals import GENERATE, JSON, ORDERS, TXT2IMG, assert_refused, order, post_text

pytestmark = pytest.mark.system

MEBIBYTE = 1024**2


# Addresses and methods


@pytest.mark.parametrize(
    "path",
    ["/nothing", "/api/v1/nothing", "/api/v2/generate", "/api/v1/jobs/a/b/c", "/docs/..%2f..%2fpyproject.toml", "/%00"],
)
def test_an_unknown_address_is_not_found(server: LiveServer, path: str) -> None:
    assert_refused(server.get(path), 404, "NOT_FOUND")


def test_an_unknown_address_of_sdapi_is_not_found_in_the_words_of_its_clients(server: LiveServer) -> None:
    assert assert_refused(server.get("/sdapi/v1/nothing"), 404, "NOT_FOUND", sdapi=True)["detail"] == "Not Found"


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("GET", GENERATE, {"POST"}),
        ("OPTIONS", GENERATE, {"POST"}),
        ("POST", "/api/v1/health", {"GET", "HEAD"}),
        ("PUT", "/api/v1/jobs/a", {"GET", "HEAD", "DELETE"}),
        ("PATCH", "/api/v1/models/flux2-tiny/download", {"GET", "HEAD", "POST", "DELETE"}),
        ("TRACE", "/docs", {"GET", "HEAD"}),
    ],
)
def test_another_method_is_not_allowed(server: LiveServer, method: str, path: str, allowed: set[str]) -> None:
    reply = requests.request(method, server.url + path, timeout=60)
    assert_refused(reply, 405, "METHOD_NOT_ALLOWED")
    assert set(reply.headers["Allow"].split(", ")) == allowed


def test_another_method_of_sdapi_is_not_allowed_in_the_words_of_its_clients(server: LiveServer) -> None:
    reply = server.get(TXT2IMG)
    assert assert_refused(reply, 405, "METHOD_NOT_ALLOWED", sdapi=True)["detail"] == "Method Not Allowed"


@pytest.mark.parametrize(
    ("path", "code"),
    [
        ("/api/v1/jobs/nothing", "JOB_NOT_FOUND"),
        ("/api/v1/jobs/%00", "JOB_NOT_FOUND"),
        ("/api/v1/jobs/%ff", "JOB_NOT_FOUND"),
        ("/api/v1/jobs/nothing/stream", "JOB_NOT_FOUND"),
        ("/api/v1/jobs/nothing/images/0", "JOB_NOT_FOUND"),
        ("/api/v1/models/nothing/status", "MODEL_NOT_FOUND"),
        ("/api/v1/models/nothing/download", "MODEL_NOT_FOUND"),
    ],
)
def test_what_is_not_there_is_not_found(server: LiveServer, path: str, code: str) -> None:
    assert_refused(server.get(path), 404, code)


@pytest.mark.parametrize("index", ["1", "-1", "0000000001", "1" * 30, "x", "0.0", "%D9%A0", "%00", "..", "%2e%2e"])
def test_a_picture_that_a_job_has_not_is_not_found(server: LiveServer, index: str) -> None:
    job_id = server.submit()
    server.wait_for_status(job_id)
    url = f"{server.url}/api/v1/jobs/{job_id}/images/{index}"
    # `requests` would normalise the dots in the address.
    prepared = requests.Request("GET", url).prepare()
    prepared.url = url
    with requests.Session() as session:
        assert_refused(session.send(prepared, timeout=60), 404, "PICTURE_NOT_FOUND")


def test_a_finished_job_cannot_be_retried_or_cancelled(server: LiveServer) -> None:
    job_id = server.submit()
    server.wait_for_status(job_id)
    assert_refused(server.post(f"/api/v1/jobs/{job_id}/retry"), 409, "CONFLICT")
    assert_refused(server.delete(f"/api/v1/jobs/{job_id}"), 409, "CONFLICT")


@pytest.mark.parametrize(
    "query",
    [
        *("limit=0", "limit=201", "limit=x", "limit=1e3", "limit=-1", "limit=NaN"),
        *("before=-1", "before=x", f"before={10**30}", "status=done"),
    ],
)
def test_a_bad_query_is_refused_with_its_field(server: LiveServer, query: str) -> None:
    content = assert_refused(server.get(f"/api/v1/jobs?{query}"), 400, "INVALID_REQUEST")
    assert content["details"]["field"] == query.partition("=")[0]


# Bodies


def no_form(server: LiveServer, path: str, text: str | bytes) -> dict[str, Any]:
    """Post a body that is no valid form and return the error: 400 natively, 422 from /sdapi as SD-WebUI does."""
    if path == GENERATE:
        return assert_refused(post_text(server, path, text), 400, "INVALID_REQUEST")
    return assert_refused(post_text(server, path, text), 422, "WRONG_KIND", sdapi=True)


@pytest.mark.parametrize("path", ORDERS)
@pytest.mark.parametrize(
    "text",
    [
        *("{", "{'prompt': 'x'}", "prompt", "\0", '{"prompt": "x",}', '{"prompt": "\x01"}'),
        *('{"prompt": "x", "width": 1' + "0" * 5000 + "}", "[" * 100_000, '{"a":' * 100_000),
        *('{"prompt": "\\ud800"}', '{"prompt": "x", "model": "\\uDC00"}', '{"prompt": "x", "\\udc00": 1}'),
        *(b'{"prompt": "\xff"}', b'{"prompt": "\xed\xa0\x80"}', '{"prompt": "x"}'.encode("utf-16")),
    ],
    ids=lambda text: repr(text[:30]),
)
def test_a_body_that_is_no_json_is_refused(server: LiveServer, path: str, text: str | bytes) -> None:
    content = no_form(server, path, text)
    assert content["details"].get("field", "body") == "body"


@pytest.mark.parametrize("path", ORDERS)
@pytest.mark.parametrize("text", ["[]", '[{"prompt": "x"}]', '"prompt"', "7", "null", "true", "NaN"])
def test_a_body_that_is_no_object_is_refused(server: LiveServer, path: str, text: str) -> None:
    content = no_form(server, path, text)
    assert content["error"] == "The body must be a JSON object: {...}."


@pytest.mark.parametrize("text", ["", "{}", '{"prompt": null}'])
def test_a_missing_prompt_is_refused(server: LiveServer, text: str) -> None:
    content = assert_refused(post_text(server, GENERATE, text), 400, "INVALID_REQUEST")
    assert content["details"]["field"] == "prompt"


def test_a_picture_made_of_two_surrogates_is_text(server: LiveServer) -> None:
    reply = post_text(server, GENERATE, json.dumps(order(prompt="\U0001f98a a fox")))
    assert reply.status_code == 200
    assert server.wait_for_status(reply.json()["job_id"])["prompt"] == "\U0001f98a a fox"


def test_a_body_larger_than_the_limit_is_refused(tight: LiveServer) -> None:
    body = json.dumps(order(prompt="x" * 2 * MEBIBYTE))
    content = assert_refused(post_text(tight, GENERATE, body), 413, "PAYLOAD_TOO_LARGE")
    assert content["details"]["limit"] == MEBIBYTE


def test_a_body_without_a_length_is_refused_once_it_is_larger_than_the_limit(tight: LiveServer) -> None:
    pieces = (b" " * 65536 for _ in range(32))
    reply = requests.post(tight.url + GENERATE, data=pieces, headers=JSON, timeout=60)
    assert_refused(reply, 413, "PAYLOAD_TOO_LARGE")


def test_a_body_at_the_limit_is_read(tight: LiveServer) -> None:
    assert post_text(tight, GENERATE, json.dumps(order()).ljust(MEBIBYTE)).status_code == 200


@pytest.mark.parametrize("head", ["Content-Length: 100", "Transfer-Encoding: chunked"])
def test_a_body_that_does_not_arrive_is_not_waited_for(tight: LiveServer, head: str) -> None:
    address = urlsplit(tight.url)
    # By default it waits for 30 seconds.
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=20) as connection:
        lines = (f"POST {GENERATE} HTTP/1.1", "Host: localhost", "Content-Type: application/json", head, "", "")
        connection.sendall("\r\n".join(lines).encode())
        with HTTPResponse(connection) as answer:
            answer.begin()
            assert answer.status == 408
            assert json.loads(answer.read())["code"] == "REQUEST_TIMEOUT"


# Request ids


@pytest.mark.parametrize("name", ["a", "trace-1.2_3", "x" * 64])
def test_a_safe_id_of_the_client_is_echoed(server: LiveServer, name: str) -> None:
    reply = server.get("/api/v1/nothing", headers={"X-Request-ID": name})
    assert assert_refused(reply, 404, "NOT_FOUND")["request_id"] == name


@pytest.mark.parametrize("name", ["", "x" * 65, "a b", "<script>", "a\x7f", 'a"b', "ä".encode("latin-1")])
def test_another_id_of_the_client_is_replaced(server: LiveServer, name: str | bytes) -> None:
    reply = server.get("/api/v1/nothing", headers={"X-Request-ID": name})
    assert re.fullmatch("[0-9a-f]{16}", assert_refused(reply, 404, "NOT_FOUND")["request_id"])


def test_every_reply_has_an_id_of_its_own(server: LiveServer) -> None:
    names = {server.get("/api/v1/health").headers["X-Request-ID"] for _ in range(10)}
    assert len(names) == 10
