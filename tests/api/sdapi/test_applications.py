"""Requests of applications that use SD-WebUI, in their order, and the fields they read from the replies."""

import base64
import io
import json
from typing import Any

import pytest
import requests
from PIL import Image

from tests.support import sdwebui_bodies as bodies
from tests.support.live_server import LiveServer
from tests.support.running_jobs import STEPS, get_progress, run_until_step
from tests.support.sdwebui_bodies import PREFIX, decode_image, encode_base64, half_mask, noise, pixels
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

API = "/sdapi/v1"
JSON = {"Content-Type": "application/json"}


def get(live: LiveServer, path: str, **options: Any) -> Any:
    reply = live.get(path, **options)
    assert reply.status_code == 200, reply.text
    return reply.json()


def post(live: LiveServer, path: str, body: object = None, **options: Any) -> Any:
    reply = live.post(path, body, **options)
    assert reply.status_code == 200, reply.text
    return reply.json()


def image_of(text: str) -> Image.Image:
    """Decode as LibreChat, text-generation-webui and aiyabot do: they keep the text before the first comma."""
    return decode_image(text.split(",", 1)[0])


def test_open_webui_chooses_a_model_and_paints(server: LiveServer) -> None:
    headers = {"authorization": ""}
    models = [{"id": row["title"], "name": row["model_name"]} for row in get(server, f"{API}/sd-models")]
    options = get(server, f"{API}/options", headers=headers)
    assert options["sd_model_checkpoint"] in [model["id"] for model in models]
    try:
        # It sends all options back with another model.
        options["sd_model_checkpoint"] = "flux2-tiny-base"
        assert post(server, f"{API}/options", options, headers=headers) is None
        changed = get(server, f"{API}/options", headers=headers)
        assert {**changed, "sd_checkpoint_hash": options["sd_checkpoint_hash"]} == options
    finally:
        post(server, f"{API}/options", {**options, "sd_model_checkpoint": "flux2-tiny"})
    painted = post(server, f"{API}/txt2img", bodies.open_webui("a red circle", 2), headers=headers)
    assert [decode_image(text).size for text in painted["images"]] == [(64, 64)] * 2
    assert json.loads(painted["info"])["prompt"] == "a red circle"


def test_silly_tavern_looks_around_and_paints(server: LiveServer) -> None:
    headers = {"Authorization": "Basic "}
    assert "forge_preset" not in get(server, f"{API}/options", headers=headers)
    upscalers = [row["name"] for row in get(server, f"{API}/upscalers", headers=headers)]
    upscalers[1:1] = [row["name"] for row in get(server, f"{API}/latent-upscale-modes", headers=headers)]
    assert (upscalers[:2], upscalers[-2:]) == (["None", "Latent"], ["Lanczos", "Nearest"])
    assert isinstance(get(server, f"{API}/sd-vae", headers=headers), list)
    assert [row["name"] for row in get(server, f"{API}/samplers", headers=headers)] == ["Euler"]
    schedulers = [row["name"] for row in get(server, f"{API}/schedulers", headers=headers)]
    titles = [row["title"] for row in get(server, f"{API}/sd-models", headers=headers)]
    assert get(server, f"{API}/options", headers=headers)["sd_model_checkpoint"] in titles
    assert post(server, f"{API}/options", {"sd_model_checkpoint": "flux2-tiny"}, headers=headers) is None
    told = get(server, f"{API}/progress", headers=headers)
    assert (told["progress"], told["state"]["job_count"]) == (0.0, 0)
    body = {**bodies.silly_tavern(), "scheduler": schedulers[-1]}
    painted = post(server, f"{API}/txt2img", body, headers=headers)
    # It saves and shows the first picture, which must not be a grid.
    assert decode_image(painted["images"][0]).size == (64, 64)
    assert len(painted["images"]) == 1


def test_silly_tavern_hangs_up_and_interrupts(server: LiveServer) -> None:
    body = {**bodies.silly_tavern(), "steps": 100}
    with pytest.raises(requests.Timeout):
        requests.post(f"{server.url}{API}/txt2img", json=body, timeout=(5, 0.5))
    assert post(server, f"{API}/interrupt", headers={"Authorization": "Basic "}) == {}
    wait_until(lambda: get_progress(server)["state"]["job_count"] == 0, 5)
    # The interrupt does not affect the next job.
    assert json.loads(post(server, f"{API}/txt2img", bodies.n8n())["info"])["steps"] == 2


def test_libre_chat_reads_the_facts_of_its_picture(server: LiveServer) -> None:
    painted = post(server, f"{API}/txt2img", bodies.libre_chat())
    info = json.loads(painted["info"])
    assert image_of(painted["images"][0]).size == (info["width"], info["height"]) == (64, 64)
    line = info["infotexts"][0].split("\n").pop()
    assert line.startswith("Steps: 2, Sampler: Euler, CFG scale: ")
    assert f"Seed: {info['seed']}, Size: 64x64" in line


def test_text_generation_webui_takes_turns_with_its_language_model(server: LiveServer) -> None:
    options = get(server, f"{API}/options")
    assert options["sd_model_checkpoint"] in [row["title"] for row in get(server, f"{API}/sd-models")]
    assert post(server, f"{API}/options", {"sd_model_checkpoint": options["sd_model_checkpoint"]}) is None
    assert post(server, f"{API}/unload-checkpoint", "") == {}
    assert post(server, f"{API}/reload-checkpoint", "") == {}
    painted = post(server, f"{API}/txt2img", bodies.text_generation_webui())
    assert image_of(painted["images"][0]).size == (64, 64)
    assert post(server, f"{API}/unload-checkpoint", "") == {}


def metadata(text: str) -> dict[str, str]:
    """Parse an infotext as the Photoshop plugin does."""
    prompt, _, rest = text.rpartition("\n")
    found = [setting.split(":") for setting in rest[:-1].split(",")]
    parts = {key.strip(): value.strip() for key, value, *_ in found}
    words = prompt.split("Negative prompt: ")
    return {**parts, "prompt": words[0], "negative_prompt": words[1]}


def test_photoshop_looks_around(furnished: LiveServer) -> None:
    options = get(furnished, f"{API}/options")
    assert isinstance(options["inpainting_mask_weight"], float)
    assert options["CLIP_stop_at_last_layers"] == 1
    assert isinstance(options["sd_vae"], str)
    assert [row["name"] for row in get(furnished, f"{API}/loras")] == ["glow"]
    assert list(get(furnished, f"{API}/embeddings")["loaded"]) == []
    components = get(furnished, "/config")["components"]
    (choices,) = [each["props"]["choices"] for each in components if each["props"]["elem_id"] == "txt2img_hr_upscaler"]
    assert {"Latent", "Lanczos"} <= set(choices)
    assert get(furnished, f"{API}/scripts")["img2img"] == ["sd upscale"]
    for missing in ("/controlnet/model_list", "/controlnet/module_list?alias_names=1", "/controlnet/settings"):
        assert (furnished.get(missing).status_code, furnished.get(missing).json()["detail"]) == (404, "Not Found")
    reply = furnished.get("/sdapi/auto-photoshop-sd/heartbeat")
    assert (reply.status_code, reply.json()["detail"]) == (404, "Not Found")
    assert get(furnished, "/user") is None


def test_photoshop_paints_and_reads_what_is_inside_each_picture(server: LiveServer) -> None:
    painted = post(server, f"{API}/txt2img", bodies.photoshop(batch_size=2))
    assert [decode_image(text).size for text in painted["images"]] == [(96, 96)] * 2
    for seed, text in enumerate(painted["images"], start=7):
        facts = metadata(post(server, f"{API}/png-info", {"image": PREFIX + text})["info"])
        assert (facts["Seed"], facts["Size"], facts["prompt"]) == (str(seed), "64x64", "a red circle\n")
        assert facts["negative_prompt"] == "ugly"


@pytest.mark.parametrize("mode", ["img2img", "inpaint"])
def test_photoshop_repaints_its_selection(server: LiveServer, mode: str) -> None:
    source, mask = noise(), encode_base64(half_mask(mode="RGB"))
    masked = {"mask": mask, "expanded_mask": mask, "mask_expansion": 0, "inpaint_full_res": False, "inpainting_fill": 1}
    inpainting = {**masked, "inpaint_full_res_padding": 32, "mask_blur": 0} if mode == "inpaint" else {}
    body = bodies.photoshop(init_images=[encode_base64(source)], mode=mode, denoising_strength=0.9, **inpainting)
    (text,) = post(server, f"{API}/img2img", body)["images"]
    assert decode_image(text).size == (64, 64)
    unchanged = bool((pixels(decode_image(text))[:, :32] == pixels(source)[:, :32]).all())
    assert unchanged is (mode == "inpaint")


def test_photoshop_follows_and_ends_a_job(server: LiveServer) -> None:
    with run_until_step(
        server, lambda: post(server, f"{API}/txt2img", bodies.photoshop(steps=STEPS)), step=2
    ) as waiting:
        told = get(server, f"{API}/progress?skip_current_image=false")
        assert 0 < told["progress"] < 1
        wait_until(lambda: bool(get(server, f"{API}/progress?skip_current_image=false")["current_image"]))
        decode_image(get(server, f"{API}/progress?skip_current_image=false")["current_image"])
        # A Content-Type header with an empty body.
        reply = requests.post(f"{server.url}{API}/interrupt", headers=JSON, timeout=10)
        assert (reply.status_code, reply.json()) == (200, {})
        assert len(waiting.wait_for_reply()["images"]) == 1


def test_aiyabot_starts_and_paints(furnished: LiveServer) -> None:
    session = requests.Session()
    assert get(furnished, f"{API}/cmd-flags")["api"] is True
    assert session.head(furnished.url).status_code < 500
    assert session.post(f"{furnished.url}/login").status_code < 500
    assert [row["prompt"] for row in get(furnished, f"{API}/prompt-styles")] == ["a ring of {prompt}, thin", ""]
    assert get(furnished, f"{API}/embeddings")["skipped"] == {}
    choices = {each["props"]["elem_id"]: each["props"]["choices"] for each in get(furnished, "/config")["components"]}
    assert choices["setting_sd_lora"] == ["None", "glow"]
    assert "Latent" in choices["txt2img_hr_upscaler"]
    # Its models file may have an empty name.
    assert post(furnished, f"{API}/options", {"sd_model_checkpoint": ""}) is None
    painted = post(furnished, f"{API}/txt2img", bodies.aiyabot("None"))
    plain = image_of(painted["images"][0])
    styled = post(furnished, f"{API}/txt2img", bodies.aiyabot("ring"))
    assert (pixels(image_of(styled["images"][0])) != pixels(plain)).any()
    told = post(furnished, f"{API}/png-info", {"image": PREFIX + painted["images"][0]})
    assert told["info"] == plain.info["parameters"]
    hires = bodies.aiyabot("None", enable_hr=True, denoising_strength="0.75", restore_faces=True)
    assert image_of(post(furnished, f"{API}/txt2img", hires)["images"][0]).size == (128, 128)
    source = bodies.aiyabot("None", init_images=[PREFIX + encode_base64(noise())], denoising_strength="0.75")
    assert image_of(post(furnished, f"{API}/img2img", source)["images"][0]).size == (64, 64)
    session.close()


def test_aiyabot_follows_a_job(server: LiveServer) -> None:
    with run_until_step(server, lambda: post(server, f"{API}/txt2img", bodies.aiyabot("None", steps=STEPS)), step=2):
        told = get_progress(server)
        assert told["state"]["job"] != ""
        assert told["state"]["sampling_step"] >= 2
        assert told["eta_relative"] >= 0
    assert get_progress(server)["state"]["job"] == ""


def test_ai_render_repaints_a_rendering(server: LiveServer) -> None:
    source = PREFIX + encode_base64(noise())
    headers = {"User-Agent": "Blender/4.2.0", "Accept": "*/*", "Accept-Encoding": "gzip, deflate, br"}
    painted = post(server, f"{API}/img2img", bodies.ai_render(source), headers=headers)
    data = base64.b64decode(painted["images"][0].replace(PREFIX, ""))
    assert Image.open(io.BytesIO(data)).size == (64, 64)
    names = [row["name"] for row in get(server, f"{API}/upscalers", headers={"Accept": "application/json"})]
    assert [name for name in names if name != "None"] == ["Lanczos", "Nearest"]
    unit = {"controlnet": {"args": [{"module": "depth", "model": "depth"}]}}
    refused = server.post(f"{API}/img2img", {**bodies.ai_render(source), "alwayson_scripts": unit}, headers=headers)
    assert (refused.status_code, refused.json()["detail"]) == (422, "Script 'controlnet' not found")
    # It detects a server without the API by exactly this text.
    assert server.post(f"{API}/img2image", {}).json()["detail"] == "Not Found"


def test_gimp_paints_repaints_inpaints_and_enlarges(server: LiveServer) -> None:
    source = noise()
    assert len(post(server, f"{API}/txt2img", bodies.gimp())["images"]) == 2
    repainting = {"init_images": [PREFIX + encode_base64(source)], "denoising_strength": 0.5}
    assert len(post(server, f"{API}/img2img", bodies.gimp(**repainting))["images"]) == 2
    masked: dict[str, Any] = {"inpainting_mask_invert": 1, "inpainting_fill": 1, "mask_blur": 0.0}
    masked |= {"inpaint_full_res": True, "inpaint_full_res_padding": 0, "mask": PREFIX + encode_base64(half_mask())}
    for text in post(server, f"{API}/img2img", bodies.gimp(**repainting, **masked))["images"]:
        assert (pixels(decode_image(text))[:, 32:] == pixels(source)[:, 32:]).all()
    upscalers = {"upscaler_1": "Lanczos", "upscaler_2": "Nearest", "extras_upscaler_2_visibility": 0.5}
    enlarged = post(
        server, f"{API}/extra-single-image", {"upscaling_resize": 2, **upscalers, "image": encode_base64(source)}
    )
    assert decode_image(enlarged["image"]).size == (128, 128)


def test_krita_watches_and_interrupts(server: LiveServer) -> None:
    body = bodies.ai_render(encode_base64(noise())) | {"steps": STEPS}
    with run_until_step(server, lambda: post(server, f"{API}/img2img", body)):
        told = get(server, f"{API}/progress", params={"skip_current_image": "false"})
        assert told["state"]["job"] == "scripts_img2img"
        assert 0 < told["progress"] < 1
        assert post(server, f"{API}/interrupt") == {}


@pytest.mark.parametrize(
    "unit", [None, {}, [], {"args": None}, {"args": 5}, {"args": [None]}, {"args": [{"enabled": False}]}]
)
def test_a_control_net_that_is_switched_off_is_none(server: LiveServer, unit: object) -> None:
    post(server, f"{API}/txt2img", {**bodies.n8n(), "alwayson_scripts": {"ControlNet": unit}})


@pytest.mark.parametrize("name", ["init_images", "mask", "extra_images"])
def test_addresses_of_pictures_are_not_followed(server: LiveServer, name: str) -> None:
    body = bodies.ai_render(encode_base64(noise()))
    address = f"{server.url}/docs/docs.css"
    reply = server.post(f"{API}/img2img", {**body, name: address if name == "mask" else [address]})
    assert (reply.status_code, reply.json()["error"]) == (500, "HTTPException")
    assert reply.json()["detail"] == "Requests not allowed"


def test_n8n_paints(server: LiveServer) -> None:
    painted = post(server, f"{API}/txt2img", bodies.n8n())
    assert [decode_image(text).size for text in painted["images"]] == [(64, 64)]
    assert painted["parameters"]["seed"] == -1
    assert json.loads(painted["info"])["seed"] >= 0


def test_lists_answer_while_a_job_runs(server: LiveServer) -> None:
    names = ("options", "sd-models", "samplers", "upscalers", "memory", "scripts", "cmd-flags", "prompt-styles")
    with run_until_step(server, lambda: post(server, f"{API}/txt2img", {**bodies.n8n(), "steps": STEPS})):
        answered = [server.get(f"{API}/{name}").status_code for name in names]
        assert answered == [200] * len(names)
        assert get_progress(server)["state"]["job_count"] == 1
