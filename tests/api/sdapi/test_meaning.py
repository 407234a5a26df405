"""Semantics of SD-WebUI's fields: seeds, prompts, sizes, masks, passes; and parameters read from a picture."""

import base64
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

from tests.support.live_server import LiveServer
from tests.support.marks import slow_but

pytestmark = pytest.mark.system

SMALL: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 2, "seed": 7}
TXT2IMG, IMG2IMG = "/sdapi/v1/txt2img", "/sdapi/v1/img2img"


def paint(live: LiveServer, path: str = TXT2IMG, /, **fields: object) -> Any:
    reply = live.post(path, {**SMALL, **fields})
    assert reply.status_code == 200, reply.text
    return reply.json()


def decode_image(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text))).convert("RGB")


def paint_first(live: LiveServer, path: str = TXT2IMG, /, **fields: object) -> Image.Image:
    return decode_image(paint(live, path, **fields)["images"][0])


def encode_base64(image: Image.Image) -> str:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def scene(width: int = 96, height: int = 80) -> Image.Image:
    return Image.effect_noise((width, height), 60).convert("RGB")


def spot(size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    mask = Image.new("L", size)
    ImageDraw.Draw(mask).rectangle(box, fill=255)
    return mask


def mean_difference(one: Image.Image, other: Image.Image) -> float:
    return float(np.abs(np.asarray(one, float) - np.asarray(other, float)).mean())


# Seeds and numbers


def test_a_batch_is_the_same_as_its_seeds_one_by_one(server: LiveServer) -> None:
    reply = paint(server, batch_size=2, n_iter=2)
    assert json.loads(reply["info"])["all_seeds"] == [7, 8, 9, 10]
    assert reply["images"] == [paint(server, seed=seed)["images"][0] for seed in (7, 8, 9, 10)]


def test_a_variation_lies_between_two_seeds(server: LiveServer) -> None:
    ends = [paint_first(server, seed=seed) for seed in (7, 100)]
    near, far = (paint_first(server, subseed=100, subseed_strength=share) for share in (0.2, 1.0))
    assert mean_difference(far, ends[1]) == 0
    assert 0 < mean_difference(near, ends[0]) < mean_difference(ends[1], ends[0])


def test_pictures_may_be_left_out_of_the_reply(server: LiveServer) -> None:
    reply = paint(server, send_images=False)
    assert reply["images"] == []
    assert len(json.loads(reply["info"])["infotexts"]) == 1


@pytest.mark.parametrize("size", [(72, 64), (104, 136)])
def test_sizes_are_met_in_steps_of_eight(server: LiveServer, size: tuple[int, int]) -> None:
    reply = paint(server, width=size[0], height=size[1])
    assert decode_image(reply["images"][0]).size == size
    assert (reply["parameters"]["width"], json.loads(reply["info"])["height"]) == size


# Prompts


@pytest.mark.parametrize(
    "prompt",
    ["a (red:1.0) circle", r"a red circle", "a [red:blue:1.0] circle", "[a red circle|a red circle]", "a red\tcircle"],
)
def test_syntax_that_changes_nothing_paints_the_same(server: LiveServer, prompt: str) -> None:
    assert paint(server, prompt=prompt)["images"][0] != ""
    assert mean_difference(paint_first(server, prompt=prompt), paint_first(server)) == 0


@pytest.mark.parametrize("prompt", ["a (red:1.8) circle", "a [red:blue:0.5] circle", "a [red|blue] circle"])
def test_syntax_that_means_something_paints_something_else(server: LiveServer, prompt: str) -> None:
    reply = paint(server, prompt=prompt)
    assert mean_difference(decode_image(reply["images"][0]), paint_first(server)) > 0
    assert json.loads(reply["info"])["prompt"] == prompt


def test_a_prompt_that_is_json_goes_to_the_model_as_it_is(server: LiveServer) -> None:
    text = json.dumps({"scene": "a red circle", "colors": ["#ff0000"]})
    job_id = server.submit(prompt=text, steps=2, seed=7)
    server.wait_for_status(job_id, "completed")
    plain = Image.open(io.BytesIO(server.get(f"/api/v1/jobs/{job_id}/images/0").content)).convert("RGB")
    assert mean_difference(paint_first(server, prompt=text), plain) == 0


def test_an_unknown_adapter_is_left_out_and_its_tag_kept_in_the_record(server: LiveServer) -> None:
    reply = paint(server, prompt="a red circle <lora:nobody:0.5>")
    assert mean_difference(decode_image(reply["images"][0]), paint_first(server)) == 0
    assert json.loads(reply["info"])["infotexts"][0].startswith("a red circle <lora:nobody:0.5>\n")


def test_an_empty_prompt_is_one(server: LiveServer) -> None:
    assert paint_first(server, prompt="").size == (64, 64)
    assert mean_difference(paint_first(server, prompt=""), paint_first(server, prompt=None)) == 0


# Two passes


@pytest.mark.parametrize(
    ("fields", "size"),
    [
        ({"hr_upscaler": "Latent"}, (128, 128)),
        ({"hr_scale": 1.5, "hr_upscaler": "Lanczos"}, (96, 96)),
        ({"hr_resize_x": 104, "hr_upscaler": "Nearest"}, (104, 104)),
        ({"hr_resize_x": 136, "hr_resize_y": 72, "hr_upscaler": "R-ESRGAN 4x+"}, (136, 72)),
    ],
)
def test_a_hires_fix_has_the_promised_size(server: LiveServer, fields: dict[str, Any], size: tuple[int, int]) -> None:
    reply = paint(server, enable_hr=True, denoising_strength=0.3, **fields)
    assert decode_image(reply["images"][0]).size == size
    assert json.loads(reply["info"])["denoising_strength"] == 0.3
    # The requested size, not the size after the second pass.
    assert (json.loads(reply["info"])["width"], json.loads(reply["info"])["height"]) == (64, 64)


@pytest.mark.parametrize("upscaler", slow_but(["Latent", "Latent (nearest-exact)", "Lanczos"], "Latent"))
def test_a_hires_fix_keeps_the_composition(server: LiveServer, upscaler: str) -> None:
    fields = {"width": 128, "height": 128, "steps": 4}
    prompt = "a red circle on a blue background"
    large = paint_first(
        server, **fields, prompt=prompt, enable_hr=True, hr_scale=1.5, denoising_strength=0.5, hr_upscaler=upscaler
    )
    small, other = (
        paint_first(server, **fields, prompt=words).resize(large.size)
        for words in (prompt, "a red square at the bottom on a blue background")
    )
    assert mean_difference(large, small) < 0.8 * mean_difference(large, other)


def test_a_hires_fix_of_strength_nothing_only_enlarges(server: LiveServer) -> None:
    large = paint_first(server, enable_hr=True, denoising_strength=0, hr_upscaler="Lanczos")
    assert mean_difference(large, paint_first(server).resize((128, 128), Image.Resampling.LANCZOS)) == 0


# Repainting


@pytest.mark.parametrize("mode", [0, 1, 2, 3])
def test_the_result_has_the_size_asked_for_whatever_the_source_has(server: LiveServer, mode: int) -> None:
    fields = {"init_images": [encode_base64(scene(120, 50))], "resize_mode": mode, "denoising_strength": 0.5}
    assert paint_first(server, IMG2IMG, **fields).size == (64, 64)


def test_strength_nothing_gives_the_source_back(server: LiveServer) -> None:
    source = scene(64, 64)
    fields = {"init_images": [encode_base64(source)], "denoising_strength": 0}
    assert mean_difference(paint_first(server, IMG2IMG, **fields), source) == 0


def test_full_strength_ignores_the_source(server: LiveServer) -> None:
    one, other = (
        paint_first(server, IMG2IMG, init_images=[encode_base64(picture)], denoising_strength=1)
        for picture in (scene(64, 64), Image.new("RGB", (64, 64), "green"))
    )
    assert mean_difference(one, other) == 0


@pytest.mark.parametrize("fill", [0, 1, 2, 3])
@pytest.mark.parametrize("full", [False, True])
def test_a_mask_keeps_what_is_outside_it(server: LiveServer, fill: int, full: bool) -> None:
    source = scene(64, 64)
    fields = {
        "init_images": [encode_base64(source)],
        "mask": encode_base64(spot((64, 64), (20, 20, 43, 43))),
        "mask_blur": 0,
    }
    painted = paint_first(server, IMG2IMG, **fields, inpainting_fill=fill, inpaint_full_res=full, denoising_strength=1)
    changed = np.asarray(painted, int) - np.asarray(source, int)
    inside = np.zeros((64, 64), bool)
    inside[20:44, 20:44] = True
    assert not changed[~inside].any()
    assert (changed[inside] != 0).mean() > 0.5


def test_a_closeup_has_the_size_of_the_source(server: LiveServer) -> None:
    source = scene(200, 150)
    fields = {"init_images": [encode_base64(source)], "mask": encode_base64(spot((200, 150), (50, 50, 80, 80)))}
    painted = paint_first(server, IMG2IMG, **fields)
    assert painted.size == (200, 150)
    assert (np.asarray(painted)[:, 120:] == np.asarray(source)[:, 120:]).all()


@pytest.mark.parametrize("invert", [True, 1, "1"])
def test_an_inverted_mask_repaints_where_it_is_black(server: LiveServer, invert: object) -> None:
    source, mask = scene(64, 64), spot((64, 64), (32, 0, 64, 64))
    fields = {"init_images": [encode_base64(source)], "mask_blur": 0, "inpaint_full_res": False}
    inverted = paint_first(server, IMG2IMG, **fields, mask=encode_base64(mask), inpainting_mask_invert=invert)
    other = mask.point(lambda value: 255 - value)
    assert mean_difference(inverted, paint_first(server, IMG2IMG, **fields, mask=encode_base64(other))) == 0


def test_a_mask_may_be_in_the_alpha_channel(server: LiveServer) -> None:
    source, mask = scene(64, 64), spot((64, 64), (32, 0, 64, 64))
    alpha = Image.new("RGBA", (64, 64), "black")
    alpha.putalpha(mask)
    fields = {"init_images": [encode_base64(source)], "mask_blur": 0, "inpaint_full_res": False}
    one, other = (paint_first(server, IMG2IMG, **fields, mask=encode_base64(form)) for form in (mask, alpha))
    assert mean_difference(one, other) == 0


def test_each_picture_of_a_batch_may_have_its_own_source(server: LiveServer) -> None:
    sources = [scene(64, 64), Image.new("RGB", (64, 64), "green")]
    fields = {"denoising_strength": 0.5, "batch_size": 2}
    both = paint(server, IMG2IMG, init_images=[encode_base64(source) for source in sources], **fields)["images"]
    alone = [
        paint(server, IMG2IMG, init_images=[encode_base64(source)], denoising_strength=0.5, seed=7 + index)["images"][0]
        for index, source in enumerate(sources)
    ]
    assert [
        mean_difference(decode_image(one), decode_image(other)) for one, other in zip(both, alone, strict=True)
    ] == [0, 0]
    reply = server.post(IMG2IMG, {**SMALL, "init_images": [encode_base64(sources[0])] * 3, "batch_size": 2})
    assert (reply.status_code, reply.json()["errors"]) == (500, "bad number of images passed")


def test_sd_upscale_enlarges_by_its_factor(server: LiveServer) -> None:
    script = {"script_name": "SD upscale", "script_args": ["", 8, "Lanczos", 1.5]}
    painted = paint_first(server, IMG2IMG, init_images=[encode_base64(scene(80, 64))], denoising_strength=0.2, **script)
    assert painted.size == (120, 96)


# Parameters read from a picture


@pytest.mark.parametrize(
    "fields",
    [
        {},
        {"prompt": 'a (red:1.4) circle, "quoted": text\nof two lines', "negative_prompt": "blue", "cfg_scale": 7},
        {"enable_hr": True, "denoising_strength": 0.4, "hr_upscaler": "Latent", "hr_second_pass_steps": 3},
        {"enable_hr": True, "hr_resize_x": 104, "hr_resize_y": 72, "hr_prompt": "a blue square"},
        {"subseed": 5, "subseed_strength": 0.3, "width": 72},
    ],
)
def test_a_picture_reproduces_itself_from_what_is_written_in_it(server: LiveServer, fields: dict[str, Any]) -> None:
    picture = paint(server, **fields)["images"][0]
    text = server.post("/sdapi/v1/png-info", {"image": picture}).json()["info"]
    again = server.post(TXT2IMG, {"infotext": text})
    assert again.status_code == 200, again.text
    assert mean_difference(decode_image(again.json()["images"][0]), decode_image(picture)) == 0


@pytest.mark.parametrize("form", ["png", "jpeg", "webp"])
def test_the_text_is_in_every_format(server: LiveServer, form: str, tmp_path: Path) -> None:
    info = json.loads(paint(server, prompt="ein rötlicher Kreis ○")["info"])
    job_id = server.get("/api/v1/jobs?limit=1").json()["jobs"][0]["id"]
    data = server.get(f"/api/v1/jobs/{job_id}/images/0?format={form}").content
    told = server.post("/sdapi/v1/png-info", {"image": base64.b64encode(data).decode()}).json()
    assert told["info"] == info["infotexts"][0]
    assert (told["parameters"]["Seed"], told["parameters"]["Size-1"]) == ("7", "64")
