"""Replicate's files: uploaded by its own client and by hand, named as inputs, seen by their owner only."""

import asyncio
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import replicate
import requests
from PIL import Image
from replicate.client import Client

from tests.support.documents import KEY
from tests.support.live_server import LiveServer

pytestmark = pytest.mark.system

FILES = "/replicate/v1/files"
SMALL: dict[str, Any] = {"prompt": "x", "width": 64, "height": 64, "num_inference_steps": 1, "output_format": "png"}


def encode_picture(colour: str = "red", form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64), colour).save(buffer, form)
    return buffer.getvalue()


def upload(live: LiveServer, data: bytes, name: str = "a.png", kind: str = "image/png", **more: Any) -> dict[str, Any]:
    reply = live.post(FILES, files={"content": (name, data, kind), **more.pop("files", {})}, **more)
    assert reply.status_code == 201, reply.text
    found: dict[str, Any] = reply.json()
    return found


@pytest.fixture
def client(server: LiveServer) -> Iterator[Client]:
    client = Client(api_token="any", base_url=f"{server.url}/replicate")
    yield client
    client._client.close()


async def run_async(client: Client, order: dict[str, Any]) -> Any:
    try:
        return await client.async_run("a/flux-dev", input=order)
    finally:
        await client._async_client.aclose()


@pytest.mark.parametrize("field", ["image", "input_image", "image_prompt", "input_images"])
def test_the_clients_upload_an_open_file_as_an_input(client: Client, tmp_path: Path, field: str) -> None:
    path = tmp_path / "ü b.png"
    path.write_bytes(encode_picture())
    with path.open("rb") as file:
        given: Any = [file] if field == "input_images" else file
        order = {**SMALL, "prompt_strength": 0, field: given}
        outputs: list[Any] = [client.run("a/flux-dev", input=order), asyncio.run(run_async(client, order))]
    for found in outputs:
        with Image.open(io.BytesIO(requests.get(str(found[0]), timeout=60).content)) as image:
            assert image.size == (64, 64)
            if field == "image":
                assert image.convert("RGB").getpixel((32, 32))[0] > 200  # type: ignore[index]


def test_the_client_creates_finds_lists_and_deletes_files(client: Client) -> None:
    data = encode_picture()
    made = client.files.create(io.BytesIO(data), filename="../x/a.png", metadata={"a": [1]})
    assert (made.name, made.content_type, made.size, made.metadata) == ("a.png", "image/png", len(data), {"a": [1]})
    assert client.files.get(made.id).checksums == made.checksums
    assert client.files.list()[0].id == made.id
    assert client.files.delete(made.id) is True
    for gone in (client.files.get, client.files.delete):
        with pytest.raises(replicate.exceptions.ReplicateError, match="no such file"):
            gone(made.id)
    assert made.id not in {file.id for file in client.files.list()}


def test_the_javascript_clients_form_is_understood(server: LiveServer) -> None:
    files = {"metadata": ("blob", b'{"a": 1}', "application/json")}
    assert upload(server, b"x", "file_1", "application/octet-stream", files=files)["metadata"] == {"a": 1}


# An address works in each field that takes one, whatever the name that this server was reached by.
@pytest.mark.parametrize("which", ["get", "download"])
@pytest.mark.parametrize("base", [None, "https://pictures.example"])
def test_an_uploaded_file_is_an_input_of_every_api_that_takes_addresses(
    server: LiveServer, which: str, base: str | None
) -> None:
    url = upload(server, encode_picture())["urls"][which]
    url = url.replace(server.url, base) if base else url
    orders: list[tuple[str, dict[str, Any]]] = [
        ("/replicate/v1/predictions", {"version": "flux-dev", "input": {**SMALL, "image": url}}),
        ("/flux/v1/flux-dev", {"prompt": "x", "width": 64, "height": 64, "steps": 1, "input_image": url}),
    ]
    for path, body in orders:
        assert server.post(path, body).status_code in {200, 201}


def test_a_painted_picture_is_an_input_by_its_address(server: LiveServer) -> None:
    small = {**SMALL, "output_format": "webp"}
    order = {"version": "flux-dev", "input": small}
    found = server.post("/replicate/v1/predictions", order, headers={"Prefer": "wait"}).json()
    url = found["output"][0].replace(server.url, "https://pictures.example")
    order["input"] = {**small, "image": url}
    assert server.post("/replicate/v1/predictions", order).status_code == 201
    edit = {"prompt": "x", "width": 64, "height": 64, "steps": 1, "input_image": url}
    assert server.post("/flux/v1/flux-dev", edit).status_code == 200
    # Without a valid signature it is an address of a stranger, which is asked, and here does not exist.
    assert server.post("/flux/v1/flux-dev", {**edit, "input_image": url[:-1]}).status_code == 400


def test_a_file_that_is_no_picture_is_refused_as_an_input(server: LiveServer) -> None:
    url = upload(server, b"no picture", "a.zip", "application/zip")["urls"]["get"]
    reply = server.post("/replicate/v1/predictions", {"version": "flux-dev", "input": {**SMALL, "image": url}})
    assert (reply.status_code, reply.json()["title"]) == (400, "INVALID_IMAGE")


def test_a_file_of_nobody_is_an_address_like_any_other(server: LiveServer) -> None:
    url = f"{server.url}{FILES}/{'a' * 26}"
    reply = server.post("/replicate/v1/predictions", {"version": "flux-dev", "input": {**SMALL, "image": url}})
    assert (reply.status_code, reply.json()["title"]) == (400, "ADDRESS_FORBIDDEN")


def test_its_content_is_at_a_signed_address_and_never_a_page(guarded: LiveServer) -> None:
    key = {"Authorization": f"Bearer {KEY}"}
    assert guarded.post(FILES, files={"content": ("a.png", b"x")}).status_code == 401
    found = upload(guarded, b"<script>", "a.html", "text/html", headers=key)
    reply = requests.get(found["urls"]["download"], timeout=60)
    assert (reply.status_code, reply.content) == (200, b"<script>")
    assert reply.headers["Content-Type"] == "application/octet-stream"
    assert (reply.headers["Content-Disposition"], "sandbox" in reply.headers["Content-Security-Policy"]) == (
        "attachment",
        True,
    )
    assert requests.get(found["urls"]["download"][:-1], timeout=60).status_code == 403
    assert requests.get(found["urls"]["get"], timeout=60).status_code == 401
    assert requests.get(found["urls"]["get"], headers=key, timeout=60).json()["id"] == found["id"]


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({"file": ("a.png", b"x", "image/png")}, "content"),
        ({"content": ("a.png", b"x"), "metadata": (None, "[1]")}, "metadata"),
        ({"content": ("a.png", b"x"), "metadata": (None, "{")}, "metadata"),
        ({"content": ("a.png", b"x"), "metadata": (None, json.dumps({"a": "x" * 70_000}))}, "metadata"),
    ],
)
def test_a_form_that_is_wrong_is_refused_in_replicates_words(
    server: LiveServer, files: dict[str, Any], words: str
) -> None:
    reply = server.post(FILES, files=files)
    assert (reply.status_code, reply.json()["status"]) == (400, 400)
    assert words in reply.json()["detail"]


def test_a_file_larger_than_a_body_may_be_is_refused(tight: LiveServer) -> None:
    reply = tight.post(FILES, files={"content": ("a.png", bytes(2 * 1024**2))})
    assert (reply.status_code, reply.json()["title"]) == (413, "PAYLOAD_TOO_LARGE")
