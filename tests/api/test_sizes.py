"""Any size is painted exactly where the imitated API takes it."""

import base64
import io
from typing import Any

import pytest
import requests
from PIL import Image

from tests.support.live_server import LiveServer
from tests.support.photographs import encode, scene

pytestmark = pytest.mark.system

WORDS = {"prompt": "x", "steps": 1}
PICTURE = base64.b64encode(encode(scene(96, 64))).decode()


def opened(data: bytes | str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data) if isinstance(data, str) else data))


def answer(reply: requests.Response) -> Any:
    assert reply.status_code in {200, 201}, reply.text[:300]
    return reply.json()


@pytest.mark.parametrize(
    ("path", "fields", "size"),
    [
        ("txt2img", {"width": 70, "height": 123}, (70, 123)),
        ("txt2img", {"width": 40, "height": 65}, (40, 65)),
        ("img2img", {"width": 77, "height": 90, "init_images": [PICTURE]}, (77, 90)),
        # The other side is that of the picture.
        ("img2img", {"width": 77, "init_images": [PICTURE]}, (77, 64)),
        ("img2img", {"height": 77, "init_images": [PICTURE]}, (96, 77)),
    ],
)
def test_sd_webuis_api_takes_any_size(
    server: LiveServer, path: str, fields: dict[str, object], size: tuple[int, int]
) -> None:
    reply = answer(server.post(f"/sdapi/v1/{path}", {**WORDS, **fields}))
    assert opened(reply["images"][0]).size == size
    assert (reply["parameters"]["width"], reply["parameters"]["height"]) == size


@pytest.mark.parametrize(
    "fields", [{"width": 0}, {"height": -8}, {"width": 5000}, {"width": 70, "model": "flux2-tiny"}]
)
def test_it_refuses_what_is_no_size_or_undocumented_beside_documented_fields(
    server: LiveServer, fields: dict[str, object]
) -> None:
    reply = server.post("/sdapi/v1/txt2img", {**WORDS, "width": 64, "height": 64, **fields})
    assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_REQUEST")


def test_openai_takes_any_size(server: LiveServer) -> None:
    reply = answer(server.post("/v1/images/generations", {**WORDS, "size": "70x123"}))
    assert opened(reply["data"][0]["b64_json"]).size == (70, 123)


@pytest.mark.parametrize(
    ("fields", "size"),
    [({"width": 70, "height": 40}, (70, 40)), ({"width": 77, "image": f"data:image/png;base64,{PICTURE}"}, (77, 64))],
)
def test_replicate_takes_any_size(server: LiveServer, fields: dict[str, object], size: tuple[int, int]) -> None:
    inputs = {"prompt": "x", "num_inference_steps": 1, **fields}
    body = {"version": "flux2-tiny", "input": inputs}
    found = answer(server.post("/replicate/v1/predictions", body, headers={"Prefer": "wait"}))
    assert opened(requests.get(found["output"][0], timeout=30).content).size == size
    assert (found["input"]["width"], found["input"]["height"]) == size


def test_black_forest_labs_takes_any_size(server: LiveServer) -> None:
    name = answer(server.post("/v1/flux2-tiny", {**WORDS, "width": 70, "height": 65}))["id"]
    server.wait_for_status(name)
    found = answer(server.get(f"/v1/get_result?id={name}"))
    assert opened(requests.get(found["result"]["sample"], timeout=30).content).size == (70, 65)


def test_the_documented_api_refuses_what_it_documents_to_refuse(server: LiveServer) -> None:
    assert server.post("/api/v1/generate", {**WORDS, "width": 70, "height": 64}).status_code == 400
