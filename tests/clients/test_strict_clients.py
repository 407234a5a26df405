"""`sd-backend-client` and `aaa1111`: Python packages that validate SD-WebUI's replies strictly."""

import asyncio
import gc
import importlib
import warnings
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from PIL import Image
from sd_backend_client import (
    A1111Webservice,
    BackendCapabilities,
    DiffusionRequestBody,
    DiffusionUpscalingParams,
    GenerationError,
    GenerationProgress,
    GenerationStatus,
    ResizeMode,
    ServerError,
    connect_to_backend,
)

from tests.support.live_server import LiveServer
from tests.support.running_jobs import STEPS, get_progress
from tests.support.sdwebui_bodies import half_mask, noise, pixels
from tests.support.waiting import wait_until

pytestmark = pytest.mark.system

SMALL: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "seed": 7, "steps": 2}
LISTS = (
    *("samplers", "upscalers", "latent_upscale_modes", "sd_models", "sd_vae", "hypernetworks", "face_restorers"),
    *("realesrgan_models", "prompt_styles", "loras", "lycos"),
)


def connect(live: LiveServer) -> Iterator[A1111Webservice]:
    backend = connect_to_backend(live.url)
    assert isinstance(backend, A1111Webservice)
    yield backend
    backend.disconnect()


@pytest.fixture
def backend(server: LiveServer) -> Iterator[A1111Webservice]:
    yield from connect(server)


@pytest.fixture
def furnished_backend(furnished: LiveServer) -> Iterator[A1111Webservice]:
    yield from connect(furnished)


@pytest.fixture(scope="module")
def aaa1111() -> ModuleType:
    """Import the package; it raises deprecation warnings for its own annotations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return importlib.import_module("aaa1111")


@pytest.fixture
def strict_client(aaa1111: ModuleType, furnished: LiveServer) -> Iterator[Any]:
    # It closes its connections when it is garbage-collected.
    yield aaa1111.client.AAA1111(base_url=furnished.url)
    gc.collect()


# sd-backend-client


def test_it_is_taken_for_sd_webui_and_for_nothing_more(backend: A1111Webservice) -> None:
    expected = {"controlnet": False, "ultimate_upscale": False, "soft_inpainting": False, "free_memory": False}
    assert backend.get_capabilities() == BackendCapabilities(**expected, scheduler=True, interrogate=False)


def test_its_strict_models_take_every_list(furnished_backend: A1111Webservice) -> None:
    backend = furnished_backend
    (model, *_) = backend.get_models()
    assert (model.title, model.model_name, model.config) == ("flux2-tiny", "flux2-tiny", None)
    assert (backend.get_vae(), backend.list_hypernetworks(), backend.list_controlnet_models()) == ([], [], [])
    assert [lora.name for lora in backend.get_loras()] == ["glow"]
    assert [style.name for style in backend.get_styles()] == ["ring", "plain"]
    assert [upscaler.name for upscaler in backend.list_upscalers()] == ["Lanczos", "Nearest"]
    assert [(sampler.name, sampler.display_name) for sampler in backend.list_samplers()] == [("euler", "Euler")]
    assert backend.list_schedulers()
    assert len(backend.get_latent_upscale_modes()) == 6
    assert backend.get_scripts().img2img == [script.name for script in backend.get_script_info()] == ["sd upscale"]
    assert backend.get_config()["sd_model_checkpoint"] in [each.name for each in backend.list_checkpoints()]
    idle = backend.progress_check()
    assert (idle.progress, idle.eta_relative, idle.state.job, idle.state.job_count) == (0, 0, "", 0)
    assert idle.current_image is None
    for refresh in (backend.refresh_checkpoints, backend.refresh_vae, backend.refresh_loras):
        assert refresh().json() is None


def test_words_become_pictures_with_a_seed_each(backend: A1111Webservice) -> None:
    seen: list[GenerationProgress] = []
    params = DiffusionRequestBody(**SMALL, batch_size=2, n_iter=2, scheduler="karras", sd_model_name="flux2-tiny-base")
    handle = backend.submit_txt2img(params)
    result = handle.wait(timeout=60, poll_interval=0.05, on_progress=seen.append)
    assert [image.size for image in result.images] == [(64, 64)] * 4
    assert (result.seeds, result.extra, result.control_maps) == ([7, 8, 9, 10], {}, [])
    assert seen[-1].status is GenerationStatus.FINISHED
    info: Any = result.raw_info
    assert (info.sd_model_name, info.index_of_first_image) == ("flux2-tiny-base", 0)
    # The checkpoint override applied to this picture only.
    assert backend.get_config()["sd_model_checkpoint"] == "flux2-tiny"


@pytest.mark.parametrize("mode", list(ResizeMode))
def test_a_picture_is_repainted_however_it_is_fitted(backend: A1111Webservice, mode: ResizeMode) -> None:
    params = DiffusionRequestBody(**SMALL, init_images=[noise(96, 64)], resize_mode=mode, denoising_strength=0.4)
    assert backend.submit_img2img(params).wait(timeout=60).images[0].size == (64, 64)


@pytest.mark.parametrize(("side", "points"), [(96, None), (64, [(0, 0)])])
def test_a_masked_part_is_repainted_at_full_size(backend: A1111Webservice, side: int, points: Any) -> None:
    # With points, the client crops the part itself and pastes it back.
    source = noise(side, side)
    masked = {"init_images": [source], "mask": half_mask(side, side), "mask_blur": 0, "inpaint_full_res": True}
    params = DiffusionRequestBody(**SMALL, **masked, inpaint_crop_points=points, denoising_strength=1.0)
    (image,) = backend.submit_inpaint(params).wait(timeout=60).images
    assert image.size == (side, side)
    middle = side // 2
    assert (pixels(image)[:, :middle] == pixels(source)[:, :middle]).all()
    assert (pixels(image)[:, middle:] != pixels(source)[:, middle:]).mean() > 0.5


def test_a_picture_is_enlarged_plainly_or_painted_over(backend: A1111Webservice) -> None:
    plain = backend.submit_upscale(noise(), 128, 96).wait(timeout=60)
    assert [image.size for image in plain.images] == [(128, 96)]
    params = DiffusionUpscalingParams(
        use_stable_diffusion_upscaling=True, use_ultimate_upscale_script=False, step_count=2
    )
    assert backend.upscale(noise(), 96, 96, params)["images"][0].size == (96, 96)
    with pytest.raises(ServerError, match="Script 'ultimate sd upscale' not found") as caught:
        backend.upscale(noise(), 96, 96, params.model_copy(update={"use_ultimate_upscale_script": True}))
    assert caught.value.status_code == 422


def test_a_running_job_is_cancelled_and_one_that_waits_is_never_sent(backend: A1111Webservice) -> None:
    params = DiffusionRequestBody(**{**SMALL, "steps": STEPS})
    running, waiting = backend.submit_txt2img(params), backend.submit_txt2img(params)
    wait_until(lambda: (running.poll().progress or 0) > 0.03)
    told = running.poll()
    assert (told.status, waiting.poll().status) == (GenerationStatus.ACTIVE, GenerationStatus.PENDING)
    assert (told.eta_seconds or 0) > 0
    assert waiting.cancel()
    assert running.cancel()
    for handle in (running, waiting):
        with pytest.raises(GenerationError) as caught:
            handle.wait(timeout=30)
        assert caught.value.status is GenerationStatus.CANCELLED
    assert backend.progress_check().state.job_count == 0


def test_its_task_is_known_by_the_name_it_gave(server: LiveServer, backend: A1111Webservice) -> None:
    handle = backend.submit_txt2img(DiffusionRequestBody(**{**SMALL, "steps": STEPS}))
    asked = {"id_task": handle.task_id, "id_live_preview": -1, "live_preview": True}
    wait_until(lambda: bool(server.post("/internal/progress", asked).json()["active"]))
    told = server.post("/internal/progress", asked).json()
    assert 0 < told["progress"] <= 1
    assert backend.interrupt() == {}
    assert len(handle.wait(timeout=30).images) == 1
    assert server.post("/internal/progress", asked).json()["completed"] is True


def test_a_setting_is_written(backend: A1111Webservice) -> None:
    backend.set_config({"CLIP_stop_at_last_layers": 2})
    assert backend.get_config()["CLIP_stop_at_last_layers"] == 2
    backend.set_config({"CLIP_stop_at_last_layers": 1})


def test_what_is_not_here_is_an_error_it_knows(backend: A1111Webservice) -> None:
    for call in (backend.get_controlnet_version, backend.get_controlnet_preprocessors):
        with pytest.raises(ServerError) as caught:
            call()
        assert caught.value.status_code == 404
    with pytest.raises(ServerError, match="404"):
        backend.interrogate(noise())


def test_no_login_is_needed(backend: A1111Webservice) -> None:
    assert backend.login_check().json() is None


# aaa1111


@pytest.mark.parametrize("name", LISTS)
def test_rows_have_exactly_the_keys_of_its_dataclasses(strict_client: Any, name: str) -> None:
    rows = getattr(strict_client, name)()
    assert [type(row).__name__ for row in rows] == [type(row).__name__ for row in rows[:1]] * len(rows)
    names = {"loras": ["glow"], "lycos": ["glow"], "prompt_styles": ["ring", "plain"], "samplers": ["Euler"]}
    assert name not in names or [row.name for row in rows] == names[name]


def test_single_replies_have_exactly_the_keys_of_its_dataclasses(strict_client: Any) -> None:
    assert (strict_client.embeddings().loaded, strict_client.embeddings().skipped) == ({}, {})
    assert set(strict_client.memory().ram) == {"free", "used", "total"}
    assert strict_client.scripts().img2img == [script.name for script in strict_client.script_info()] == ["sd upscale"]
    assert (strict_client.progress(skip_current_image=True).progress, strict_client.progress().current_image) == (
        0,
        None,
    )
    assert strict_client.cmd_flags()["api"] is True


def test_it_acts_and_the_next_picture_loads_its_model_again(strict_client: Any) -> None:
    assert strict_client.get_options()["sd_model_checkpoint"] == "flux2-tiny"
    strict_client.set_options(send_seed=False)
    assert strict_client.get_options()["send_seed"] is False
    strict_client.set_options(send_seed=True)
    actions = ("interrupt", "skip", "refresh_checkpoints", "refresh_loras", "refresh_lycos", "reload_checkpoint")
    for action in actions:
        getattr(strict_client, action)()
    assert strict_client.memory().cuda["allocated"]["current"] > 2**20
    strict_client.unload_checkpoint()
    assert strict_client.memory().cuda["allocated"]["current"] < 2**20
    assert len(strict_client.txt2img(SMALL).images) == 1


def test_its_orders_leave_out_every_default(strict_client: Any, aaa1111: ModuleType, tmp_path: Path) -> None:
    types = aaa1111.types
    small = {name: value for name, value in SMALL.items() if name != "steps"}
    painted = strict_client.txt2img(types.TXT2IMG(**small, steps=1, styles=["ring"]))
    assert painted.info["prompt"] == "a ring of a red circle, thin"
    path = tmp_path / "source.png"
    painted.images[0].save(path)
    repainted = strict_client.img2img(
        types.IMG2IMG(**small, steps=2, init_images=[path], mask=half_mask(), mask_blur=0)
    )
    assert (pixels(repainted.images[0])[:, :32] == pixels(painted.images[0])[:, :32]).all()
    assert (repainted.parameters["init_images"], repainted.parameters["mask"]) == (None, None)
    hires = types.TXT2IMG(**small, steps=1, enable_hr=True, hr_scale=1.5, denoising_strength=0.5)
    assert strict_client.txt2img(hires).images[0].size == (96, 96)


def test_its_pictures_are_lossless_webp(strict_client: Any, aaa1111: ModuleType) -> None:
    types = aaa1111.types
    single = strict_client.extra_single_image(types.ExtrasSingleImage(image=noise(), upscaler_1="Lanczos"))
    assert (single.image.size, single.image.format) == ((128, 128), "PNG")
    named = [{"data": noise(), "name": "a"}, {"data": Image.new("RGB", (32, 32)), "name": "b"}]
    batch = strict_client.extra_batch_images({"imageList": named, "upscaler_1": "Nearest"})
    assert [image.size for image in batch.images] == [(128, 128), (64, 64)]


def test_it_sees_a_running_job_and_waits_for_it(aaa1111: ModuleType, furnished: LiveServer) -> None:
    async def together() -> tuple[Any, Any]:
        client = aaa1111.client.AAA1111(base_url=furnished.url)
        painting = asyncio.create_task(client.atxt2img(SMALL, steps=STEPS))
        seen = await client.aprogress(skip_current_image=True)
        while not seen.state["sampling_step"]:
            await asyncio.sleep(0.02)
            seen = await client.aprogress(skip_current_image=True)
        await client.ainterrupt()
        painted = await painting
        assert await client.aloras() == client.loras()
        await client.aclient.aclose()
        return seen, painted

    seen, painted = asyncio.run(together())
    gc.collect()
    assert (0 < seen.progress < 1, seen.current_image, seen.state["job"]) == (True, None, "scripts_txt2img")
    assert (len(painted.images), painted.info["all_seeds"]) == (1, [7])
    assert get_progress(furnished)["progress"] == 0
