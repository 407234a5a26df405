"""The Python package `webuiapi` for SD-WebUI's API, against a real server."""

import re
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import pytest
import webuiapi
from PIL import Image

from tests.support.live_server import LiveServer
from tests.support.marks import slow_but
from tests.support.running_jobs import STEPS, run_until_step
from tests.support.sdwebui_bodies import half_mask, noise, pixels
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

SMALL: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "seed": 7}
LATENT = ["Latent", *(f"Latent ({name})" for name in ("antialiased", "bicubic", "bicubic antialiased"))]


def client(live: LiveServer, **options: Any) -> webuiapi.WebUIApi:
    address = urlsplit(live.url)
    return webuiapi.WebUIApi(host=address.hostname, port=address.port, steps=2, **options)


@pytest.fixture
def api(server: LiveServer) -> Iterator[webuiapi.WebUIApi]:
    api = client(server)
    yield api
    api.session.close()


@pytest.fixture
def furnished_api(furnished: LiveServer) -> Iterator[webuiapi.WebUIApi]:
    api = client(furnished)
    yield api
    api.session.close()


# Painting


def test_words_become_a_picture_and_its_facts(api: webuiapi.WebUIApi) -> None:
    result = api.txt2img(**SMALL, negative_prompt="a square")
    assert (result.image.format, result.image.size) == ("PNG", (64, 64))
    assert result.info["all_seeds"] == [7]
    assert result.info["infotexts"][0] == result.image.info["parameters"]
    assert result.parameters["steps"] == 2
    # Fields that it always sends unasked have no effect.
    assert result.info["denoising_strength"] is None
    assert (pixels(result.image) == pixels(api.txt2img(**SMALL, cfg_scale=1.0, sampler_name="Euler").image)).all()


@pytest.mark.parametrize(("batch_size", "n_iter"), [(2, 1), (1, 2), (2, 2)])
def test_batches_have_consecutive_seeds(api: webuiapi.WebUIApi, batch_size: int, n_iter: int) -> None:
    result = api.txt2img(**SMALL, batch_size=batch_size, n_iter=n_iter, steps=1)
    count = batch_size * n_iter
    assert result.info["all_seeds"] == list(range(7, 7 + count))
    assert len(result.images) == len(result.info["infotexts"]) == count
    assert result.info["batch_size"] == batch_size
    assert (pixels(result.images[1]) != pixels(result.images[0])).any()


def test_pictures_may_be_left_out_of_the_reply(api: webuiapi.WebUIApi) -> None:
    result = api.txt2img(**SMALL, send_images=False)
    assert (result.images, result.info["all_seeds"]) == ([], [7])


@pytest.mark.parametrize(
    "upscaler", [*slow_but(webuiapi.HiResUpscaler, webuiapi.HiResUpscaler.Latent), "4x-UltraSharp"]
)
def test_hires_takes_every_upscaler_it_knows(api: webuiapi.WebUIApi, upscaler: str) -> None:
    result = api.txt2img(**SMALL, enable_hr=True, hr_upscaler=upscaler, hr_scale=1.5, denoising_strength=0.5, steps=1)
    assert result.image.size == (96, 96)
    assert (result.info["width"], result.info["denoising_strength"]) == (64, 0.5)


@pytest.mark.parametrize(("box", "size"), [((128, 64), (128, 64)), ((96, 0), (96, 96)), ((0, 96), (96, 96))])
def test_hires_has_the_size_asked_for(api: webuiapi.WebUIApi, box: tuple[int, int], size: tuple[int, int]) -> None:
    result = api.txt2img(**SMALL, enable_hr=True, hr_resize_x=box[0], hr_resize_y=box[1], hr_second_pass_steps=1)
    assert result.image.size == size


def test_a_variation_lies_between_two_seeds(api: webuiapi.WebUIApi) -> None:
    plain, other = api.txt2img(**SMALL), api.txt2img(**{**SMALL, "seed": 8})
    varied = api.txt2img(**SMALL, subseed=8, subseed_strength=1.0)
    assert varied.info["all_subseeds"] == [8]
    assert (pixels(varied.image) != pixels(plain.image)).any()
    assert (
        np.abs(pixels(varied.image) - pixels(other.image)).mean()
        < np.abs(pixels(varied.image) - pixels(plain.image)).mean()
    )


@pytest.mark.parametrize("size", [(64, 64), (96, 64), (40, 104)])
def test_a_picture_is_repainted_at_the_size_asked_for(api: webuiapi.WebUIApi, size: tuple[int, int]) -> None:
    for mode in (0, 1, 2, 3):
        result = api.img2img(images=[noise(*size)], **SMALL, denoising_strength=0.5, resize_mode=mode)
        assert result.image.size == (64, 64)
        assert result.info["denoising_strength"] == 0.5


@pytest.mark.parametrize("invert", [0, 1])
@pytest.mark.parametrize("whole", [True, False])
def test_only_what_the_mask_shows_is_repainted(api: webuiapi.WebUIApi, invert: int, whole: bool) -> None:
    source = noise()
    masked = {"mask_image": half_mask(), "mask_blur": 0, "inpainting_mask_invert": invert, "inpaint_full_res": whole}
    result = api.img2img(images=[source], **SMALL, **masked, denoising_strength=1.0, inpainting_fill=1)
    change = np.abs(pixels(result.image) - pixels(source)).max(axis=2)
    kept, painted = (change[:, 32:], change[:, :32]) if invert else (change[:, :32], change[:, 32:])
    assert kept.max() == 0
    assert painted.mean() > 10


def test_several_pictures_are_repainted_at_once(api: webuiapi.WebUIApi) -> None:
    sources = [Image.new("RGB", (64, 64), color) for color in ("white", "black")]
    result = api.img2img(images=sources, **SMALL, batch_size=2, denoising_strength=0)
    assert [int(pixels(image).mean()) for image in result.images] == [255, 0]


def test_sd_upscale_is_a_script_of_its_own(api: webuiapi.WebUIApi) -> None:
    script = {"script_name": "SD upscale", "script_args": ["", 8, "Lanczos", 2.0]}
    result = api.img2img(images=[noise()], **SMALL, **script, denoising_strength=0.3)
    assert result.image.size == (128, 128)


@pytest.mark.parametrize(
    ("wrong", "status", "text"),
    [
        ({"steps": "many"}, 422, "steps"),
        ({"script_name": "nothing"}, 422, "Script 'nothing' not found"),
        ({"controlnet_units": [webuiapi.ControlNetUnit(image=noise())]}, 422, "Script 'ControlNet' not found"),
        ({"adetailer": [webuiapi.ADetailer()]}, 422, "Script 'ADetailer' not found"),
    ],
)
def test_what_cannot_be_done_is_an_error(api: webuiapi.WebUIApi, wrong: Any, status: int, text: str) -> None:
    with pytest.raises(RuntimeError) as caught:
        # Passed explicitly: its default is one mutable dictionary shared by all calls.
        api.txt2img(**{**SMALL, "alwayson_scripts": {}, **wrong})
    assert caught.value.args[0] == status
    assert text in caught.value.args[1]


# Extras


@pytest.mark.parametrize("upscaler", ["Lanczos", "Nearest"])
def test_a_picture_is_enlarged(api: webuiapi.WebUIApi, upscaler: str) -> None:
    result = api.extra_single_image(noise(), upscaler_1=upscaler, upscaling_resize=1.5)
    assert result.image.size == (96, 96)
    assert result.info == f"<p>Postprocess upscale by: 1.5, Postprocess upscaler: {upscaler}</p>"


def test_a_picture_is_enlarged_to_a_size(api: webuiapi.WebUIApi) -> None:
    box: dict[str, Any] = {"resize_mode": 1, "upscaling_resize_w": 128, "upscaling_resize_h": 96}
    assert api.extra_single_image(noise(), upscaler_1="Lanczos", **box).image.size == (128, 96)
    uncut = api.extra_single_image(noise(), upscaler_1="Lanczos", **box, upscaling_crop=False)
    assert uncut.image.size == (128, 128)


def test_without_an_upscaler_a_picture_stays_as_it_is(api: webuiapi.WebUIApi) -> None:
    source = noise()
    assert (pixels(api.extra_single_image(source).image) == pixels(source)).all()


def test_pictures_are_enlarged_in_their_order(api: webuiapi.WebUIApi) -> None:
    sources = [Image.new("RGB", (64, 64), color) for color in ("white", "black")]
    result = api.extra_batch_images(sources, name_list=["a", "b"], upscaler_1=webuiapi.Upscaler.Lanczos)
    assert [image.size for image in result.images] == [(128, 128)] * 2
    assert [int(pixels(image).mean()) for image in result.images] == [255, 0]


def test_an_unknown_upscaler_is_an_error(api: webuiapi.WebUIApi) -> None:
    with pytest.raises(RuntimeError, match="could not find upscaler named LDSR"):
        api.extra_single_image(noise(), upscaler_1=webuiapi.Upscaler.LDSR)


def test_a_picture_tells_how_it_was_made(api: webuiapi.WebUIApi) -> None:
    painted = api.txt2img(**SMALL)
    told = api.png_info(painted.image)
    assert told.info == painted.info["infotexts"][0]
    assert (told.parameters["Prompt"], told.parameters["Seed"], told.parameters["Size-1"]) == (
        "a red circle",
        "7",
        "64",
    )
    # The enlarged picture still carries its infotext.
    enlarged = api.extra_single_image(painted.image, upscaler_1="Lanczos").image
    assert api.png_info(enlarged).info == told.info
    assert (api.png_info(noise()).info, api.png_info(noise()).parameters) == ("", {})


def test_there_is_no_captioner(api: webuiapi.WebUIApi) -> None:
    with pytest.raises(RuntimeError) as caught:
        api.interrogate(noise())
    assert caught.value.args[0] == 404


# While a job runs


def test_a_running_job_is_seen_and_interrupted(server: LiveServer, api: webuiapi.WebUIApi) -> None:
    assert api.get_progress()["state"]["job"] == ""
    with run_until_step(server, lambda: client(server).txt2img(**SMALL, n_iter=3, steps=STEPS), step=2) as waiting:
        told = api.get_progress()
        assert 0 < told["progress"] < 1 / 3
        assert (told["state"]["job"], told["state"]["job_count"], told["state"]["job_no"]) == ("scripts_txt2img", 3, 0)
        assert told["state"]["sampling_steps"] == STEPS
        wait_until(lambda: api.get_progress()["current_image"] is not None)
        assert api.interrupt() == {}
    result = waiting.wait_for_reply()
    assert len(result.images) == 1
    assert (api.get_progress()["progress"], api.get_progress()["state"]["job_count"]) == (0, 0)


def test_a_skipped_picture_is_followed_by_the_next(server: LiveServer, api: webuiapi.WebUIApi) -> None:
    with run_until_step(server, lambda: client(server).txt2img(**SMALL, n_iter=2, steps=STEPS)) as waiting:
        assert api.skip() is None
        wait_until(lambda: api.get_progress()["state"]["job_no"] == 1)
    assert len(waiting.wait_for_reply().images) == 2


def test_it_waits_until_the_server_is_free(server: LiveServer, api: webuiapi.WebUIApi) -> None:
    with run_until_step(server, lambda: client(server).txt2img(**SMALL, steps=12)) as waiting:
        api.util_wait_for_ready(check_interval=0.05)
        waiting.thread.join(5)
        assert len(waiting.wait_for_reply().images) == 1
    api.util_wait_for_ready()


# Options and lists


def test_a_model_is_chosen_by_a_name_like_it_and_put_back(api: webuiapi.WebUIApi) -> None:
    assert api.util_get_current_model() == "flux2-tiny"
    try:
        api.util_set_model("Flux2-Tiny-Base ")
        assert api.util_get_current_model() == api.get_options()["sd_model_checkpoint"] == "flux2-tiny-base"
        assert api.txt2img(**SMALL).info["sd_model_name"] == "flux2-tiny-base"
        once = api.txt2img(**SMALL, override_settings={"sd_model_checkpoint": "flux2-tiny"})
        assert once.info["sd_model_name"] == "flux2-tiny"
        assert api.util_get_current_model() == "flux2-tiny-base"
    finally:
        api.util_set_model("flux2-tiny", find_closest=False)
    assert api.util_get_current_model() == "flux2-tiny"
    assert set(api.util_get_model_names()) >= {"flux2-tiny", "flux2-tiny-base"}


def test_options_are_written_and_read_back(api: webuiapi.WebUIApi) -> None:
    before = api.get_options()
    assert api.set_options({"CLIP_stop_at_last_layers": 2, "nothing_of_ours": 1}) is None
    assert api.get_options() == {**before, "CLIP_stop_at_last_layers": 2}
    assert api.set_options(before) is None
    assert api.get_options() == before


def test_lists_are_what_it_reads(api: webuiapi.WebUIApi) -> None:
    assert api.util_get_sampler_names() == ["Euler"]
    assert api.util_get_scheduler_names()
    assert [row["name"] for row in api.get_upscalers()][:3] == ["None", "Lanczos", "Nearest"]
    assert [row["name"] for row in api.get_latent_upscale_modes()][:4] == LATENT
    (model, *_) = api.get_sd_models()
    assert set(model) == {"title", "model_name", "hash", "sha256", "filename", "config"}
    assert re.fullmatch(r"[0-9a-f]{10}", model["hash"])
    assert api.get_options()["sd_model_checkpoint"] in [row["title"] for row in api.get_sd_models()]
    assert api.get_sd_vae() == api.get_hypernetworks() == api.get_face_restorers() == api.get_realesrgan_models() == []
    assert api.get_embeddings() == {"loaded": {}, "skipped": {}}
    assert (api.has_controlnet, api.has_adetailer, api.has_animatediff) == (False, False, False)
    assert api.get_scripts() == {"txt2img": [], "img2img": ["sd upscale"]}
    memory = api.get_memory()
    assert memory["ram"]["free"] + memory["ram"]["used"] == memory["ram"]["total"]
    assert {"system", "active", "allocated", "reserved", "inactive", "events"} == set(memory["cuda"])
    assert api.get_cmd_flags()["api"] is True
    assert api.refresh_checkpoints() is None


def test_an_adapter_and_a_style_that_it_lists_are_used(furnished_api: webuiapi.WebUIApi) -> None:
    api = furnished_api
    assert api.get_loras() == [{"name": "glow", "alias": "glow", "path": "glow.safetensors", "metadata": {}}]
    assert [row["name"] for row in api.get_prompt_styles()] == ["ring", "plain"]
    plain = api.txt2img(**SMALL)
    tagged = api.txt2img(**{**SMALL, "prompt": "a red circle <lora:glow:0.8>"})
    assert (pixels(tagged.image) != pixels(plain.image)).any()
    assert tagged.info["prompt"] == "a red circle <lora:glow:0.8>"
    styled = api.txt2img(**SMALL, styles=["ring", "plain", "unknown"])
    assert (styled.info["prompt"], styled.info["negative_prompt"]) == ("a ring of a red circle, thin", "busy")
    assert styled.info["styles"] == ["ring", "plain", "unknown"]
