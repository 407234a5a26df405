"""A field is judged only where it has an effect."""

import base64
from typing import Any

import pytest
import requests

from tests.support.live_server import LiveServer
from tests.support.photographs import encode, scene

pytestmark = pytest.mark.system

WORDS: dict[str, Any] = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
PICTURE = base64.b64encode(encode(scene(64, 64))).decode()
TXT2IMG, IMG2IMG, EXTRAS = "/sdapi/v1/txt2img", "/sdapi/v1/img2img", "/sdapi/v1/extra-single-image"
SOURCE = {**WORDS, "init_images": [PICTURE]}
ENLARGE = {"image": PICTURE, "upscaler_1": "Lanczos"}
INPUT = {"prompt": "x", "width": 64, "height": 64, "num_inference_steps": 1}
IMAGES = {"prompt": "x", "size": "64x64", "steps": 1}

# (path, the body, the field with a value that is refused where it has an effect, what gives it one).
CASES: list[tuple[str, dict[str, Any], dict[str, Any], dict[str, Any]]] = [
    (TXT2IMG, WORDS, {"hr_scale": 0}, {"enable_hr": True}),
    (TXT2IMG, {**WORDS, "enable_hr": True, "hr_resize_x": 96}, {"hr_scale": 0}, {"hr_resize_x": 0}),
    (TXT2IMG, WORDS, {"hr_resize_x": 32, "hr_resize_y": 32}, {"enable_hr": True}),
    (TXT2IMG, WORDS, {"hr_second_pass_steps": 1000}, {"enable_hr": True}),
    (TXT2IMG, WORDS, {"denoising_strength": 7.5}, {"enable_hr": True}),
    (IMG2IMG, SOURCE, {"mask_blur": -1}, {"mask": PICTURE}),
    (IMG2IMG, SOURCE, {"mask_blur_x": -1}, {"mask": PICTURE}),
    (IMG2IMG, {**SOURCE, "mask": PICTURE, "mask_blur": 4}, {"mask_blur_y": 5000}, {"mask_blur": None}),
    (IMG2IMG, SOURCE, {"inpainting_fill": 9}, {"mask": PICTURE}),
    (IMG2IMG, SOURCE, {"script_args": ["", 9999]}, {"script_name": "SD upscale"}),
    (EXTRAS, ENLARGE, {"upscaling_resize_w": 0, "upscaling_resize_h": 0}, {"resize_mode": 1}),
    (EXTRAS, {**ENLARGE, "resize_mode": 1}, {"upscaling_resize": 0}, {"resize_mode": 0}),
    (EXTRAS, {"image": PICTURE}, {"upscaling_resize": 99}, {"upscaler_1": "Lanczos"}),
    (EXTRAS, ENLARGE, {"extras_upscaler_2_visibility": -1}, {"upscaler_2": "Nearest"}),
    ("/api/v1/generate", WORDS, {"image_strength": 2}, {"init_images": [PICTURE]}),
    ("/api/v1/generate", WORDS, {"denoising_strength": -1}, {"init_images": [PICTURE]}),
    (
        "/api/v1/generate",
        {**SOURCE, "image_strength": 0.5},
        {"denoising_strength": -1},
        {"image_strength": None},
    ),
    ("/v1/images/generations", IMAGES, {"output_compression": 101}, {"output_format": "jpeg"}),
    ("/v1/images/generations", IMAGES, {"partial_images": 9}, {"stream": True}),
    ("/replicate/v1/predictions", INPUT, {"prompt_strength": 2}, {"image": PICTURE}),
    ("/replicate/v1/predictions", INPUT, {"aspect_ratio": "wide"}, {"width": None, "height": None}),
]


def send(server: LiveServer, path: str, body: dict[str, Any]) -> requests.Response:
    reply = server.post(path, {"version": "flux2-tiny", "input": body} if path.startswith("/replicate") else body)
    name = reply.json().get("job_id") or reply.json().get("id")
    if name:
        server.delete(f"/api/v1/jobs/{name}")
    return reply


@pytest.mark.parametrize(("path", "body", "field", "effect"), CASES)
def test_a_field_without_effect_may_have_any_value(
    server: LiveServer, path: str, body: dict[str, Any], field: dict[str, Any], effect: dict[str, Any]
) -> None:
    unused = send(server, path, {**body, **field})
    assert unused.status_code in {200, 201}, unused.text[:300]
    used = send(server, path, {**body, **field, **effect})
    assert used.status_code == 400, used.text[:300]


def test_the_strength_of_an_edit_without_a_mask_has_no_effect(server: LiveServer) -> None:
    files = [("image", ("a.png", encode(scene(64, 64)), "image/png"))]
    for path, status in (("edits", 200), ("variations", 400)):
        reply = requests.post(
            f"{server.url}/v1/images/{path}",
            data={"prompt": "x", "steps": "1", "strength": "9"},
            files=files,
            timeout=60,
        )
        assert reply.status_code == status, reply.text


def test_events_of_a_webhook_without_an_address_have_no_effect(server: LiveServer) -> None:
    body = {"version": "flux2-tiny", "input": INPUT, "webhook_events_filter": ["nothing"]}
    assert server.post("/replicate/v1/predictions", body).status_code == 201
    hooked = server.post("/replicate/v1/predictions", {**body, "webhook": "https://example.com/hook"})
    assert (hooked.status_code, "webhook_events_filter" in hooked.text) == (400, True)


def test_sd_webuis_slider_goes_to_150_steps(server: LiveServer) -> None:
    assert server.post(TXT2IMG, {**WORDS, "steps": 150}).status_code == 200
    assert server.post(TXT2IMG, {**WORDS, "steps": 151}).status_code == 400
