"""SD-WebUI's own API tests, with their requests unchanged and this server's results checked."""

import json
from typing import Any

import pytest

from tests.support import sdwebui_bodies as bodies
from tests.support.live_server import LiveServer
from tests.support.sdwebui_bodies import PREFIX, decode_image, encode_base64, half_mask, noise, pixels

pytestmark = pytest.mark.system

API = "/sdapi/v1"
COMPLEX = "((emphasis)), (emphasis1:1.1), [to:1], [from::2], [from:to:0.3], [alt|alt1]"
LISTS = (
    *("cmd-flags", "samplers", "upscalers", "sd-models", "hypernetworks", "face-restorers", "realesrgan-models"),
    *("prompt-styles", "embeddings"),
)


@pytest.mark.parametrize(
    ("case", "sizes"),
    [
        ({}, [(64, 64)]),
        ({"negative_prompt": "example negative prompt"}, [(64, 64)]),
        ({"prompt": COMPLEX}, [(64, 64)]),
        ({"width": 64, "height": 128}, [(64, 128)]),
        ({"enable_hr": True}, [(128, 128)]),
        ({"tiling": True}, [(64, 64)]),
        ({"restore_faces": True}, [(64, 64)]),
        *(({"sampler_index": name}, [(64, 64)]) for name in ("PLMS", "DDIM", "UniPC")),
        ({"n_iter": 2}, [(64, 64)] * 2),
        ({"batch_size": 2}, [(64, 64)] * 2),
    ],
    ids=str,
)
def test_txt2img(server: LiveServer, case: dict[str, Any], sizes: list[tuple[int, int]]) -> None:
    reply = server.post(f"{API}/txt2img", bodies.suite_txt2img(**case))
    assert reply.status_code == 200, reply.text
    assert [decode_image(text).size for text in reply.json()["images"]] == sizes
    info = json.loads(reply.json()["info"])
    assert (info["prompt"], info["steps"]) == (case.get("prompt", "example prompt"), 3)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("invert", [False, True])
def test_img2img(server: LiveServer, masked: bool, invert: bool) -> None:
    source = noise(512, 512)
    mask = encode_base64(half_mask(512, 512), PREFIX) if masked else None
    body = bodies.suite_img2img(encode_base64(source, PREFIX), mask, inpainting_mask_invert=invert)
    reply = server.post(f"{API}/img2img", body)
    assert reply.status_code == 200, reply.text
    (text,) = reply.json()["images"]
    assert decode_image(text).size == (64, 64)
    if masked:
        # Away from the soft edge, unmasked pixels equal the source's.
        kept = slice(48, 64) if invert else slice(0, 16)
        assert (pixels(decode_image(text))[:, kept] == pixels(source.resize((64, 64), resample=1))[:, kept]).all()


def test_img2img_sd_upscale(server: LiveServer) -> None:
    script: dict[str, Any] = {"script_name": "sd upscale", "script_args": ["", 8, "Lanczos", 2.0]}
    reply = server.post(f"{API}/img2img", bodies.suite_img2img(encode_base64(noise(), PREFIX), **script))
    assert reply.status_code == 200, reply.text
    assert [decode_image(text).size for text in reply.json()["images"]] == [(128, 128)]


@pytest.mark.parametrize("case", ["upscaling", "png info", "interrogate"])
def test_extras(server: LiveServer, case: str) -> None:
    source = encode_base64(noise(512, 512), PREFIX)
    body = {
        "upscaling": bodies.suite_extras(source),
        "png info": {"image": source},
        "interrogate": {"image": source, "model": "clip"},
    }[case]
    reply = server.post(f"{API}/extra-single-image", body)
    assert reply.status_code == 200, reply.text
    assert decode_image(reply.json()["image"]).size == ((1024, 1024) if case == "upscaling" else (512, 512))


def test_options_write(server: LiveServer) -> None:
    before = server.get(f"{API}/options").json()["send_seed"]
    assert isinstance(before, bool)
    assert server.post(f"{API}/options", {"send_seed": not before}).status_code == 200
    assert server.get(f"{API}/options").json()["send_seed"] is not before
    assert server.post(f"{API}/options", {"send_seed": before}).status_code == 200


@pytest.mark.parametrize("name", LISTS)
def test_get_api_url(server: LiveServer, name: str) -> None:
    assert server.get(f"{API}/{name}").status_code == 200


def test_its_launcher_sees_that_it_has_started(server: LiveServer) -> None:
    assert server.get("/").status_code == 200
