"""Every refusal: the documented body, the right status, nothing of the server's insides."""

import base64
import io
import json
import math
import re
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from http.client import HTTPResponse
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
import pytest
import requests
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.server.live import ROOT, LiveServer, run_server

pytestmark = pytest.mark.system

GENERATE = "/api/v1/generate"
TXT2IMG = "/sdapi/v1/txt2img"
IMG2IMG = "/sdapi/v1/img2img"
ORDERS = (GENERATE, TXT2IMG, IMG2IMG)
BODY = {"error", "code", "details", "request_id"}
SDAPI_EXTRA = {"detail", "body", "errors"}
JSON = {"Content-Type": "application/json"}
MEBIBYTE = 1024**2
MOST_GROWTH = 100 * MEBIBYTE
# A traceback, a file of ours or of a library, the name of an exception.
INSIDES = re.compile(r'Traceback|File "|site-packages|\.py\b|object at 0x|\b[A-Z]\w*(?:Error|Exception)\b')
NAN, INFINITY = float("nan"), float("inf")
FLUX1 = "Flux1 models removed. Use flux2-klein-4b or flux2-klein-9b"


def assert_refused(reply: requests.Response, status: int, code: str, *, sdapi: bool = False) -> dict[str, Any]:
    """Assert that this is an error as it is documented; its body."""
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
    """A black PNG of this many pixels a side, in a few kilobytes."""
    row = bytes(1 + math.ceil(side / 8))
    packer = zlib.compressobj(1)
    data = b"".join(packer.compress(row) for _ in range(side)) + packer.flush()
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    png = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")
    return base64.b64encode(png).decode()


def post_text(server: LiveServer, path: str, text: str | bytes, **headers: str) -> requests.Response:
    return requests.post(server.url + path, data=text, headers={**JSON, **headers}, timeout=60)


@pytest.fixture(scope="module")
def tight(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with little patience, for bodies and their size, and with a folder of adapters."""
    folder = Path(tmp_path_factory.mktemp("tight"))
    (folder / "loras").mkdir()
    (folder / "loras" / "inside.safetensors").write_bytes(b"weights")
    (folder / "outside.safetensors").write_bytes(b"weights")
    (folder / "loras" / "link.safetensors").symlink_to(folder / "outside.safetensors")
    chosen = ("server.body_seconds=0.5", "server.max_body_mb=1", f"models.lora_dir={folder / 'loras'}")
    with run_server(folder / "output", *(part for value in chosen for part in ("--set", value))) as live:
        yield live


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
    # requests would take the dots out of the address.
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
        *("limit=0", "limit=201", "limit=x", "limit=1e3", "limit=", "limit=-1", "limit=NaN"),
        *("before=-1", "before=x", f"before={10**30}", "status=done", "status="),
    ],
)
def test_a_bad_query_is_refused_with_its_field(server: LiveServer, query: str) -> None:
    content = assert_refused(server.get(f"/api/v1/jobs?{query}"), 400, "INVALID_REQUEST")
    assert content["details"]["field"] == query.partition("=")[0]


# Bodies


def no_form(server: LiveServer, path: str, text: str | bytes) -> dict[str, Any]:
    """The refusal of a body that is no form: as SD-WebUI has it where that is spoken."""
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
    began = time.monotonic()
    with socket.create_connection((address.hostname or "", address.port or 0), timeout=30) as connection:
        lines = (f"POST {GENERATE} HTTP/1.1", "Host: localhost", "Content-Type: application/json", head, "", "")
        connection.sendall("\r\n".join(lines).encode())
        with HTTPResponse(connection) as answer:
            answer.begin()
            assert answer.status == 408
            assert json.loads(answer.read())["code"] == "REQUEST_TIMEOUT"
    assert time.monotonic() - began < 10


# Fields

BAD_SIDES: list[object] = [
    63,
    65,
    0,
    -16,
    2064,
    10**4000,
    1e308,
    64.5e9,
    "abc",
    "",
    "6 4",
    "NaN",
    NAN,
    INFINITY,
    True,
    False,
    [64],
]
BAD_VALUES: dict[str, list[object]] = {
    "width": BAD_SIDES,
    "height": BAD_SIDES,
    "steps": [0, -1, 101, 10**30, "abc", "", NAN, -INFINITY, True, [1], {}],
    "num_images": [0, -1, 5, 10_000, "abc", NAN, True, [2]],
    "seed": [2**64, 10**400, -(10**400), "abc", "1e400", NAN, True, [1], {}],
    "guidance": [-1, -0.001, NAN, INFINITY, "abc", "nan", 10**400, True, [1.0]],
    "cfg_scale": [NAN, "abc", True, {}],
    "image_strength": [NAN, INFINITY, "abc", True, [0.5]],
    "denoising_strength": [NAN, INFINITY, "abc", True, [0.5]],
    "priority": [99, -11, "abc", NAN, True],
    "prompt": ["x" * 10_001, 7, True, ["a", "b"], {"a": "b"}],
    "negative_prompt": ["x" * 10_001, 7, ["a"]],
    "model": [7, True, ["flux2-tiny"], {}],
    "sd_model_checkpoint": [7, ["flux2-tiny"]],
    "low_ram": ["maybe", 7, [True], {}],
    "mask": [7, ["x"], {}],
    "lora_files": [7, [7], {"a": 1}, [["a"]], [None]],
    "lora_scales": ["abc", ["abc"], [NAN], [True], [None], [[1]], [1.0]],
    "init_images": [7, [7], {}, [None]],
    "extra_images": [7, [7], [None]],
}
BAD_FIELDS = [(name, value) for name, values in BAD_VALUES.items() for value in values]


# SD-WebUI takes numbers for text, so those are no mistake there.
BAD_ORDERS = [
    (path, name, value)
    for path in (GENERATE, TXT2IMG)
    for name, value in BAD_FIELDS
    if path == GENERATE or value not in (7, [7])
]


@pytest.mark.parametrize(("path", "name", "value"), BAD_ORDERS, ids=lambda part: repr(part)[:24])
def test_a_bad_field_is_refused_with_its_name(server: LiveServer, path: str, name: str, value: object) -> None:
    # The model, by its documented name, asks for the documented errors.
    reply = post_text(server, path, json.dumps(order(**{"model": "flux2-tiny", name: value})))
    content = assert_refused(reply, 400, "INVALID_REQUEST", sdapi=path == TXT2IMG)
    assert content["details"]["field"].partition(".")[0] == name
    assert name in content["error"]
    # What was sent is not sent back in full.
    assert len(content["error"]) < 500


@pytest.mark.parametrize("name", ["image_strength", "denoising_strength"])
@pytest.mark.parametrize("value", [1.1, -0.1, 1e308])
def test_a_strength_beyond_its_range_is_refused(server: LiveServer, name: str, value: float) -> None:
    fields = order(init_images=[picture()], **{name: value})
    content = assert_refused(server.post(GENERATE, fields), 400, "INVALID_REQUEST")
    assert "strength" in content["details"]["field"]


@pytest.mark.parametrize("scale", [1e308, 10.5, -11])
def test_a_scale_beyond_its_range_is_refused(tight: LiveServer, scale: float) -> None:
    content = assert_refused(
        tight.post(GENERATE, order(lora_files=["inside"], lora_scales=[scale])), 400, "INVALID_REQUEST"
    )
    assert "lora" in content["details"]["field"]


@pytest.mark.parametrize("sides", [(5, 1), (1, 5), (0, 1), (-1, -1), (10**30, 10**30), (10**4000, 1)])
def test_more_pictures_by_batches_than_allowed_are_refused(server: LiveServer, sides: tuple[int, int]) -> None:
    fields = order(model="flux2-tiny", batch_size=sides[0], n_iter=sides[1])
    content = assert_refused(post_text(server, TXT2IMG, json.dumps(fields)), 400, "INVALID_REQUEST", sdapi=True)
    assert content["details"]["field"] in {"num_images", "n_iter", "batch_size"}
    assert len(content["error"]) < 500


def test_more_references_than_allowed_are_refused(server: LiveServer) -> None:
    assert_refused(server.post(GENERATE, order(extra_images=[picture()] * 9)), 400, "INVALID_REQUEST")


def test_a_second_picture_to_repaint_is_refused(server: LiveServer) -> None:
    content = assert_refused(server.post(GENERATE, order(init_images=[picture()] * 2)), 400, "INVALID_REQUEST")
    assert content["details"]["field"] == "init_images"


def test_a_mask_without_its_picture_is_refused(server: LiveServer) -> None:
    content = assert_refused(server.post(GENERATE, order(mask=picture())), 400, "INVALID_REQUEST")
    assert content["details"]["field"] == "mask"


@pytest.mark.parametrize("fields", [{}, {"init_images": []}, {"init_images": None}])
def test_repainting_without_a_picture_is_refused(server: LiveServer, fields: dict[str, object]) -> None:
    content = assert_refused(
        server.post(IMG2IMG, order(model="flux2-tiny", **fields)), 400, "INVALID_REQUEST", sdapi=True
    )
    assert content["details"]["field"] == "init_images"


def test_a_long_idempotency_key_is_refused(server: LiveServer) -> None:
    reply = server.post(GENERATE, order(), headers={"Idempotency-Key": "x" * 201})
    assert assert_refused(reply, 400, "INVALID_REQUEST")["details"]["field"] == "Idempotency-Key"


def test_an_idempotency_key_of_another_order_is_refused(server: LiveServer) -> None:
    key = {"Idempotency-Key": "test_errors"}
    assert server.post(GENERATE, order(), headers=key).status_code == 200
    assert_refused(server.post(GENERATE, order(steps=2), headers=key), 409, "CONFLICT")


# Models and adapters


@pytest.mark.parametrize("path", ORDERS)
def test_an_unknown_model_is_refused_with_those_there_are(server: LiveServer, path: str) -> None:
    reply = server.post(path, order(model="nothing", init_images=[picture()]))
    content = assert_refused(reply, 404, "MODEL_NOT_FOUND", sdapi=path != GENERATE)
    assert "flux2-klein-4b" in content["details"]["available_models"]


@pytest.mark.parametrize("name", ["schnell", "dev", "flux1-dev", "FLUX.1-schnell", "krea-dev"])
def test_flux1_names_are_answered_as_documented(server: LiveServer, name: str) -> None:
    for reply in (server.post(GENERATE, order(model=name)), server.get(f"/api/v1/models/{name}/status")):
        content = assert_refused(reply, 404, "MODEL_NOT_FOUND")
        assert content["error"] == f"Model '{name}' not found. {FLUX1}"


@pytest.mark.parametrize("name", ["seedvr2"])
def test_a_model_that_cannot_paint_is_refused(server: LiveServer, name: str) -> None:
    assert_refused(server.post(GENERATE, order(model=name)), 400, "MODEL_UNSUPPORTED")


def test_an_unknown_adapter_is_refused(server: LiveServer, tight: LiveServer) -> None:
    for live in (server, tight):
        content = assert_refused(live.post(GENERATE, order(lora_files=["nothing"])), 404, "LORA_NOT_FOUND")
        assert content["details"] == {"lora": "nothing"}
        assert "models/loras" not in content["error"]
        assert str(tight.output.parent) not in content["error"]


PIECES = [
    "..",
    ".",
    "/",
    "\\",
    "%2e%2e",
    "%2f",
    "\0",
    "~",
    "~root",
    "~nobody-of-this-name",
    "C:",
    "a" * 300,
    "etc/passwd",
]
PATHS = st.lists(st.sampled_from([*PIECES, "flux2-tiny", "inside", ".safetensors", ":", "ä", "\n"]), min_size=1)
PATHS_GIVEN = PATHS.map("".join).filter(lambda name: name not in {"flux2-tiny", "inside", "inside.safetensors"})
quick = settings(max_examples=60, deadline=None, database=None)


@quick
@given(PATHS_GIVEN)
def test_a_path_is_no_model(server: LiveServer, name: str) -> None:
    assert_refused(server.post(GENERATE, order(model=name)), 404, "MODEL_NOT_FOUND")


@quick
@given(PATHS_GIVEN)
def test_a_path_in_the_address_is_no_model(server: LiveServer, name: str) -> None:
    url = f"{server.url}/api/v1/models/{quote(name, safe='')}/status"
    prepared = requests.Request("GET", url).prepare()
    prepared.url = url
    with requests.Session() as session:
        reply = session.send(prepared, timeout=60, allow_redirects=False)
    assert_refused(reply, 404, reply.json()["code"])
    assert reply.json()["code"] in {"MODEL_NOT_FOUND", "NOT_FOUND"}


@quick
@given(PATHS_GIVEN)
@example("a" * 300)
@example("~nobody-of-this-name/x")
@example("~/x")
@example("")
def test_a_path_is_no_adapter(tight: LiveServer, name: str) -> None:
    reply = tight.post(GENERATE, order(lora_files=[name]))
    content = assert_refused(reply, reply.status_code, reply.json()["code"])
    assert (reply.status_code, content["code"]) in {(404, "LORA_NOT_FOUND"), (400, "LORA_INVALID")}
    assert str(tight.output.parent) not in reply.text


@pytest.mark.parametrize(
    "there", ["/etc/passwd", "{}/outside.safetensors", "../outside.safetensors", "link", "../outside"]
)
def test_whether_a_file_is_outside_the_folder_of_adapters_is_not_told(tight: LiveServer, there: str) -> None:
    name = there.format(tight.output.parent)
    answers = [tight.post(GENERATE, order(lora_files=[given])) for given in (name, f"{name}-nothing")]
    texts = [reply.json()["error"].replace("-nothing", "") for reply in answers]
    assert answers[0].status_code == answers[1].status_code == 404
    assert texts[0] == texts[1]


# Pictures


def form_of(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, kind)
    return buffer.getvalue()


STRANGE: dict[str, bytes] = {
    "nothing": b"",
    "text": b"this is a text",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
    "pdf": b"%PDF-1.7\n",
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3) + bytes(64),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n",
    "fits": b"SIMPLE  =                    T".ljust(2880),
    "tiff": form_of("TIFF"),
    "ico": form_of("ICO"),
    "ppm": form_of("PPM"),
    "icns": b"icns" + bytes(60),
    "half a header": form_of("PNG")[:20],
    "no pixels": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)),
}


@pytest.mark.parametrize("field", ["init_images", "extra_images", "mask"])
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_picture_is_refused(server: LiveServer, field: str, kind: str) -> None:
    sent = base64.b64encode(STRANGE[kind] or b"\0").decode()
    fields = {"init_images": [picture()], field: sent if field == "mask" else [sent]}
    content = assert_refused(server.post(GENERATE, order(**fields)), 400, "INVALID_IMAGE")
    assert content["details"]["field"] == field


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("prefix", ["", "data:image/any;base64,"])
def test_pictures_of_the_usual_kinds_are_taken(server: LiveServer, kind: str, prefix: str) -> None:
    reply = server.post(GENERATE, order(init_images=[prefix + picture(form=kind)]))
    assert server.wait_for_status(reply.json()["job_id"])["status"] == "completed"


@pytest.mark.parametrize("text", ["=", "a", "data:image/png;base64,a", "äöü", "data:,", ""])
def test_broken_base64_is_refused(server: LiveServer, text: str) -> None:
    reply = server.post(IMG2IMG, order(model="flux2-tiny", init_images=[text]))
    content = assert_refused(reply, 400, "INVALID_IMAGE", sdapi=True)
    assert content["details"]["field"] == "init_images"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_address_of_a_picture_is_refused(server: LiveServer, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.2)
        address = f"{scheme}://127.0.0.1:{canary.getsockname()[1]}/picture.png"
        content = assert_refused(server.post(GENERATE, order(init_images=[address])), 400, "INVALID_IMAGE")
        assert "not its address" in content["error"]
        with pytest.raises(TimeoutError):
            canary.accept()


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/a", "HTTP://127.0.0.1/a", "/etc/passwd"])
def test_other_addresses_are_no_pictures_either(server: LiveServer, address: str) -> None:
    assert_refused(server.post(GENERATE, order(init_images=[address])), 400, "INVALID_IMAGE")


@pytest.mark.parametrize("side", [6000, 9000, 13_000, 19_000])
def test_a_decompression_bomb_is_refused_without_being_unpacked(server: LiveServer, side: int) -> None:
    sent = make_bomb(side)
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    began = time.monotonic()
    reply = server.post(GENERATE, order(init_images=[sent]))
    seconds = time.monotonic() - began
    assert_refused(reply, 400, "INVALID_IMAGE")
    assert seconds < 1
    assert process.memory_info().rss - before < MOST_GROWTH


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
