"""The Klein REST API: its documented fields, ranges and errors."""

import base64
import io
from typing import Any

import pytest
import requests
from PIL import Image

from tests.support.documents import KEY
from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system

SMALL: dict[str, Any] = {"prompt": "a red circle", "width": 256, "height": 256, "steps": 1, "seed": 7}


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.effect_noise((64, 64), 60).save(buffer, "PNG")
    return buffer.getvalue()


def test_health_is_open_and_names_the_documented_model(server: LiveServer) -> None:
    assert server.get("/klein/health").json() == {"status": "ok", "model": "flux2-klein-9b-fp8"}


def test_a_picture_is_at_the_address_it_names(server: LiveServer) -> None:
    reply = server.post("/klein/generate", {**SMALL, "height": 264})
    assert reply.status_code == 200, reply.text
    content = reply.json()
    assert set(content) == {"image_url", "seed", "width", "height", "generation_time_seconds"}
    assert (content["seed"], content["width"], content["height"]) == (7, 256, 264)
    with Image.open(io.BytesIO(requests.get(content["image_url"], timeout=30).content)) as image:
        assert (image.format, image.size) == ("PNG", (256, 264))


@pytest.mark.parametrize("how", ["image_url", "image_base64"])
def test_a_picture_is_edited_by_address_or_in_base64(trusting: LiveServer, how: str) -> None:
    job_id = trusting.submit(width=80)
    trusting.wait_for_status(job_id)
    source = f"{trusting.url}/api/v1/jobs/{job_id}/images/0"
    value = source if how == "image_url" else base64.b64encode(picture()).decode()
    reply = trusting.post("/klein/edit", {"prompt": "in blue", how: value, "steps": 1})
    assert reply.status_code == 200, reply.text
    assert reply.json()["width"] == (80 if how == "image_url" else 64)


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ""},
        {"prompt": None},
        {"width": 255},
        {"width": 2049},
        {"height": 0},
        {"steps": 0},
        {"steps": 51},
        {"cfg": 20.1},
        {"cfg": -1},
        {"guidance": 21},
        {"seed": "x"},
        {"width": 2048, "height": 2048},
    ],
)
def test_what_is_out_of_its_range_is_refused(server: LiveServer, wrong: dict[str, Any]) -> None:
    reply = server.post("/klein/generate", {**SMALL, **wrong})
    assert (reply.status_code, bool(reply.json()["error"])) == (400, True)


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"image_base64": "no picture"},
        {"image_url": "http://127.0.0.1:1/x.png"},
        {"image_url": "http://169.254.169.254/latest/meta-data/"},
        {"image_url": "file:///etc/passwd"},
    ],
)
def test_an_edit_without_a_picture_that_can_be_had_is_refused(server: LiveServer, body: dict[str, Any]) -> None:
    assert server.post("/klein/edit", {"prompt": "in blue", **body}).status_code == 400


def test_keys_guard_all_but_health(guarded: LiveServer) -> None:
    assert guarded.get("/klein/health").status_code == 200
    assert guarded.post("/klein/generate", SMALL).status_code == 401
    assert guarded.post("/klein/generate", SMALL, headers={"X-API-Key": "wrong"}).status_code == 401
    reply = guarded.post("/klein/generate", SMALL, headers={"X-API-Key": KEY})
    assert reply.status_code == 200
    # The signed URL needs no API key.
    assert requests.get(reply.json()["image_url"], timeout=30).status_code == 200


def test_it_answers_at_the_root_and_on_a_port_of_its_own(tmp_path: Any, free_tcp_port: int) -> None:
    with run_server(
        tmp_path / "output", "--root-dialect", "klein", "--set", f"dialects.ports=klein:{free_tcp_port}"
    ) as live:
        assert live.get("/health").json()["status"] == "ok"
        assert live.post("/generate", {**SMALL, "steps": 0}).status_code == 400
        assert live.get("/api/v1/health").json()["status"] == "healthy"
        own = f"http://127.0.0.1:{free_tcp_port}"
        reply = requests.post(f"{own}/generate", json=SMALL, timeout=60)
        assert reply.status_code == 200
        assert reply.json()["image_url"].startswith(own)
        assert requests.get(reply.json()["image_url"], timeout=30).status_code == 200


def test_it_can_be_switched_off(tmp_path: Any) -> None:
    with run_server(tmp_path / "output", "--set", "dialects.enabled=bfl") as live:
        assert live.get("/klein/health").status_code == 404
