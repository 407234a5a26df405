"""Bodies that every API must understand or refuse in words: slow, silent, compressed, in another encoding."""

import gzip
import json
import socket
import time
from collections.abc import Iterator
from http.client import HTTPResponse
from typing import Any
from urllib.parse import urlsplit

import pytest

from tests.support.live_server import LiveServer
from tests.support.refusals import post_text

pytestmark = pytest.mark.system

SIZE = {"width": 64, "height": 64}
# An order of each API. All are refused or cheap: the tests are about their bodies.
DOORS: dict[str, dict[str, Any]] = {
    "/api/v1/generate": {"prompt": "ä", **SIZE, "steps": 1},
    "/sdapi/v1/txt2img": {"prompt": "ä", **SIZE, "steps": 1},
    "/sdapi/v1/img2img": {"prompt": "ä", **SIZE, "steps": 1},
    "/sdapi/v1/extra-single-image": {"image": "ä"},
    "/sdapi/v1/png-info": {"image": "ä"},
    "/sdapi/v1/options": {"ä": "ä"},
    "/v1/images/generations": {"prompt": "ä", "size": "64x64"},
    "/replicate/v1/predictions": {"version": "flux-dev", "input": {"prompt": "ä", **SIZE, "num_inference_steps": 1}},
    "/flux/v1/flux-dev": {"prompt": "ä", **SIZE, "steps": 1},
    "/klein/generate": {"prompt": "ä", "width": 256, "height": 256, "steps": 1},
    "/flux2-web/generate": {"prompt": "ä", "steps": 10},
    "/edge": {"prompt": "ä", "steps": 1},
}
ENCODINGS = ("latin-1", "utf-16", "utf-16-le", "utf-32")


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("path", DOORS)
def test_a_body_in_another_encoding_than_utf_8_is_refused_in_words(
    server: LiveServer, path: str, encoding: str
) -> None:
    reply = post_text(server, path, json.dumps(DOORS[path], ensure_ascii=False).encode(encoding))
    assert 400 <= reply.status_code < 500
    assert "UTF-8" in reply.text


@pytest.mark.parametrize("named", ["gzip", "GZIP", "deflate", "br", "zstd", "identity, gzip", ""])
@pytest.mark.parametrize("path", [*DOORS, "/v1/images/edits"])
def test_a_compressed_body_is_refused_in_words(server: LiveServer, path: str, named: str) -> None:
    headers = {"Content-Encoding": named} if named else {}
    if path not in DOORS:
        if not named:
            return
        headers["Content-Type"] = "multipart/form-data; boundary=x"
    reply = post_text(server, path, gzip.compress(json.dumps(DOORS.get(path, {})).encode()), **headers)
    assert reply.status_code == 415 if named else 400 <= reply.status_code < 500
    assert "compressed" in reply.text


@pytest.mark.parametrize("named", ["identity", "Identity", "utf-8"])
def test_an_encoding_that_compresses_nothing_is_read(server: LiveServer, named: str) -> None:
    reply = post_text(server, "/api/v1/generate", "{}", **{"Content-Encoding": named})
    assert (reply.status_code, reply.json()["details"]) == (400, {"field": "prompt"})


def test_a_body_with_a_byte_order_mark_is_read(server: LiveServer) -> None:
    reply = post_text(server, "/api/v1/generate", b"\xef\xbb\xbf{}")
    assert reply.json()["details"] == {"field": "prompt"}


# Slow and silent


def send_in_pieces(server: LiveServer, path: str, pieces: Iterator[bytes], length: int) -> tuple[int, str, str | None]:
    """Send a body with a pause of 0.2 s after each piece. Return the status, text and Connection of the reply."""
    address = urlsplit(server.url)
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as connection:
        head = ("Host: localhost", "Content-Type: application/json", f"Content-Length: {length}")
        connection.sendall("\r\n".join((f"POST {path} HTTP/1.1", *head, "", "")).encode())
        for piece in pieces:
            connection.sendall(piece)
            time.sleep(0.2)
        with HTTPResponse(connection) as answer:
            answer.begin()
            status, text, after = answer.status, answer.read().decode(), answer.getheader("Connection")
            if after == "close":
                assert connection.recv(1) == b""
            return status, text, after


# The server waits 0.5 s for the next byte; these bodies take 0.8 s.
@pytest.mark.parametrize("path", DOORS)
def test_a_body_that_comes_slowly_is_read_to_its_end(tight: LiveServer, path: str) -> None:
    body = b"[1, 2]  "
    pieces = (body[start : start + 2] for start in range(0, len(body), 2))
    status, text, after = send_in_pieces(tight, path, pieces, len(body))
    assert (status, after) in {(400, None), (422, None)}
    assert "object" in text


@pytest.mark.parametrize("path", DOORS)
def test_a_client_that_falls_silent_is_told_that_its_connection_is_closed(tight: LiveServer, path: str) -> None:
    status, text, after = send_in_pieces(tight, path, iter([b"{", b" "]), 100)
    assert status in {408, 500}
    assert "0.5 seconds" in text or path == "/edge"  # Its statuses of 500 have one text for all.

    assert after == "close"
