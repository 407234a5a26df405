"""/sdapi/v1 as SD-WebUI's clients use it, beyond the document's examples."""

import base64
import io
import json
import re
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.support.live_server import LiveServer

pytestmark = pytest.mark.system

SMALL: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2, "seed": 7}
TXT2IMG, IMG2IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"
# Section 4 of the contract: a strict client rejects the reply unless all fields are there with these types.
INFO: dict[str, Any] = {
    **dict.fromkeys(("prompt", "negative_prompt", "sampler_name", "sd_model_name", "sd_model_hash", "version"), str),
    **dict.fromkeys(("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds", "infotexts", "styles"), list),
    **dict.fromkeys(("seed", "subseed", "width", "height", "steps", "batch_size", "clip_skip"), int),
    **dict.fromkeys(("seed_resize_from_w", "seed_resize_from_h", "index_of_first_image"), int),
    **dict.fromkeys(("restore_faces", "is_using_inpainting_conditioning"), bool),
    **dict.fromkeys(("subseed_strength", "cfg_scale"), (int, float)),
    **dict.fromkeys(("face_restoration_model", "sd_vae_name", "sd_vae_hash"), (str, type(None))),
    "denoising_strength": (int, float, type(None)),
    "extra_generation_params": dict,
    "job_timestamp": str,
}
# Fields that clients send and FLUX.2 does not use.
NOISE = {
    "override_settings": {"sd_model_checkpoint": "flux2-dev", "CLIP_stop_at_last_layers": 2},
    "override_settings_restore_afterwards": True,
    "alwayson_scripts": {"ControlNet": {"args": []}},
    "sampler_name": "DPM++ 2M Karras",
    "sampler_index": "Euler a",
    "scheduler": "karras",
    "enable_hr": False,
    "save_images": True,
    "send_images": True,
    "styles": ["None"],
    "url": "http://localhost:7860",
    "auth": "",
    "clip_skip": 1,
    "restore_faces": False,
    "tiling": False,
}


def paint(live: LiveServer, path: str = TXT2IMG, /, **fields: object) -> Any:
    reply = live.post(path, {**SMALL, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def encode_base64(image: Image.Image, prefix: str = "") -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return prefix + base64.b64encode(buffer.getvalue()).decode()


def pixels(text: str) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text, validate=True))).convert("RGB"))


def noise(side: int = 64) -> Image.Image:
    return Image.effect_noise((side, side), 60).convert("RGB")


def difference(first: str, second: str) -> float:
    return float(np.abs(pixels(first).astype(int) - pixels(second)).mean())


def test_info_is_a_string_with_everything_a_strict_client_checks_for(server: LiveServer) -> None:
    reply = paint(server, negative_prompt="a square", batch_size=2)
    assert isinstance(reply["info"], str)
    info = json.loads(reply["info"])
    assert {name: type(info.get(name)) for name, kind in INFO.items() if not isinstance(info.get(name), kind)} == {}
    assert set(INFO) <= set(info)
    for name in ("all_prompts", "all_negative_prompts", "all_seeds", "all_subseeds", "infotexts"):
        assert len(info[name]) == len(reply["images"]) == 2
    assert (info["seed"], info["all_seeds"], info["steps"]) == (7, [7, 8], 2)
    assert (info["width"], info["height"], info["cfg_scale"]) == (64, 64, 1)
    assert re.fullmatch(r"\d{14}", info["job_timestamp"])
    assert re.fullmatch(r"Generated 2 image\(s\) in \d+\.\ds", info["message"])


def test_an_infotext_is_read_as_its_clients_read_it(server: LiveServer) -> None:
    reply = paint(server, prompt="first line\nsecond: line", negative_prompt="a square")
    (text,) = json.loads(reply["info"])["infotexts"]
    assert text.startswith("first line\nsecond: line\nNegative prompt: a square\nSteps: 2, ")
    parts = dict(part.split(": ", 1) for part in text.splitlines()[-1].split(", "))
    assert list(parts)[:5] == ["Steps", "Sampler", "CFG scale", "Seed", "Size"]
    assert (parts["Seed"], parts["Size"], parts["Model"]) == ("7", "64x64", "flux2-tiny")
    with Image.open(io.BytesIO(base64.b64decode(reply["images"][0]))) as image:
        assert image.info["parameters"] == text


def test_pictures_are_bare_base64_png(server: LiveServer) -> None:
    (text,) = paint(server)["images"]
    assert re.fullmatch(r"[A-Za-z0-9+/]+=*", text)
    data = base64.b64decode(text, validate=True)
    assert data.startswith(b"\x89PNG\r\n\x1a\n")
    with Image.open(io.BytesIO(data)) as image:
        assert (image.format, image.size) == ("PNG", (64, 64))


@pytest.mark.parametrize("path", [TXT2IMG, IMG2IMG])
def test_what_means_nothing_to_it_is_ignored(server: LiveServer, path: str) -> None:
    source = {"init_images": [encode_base64(noise())]} if path == IMG2IMG else {}
    plain, noisy = paint(server, path, **source), paint(server, path, **source, **NOISE)
    assert noisy["images"] == plain["images"]
    # Ignored fields are echoed in `parameters`, except unknown names.
    unknown = {"url", "auth", "clip_skip"} | ({"enable_hr"} if path == IMG2IMG else set())
    echo = {name: value for name, value in NOISE.items() if name not in unknown}
    assert {name: noisy["parameters"][name] for name in echo} == echo


def test_null_is_as_good_as_left_out(server: LiveServer) -> None:
    names = [
        *("negative_prompt", "model", "sd_model_checkpoint", "guidance", "cfg_scale", "num_images", "batch_size"),
        *("n_iter", "lora_files", "lora_scales", "low_ram", "init_images", "image_strength", "denoising_strength"),
        *("mask", "extra_images", "priority", "override_settings", "alwayson_scripts", "sampler_name", "styles"),
    ]
    assert paint(server, **dict.fromkeys(names))["images"] == paint(server)["images"]
    usual = paint(server, seed=None, steps=None)
    assert usual["parameters"]["seed"] == json.loads(usual["info"])["seed"] >= 0
    drawn = paint(server, seed=-1)
    assert (drawn["parameters"]["seed"], json.loads(drawn["info"])["seed"] >= 0) == (-1, True)
    assert usual["parameters"]["steps"] == 4


def test_numbers_may_be_text_as_many_clients_send_them(server: LiveServer) -> None:
    sent = {"cfg_scale": "7.0", "steps": "2", "seed": "7", "width": "64", "height": 64.0, "batch_size": "1.0"}
    reply = paint(server, **sent, denoising_strength="0.75", n_iter=1.0)
    assert reply["images"] == paint(server)["images"]
    # `cfg_scale` is echoed as requested; `guidance` is the value that was used.
    expected = {"steps": 2, "seed": 7, "width": 64, "height": 64, "num_images": 1, "cfg_scale": 7, "guidance": 1}
    assert {name: reply["parameters"][name] for name in expected} == expected


def test_txt2img_has_no_use_for_a_picture(server: LiveServer) -> None:
    ignored = {"init_images": [encode_base64(noise())], "mask": encode_base64(noise()), "denoising_strength": 0.7}
    reply = paint(server, **ignored)
    assert reply["images"] == paint(server)["images"]
    assert json.loads(reply["info"])["denoising_strength"] is None
    # A picture that cannot be decoded is ignored too.
    assert paint(server, init_images=["not a picture"])["images"] == reply["images"]


@pytest.mark.parametrize("name", ["denoising_strength", "image_strength"])
@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_strength_is_how_much_is_changed(server: LiveServer, name: str, prefix: str) -> None:
    source = noise()
    replies = [
        paint(server, IMG2IMG, init_images=[encode_base64(source, prefix)], steps=4, **{name: strength})
        for strength in (0, 0.5, 1)
    ]
    changes = [difference(reply["images"][0], encode_base64(source)) for reply in replies]
    assert changes[0] == 0
    assert changes[0] < changes[1] < changes[2]
    assert [reply["parameters"]["denoising_strength"] for reply in replies] == [0, 0.5, 1]
    assert [json.loads(reply["info"])["denoising_strength"] for reply in replies] == [0, 0.5, 1]


def test_a_mask_is_repainted_where_it_is_white_and_nowhere_else(server: LiveServer) -> None:
    source, mask = noise(), Image.new("L", (64, 64), 0)
    mask.paste(255, (32, 0, 64, 64))
    inpainting = {"mask": encode_base64(mask), "mask_blur": 0, "inpaint_full_res": False, "inpainting_fill": 1}
    reply = paint(server, IMG2IMG, init_images=[encode_base64(source)], denoising_strength=1, **inpainting)
    painted, before = pixels(reply["images"][0]), np.asarray(source)
    assert (painted[:, :32] == before[:, :32]).all()
    assert (painted[:, 32:] != before[:, 32:]).mean() > 0.5


def test_a_picture_to_repaint_is_needed(server: LiveServer) -> None:
    for body in (SMALL, {**SMALL, "init_images": []}, {**SMALL, "init_images": None}):
        # Without the documented field `model`, the error has SD-WebUI's format.
        reply = server.post(IMG2IMG, body)
        assert (reply.status_code, reply.json()["detail"]) == (404, "Init image not found")
        reply = server.post(IMG2IMG, {**body, "model": "flux2-tiny"})
        assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_REQUEST")


def listen_until_completed(live: LiveServer, count: int, ready: threading.Event) -> Iterator[str]:
    """The job id of each event of all jobs, until `count` jobs have completed."""
    with live.get("/api/v1/events", stream=True) as reply:
        name = ""
        for line in reply.iter_lines(decode_unicode=True):
            ready.set()
            key, _, value = line.partition(": ")
            if key == "event":
                name = value
            elif key == "data" and name in {"started", "progress", "complete"}:
                yield json.loads(value)["job_id"]
                count -= name == "complete"
                if not count:
                    return


def test_two_clients_that_wait_are_served_one_after_the_other(server: LiveServer) -> None:
    ready, jobs = threading.Event(), list[str]()
    watch = threading.Thread(target=lambda: jobs.extend(listen_until_completed(server, 2, ready)))
    watch.start()
    assert ready.wait(10)
    replies: list[Any] = []
    clients = [
        threading.Thread(target=lambda seed=seed: replies.append(paint(server, seed=seed, steps=12))) for seed in (1, 2)
    ]
    for client in clients:
        client.start()
    for thread in (*clients, watch):
        thread.join(60)
    assert {reply["parameters"]["seed"] for reply in replies} == {1, 2}
    first, second = dict.fromkeys(jobs)
    assert jobs == [first] * jobs.count(first) + [second] * jobs.count(second)


@pytest.mark.parametrize("path", ["interrogate", "version", "sd-modules", "nothing"])
def test_what_is_not_here_says_so_in_json(server: LiveServer, path: str) -> None:
    reply = server.get(f"/sdapi/v1/{path}")
    assert (reply.status_code, reply.json()["detail"], reply.json()["code"]) == (404, "Not Found", "NOT_FOUND")
