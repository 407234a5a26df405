"""Build requests for a server, and check the errors that it returns."""

import base64
import io
import math
import re
import struct
import zlib
from typing import Any

import requests
from PIL import Image

from tests.support.live_server import LiveServer
from tests.support.paths import ROOT

GENERATE = "/api/v1/generate"
TXT2IMG = "/sdapi/v1/txt2img"
IMG2IMG = "/sdapi/v1/img2img"
ORDERS = (GENERATE, TXT2IMG, IMG2IMG)
BODY = {"error", "code", "details", "request_id"}
SDAPI_EXTRA = {"detail", "body", "errors"}
JSON = {"Content-Type": "application/json"}
# Internals that no reply may show: tracebacks, source files, objects, names of exceptions.
INSIDES = re.compile(r'Traceback|File "|site-packages|\.py\b|object at 0x|\b[A-Z]\w*(?:Error|Exception)\b')


def assert_refused(reply: requests.Response, status: int, code: str, *, sdapi: bool = False) -> dict[str, Any]:
    """Assert that the reply is an error in the documented format, and return its body."""
    assert reply.status_code == status, reply.text[:500]
    content: dict[str, Any] = reply.json()
    assert set(content) == BODY | (SDAPI_EXTRA if sdapi else set())
    assert content["code"] == code
    assert content["error"]
    assert isinstance(content["details"], dict)
    assert content["request_id"] == reply.headers["X-Request-ID"]
    assert reply.headers["Content-Type"] == "application/json"
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert not INSIDES.search(reply.text), reply.text[:500]
    assert str(ROOT) not in reply.text
    return content


def order(**fields: object) -> dict[str, object]:
    return {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1, **fields}


def picture(side: int = 64, form: str = "PNG") -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "red").save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def make_bomb(side: int) -> str:
    """A decompression bomb: a black PNG of `side` x `side` pixels in a few kilobytes, as base64."""
    row = bytes(1 + math.ceil(side / 8))
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()


def post_text(server: LiveServer, path: str, text: str | bytes, **headers: str) -> requests.Response:
    return requests.post(server.url + path, data=text, headers={**JSON, **headers}, timeout=60)
