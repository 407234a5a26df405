"""Every API sees a picture as it looks, and refuses one that is cut off in its own shape."""

import base64
import io
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest
import requests
from PIL import Image

from tests.support.live_server import LiveServer
from tests.support.photographs import deep_grey, difference, encode, everything, grey, looks_of_everything, phone, scene
from tests.support.photographs import turned as turn

pytestmark = pytest.mark.system

WORDS = {"prompt": "a red circle", "seed": 3, "steps": 1}
SIZE = {"width": 64, "height": 64}
Door = Callable[[LiveServer, bytes], Image.Image]


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def opened(data: bytes | str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(data) if isinstance(data, str) else data))


def answer(reply: requests.Response) -> Any:
    assert reply.status_code in {200, 201}, reply.text[:300]
    return reply.json()


def sdapi(**fields: object) -> Door:
    """img2img, or txt2img without a picture to repaint. `PICTURE` stands for the picture."""

    def paint(server: LiveServer, data: bytes) -> Image.Image:
        path = "/sdapi/v1/img2img" if "init_images" in fields else "/sdapi/v1/txt2img"
        return opened(answer(server.post(path, {**WORDS, **filled(fields, data)}))["images"][0])

    return paint


def filled(fields: object, data: bytes) -> Any:
    """Put the picture in where PICTURE stands."""
    match fields:
        case dict():
            return {name: filled(value, data) for name, value in fields.items()}
        case list():
            return [filled(value, data) for value in fields]
        case _:
            return text(data) if fields is PICTURE else fields


PICTURE = object()
PLAIN = text(encode(scene(64, 64)))


def native(**fields: object) -> Door:
    def paint(server: LiveServer, data: bytes) -> Image.Image:
        job_id = server.submit(**{**WORDS, **SIZE, **filled(fields, data)})
        job: Any = server.wait_for_status(job_id)
        assert job["status"] == "completed", job
        return opened(job["result"]["images"][0])

    return paint


def extras(path: str, **fields: object) -> Door:
    def enlarge(server: LiveServer, data: bytes) -> Image.Image:
        reply = answer(server.post(f"/sdapi/v1/{path}", filled(fields, data)))
        return opened(reply["image"] if "image" in reply else reply["images"][0])

    return enlarge


def openai(path: str, *, masked: bool = False) -> Door:
    def paint(server: LiveServer, data: bytes) -> Image.Image:
        files = [("image", ("a.png", data, "image/png"))]
        if masked:
            mask = Image.new("RGBA", (64, 128), (0, 0, 0, 0))
            files.append(("mask", ("m.png", encode(mask), "image/png")))
        form = {"prompt": "a star", "seed": "3", "steps": "1", "size": "64x128"}
        reply = requests.post(f"{server.url}/v1/images/{path}", data=form, files=files, timeout=120)
        return opened(answer(reply)["data"][0]["b64_json"])

    return paint


def openai_mask(server: LiveServer, data: bytes) -> Image.Image:
    files = [("image", ("a.png", encode(scene(64, 128)), "image/png")), ("mask", ("m.png", data, "image/png"))]
    form = {"prompt": "a star", "seed": "3", "steps": "1", "size": "64x128"}
    reply = requests.post(f"{server.url}/v1/images/edits", data=form, files=files, timeout=120)
    return opened(answer(reply)["data"][0]["b64_json"])


def klein(server: LiveServer, data: bytes) -> Image.Image:
    reply = answer(server.post("/klein/edit", {**WORDS, "image_base64": text(data)}))
    return opened(requests.get(reply["image_url"], timeout=30).content)


def bfl(server: LiveServer, data: bytes) -> Image.Image:
    body = {**WORDS, **SIZE, "input_image": text(data), "output_format": "png"}
    name = answer(server.post("/v1/flux2-tiny", body))["id"]
    server.wait_for_status(name)
    found = answer(server.get(f"/v1/get_result?id={name}"))
    return opened(requests.get(found["result"]["sample"], timeout=30).content)


def replicate(**fields: object) -> Door:
    def predict(server: LiveServer, data: bytes) -> Image.Image:
        inputs = {"prompt": "x", **SIZE, "seed": 3, "num_inference_steps": 1, "output_format": "png"}
        body = {"version": "flux2-tiny", "input": {**inputs, **filled(fields, data)}}
        found = answer(server.post("/replicate/v1/predictions", body, headers={"Prefer": "wait"}))
        return opened(requests.get(found["output"][0], timeout=30).content)

    return predict


ENLARGE = {"upscaler_1": "Nearest", "upscaling_resize": 1}
DOORS: dict[str, Door] = {
    "img2img": sdapi(init_images=[PICTURE], denoising_strength=0),
    "img2img, a mask": sdapi(init_images=[PLAIN], mask=PICTURE, **SIZE),
    "img2img, one of two": sdapi(init_images=[PICTURE, PLAIN], batch_size=2, denoising_strength=0, **SIZE),
    "txt2img, a reference": sdapi(extra_images=[PICTURE], **SIZE),
    "extra-single-image": extras("extra-single-image", **ENLARGE, image=PICTURE),
    "extra-single-image, as it is": extras("extra-single-image", image=PICTURE),
    "extra-batch-images": extras("extra-batch-images", **ENLARGE, imageList=[{"data": PICTURE, "name": "a"}]),
    "native": native(init_images=[PICTURE], image_strength=0.5),
    "native, a mask": native(init_images=[PLAIN], mask=PICTURE),
    "native, a reference": native(extra_images=[PICTURE]),
    "edits": openai("edits"),
    "edits, under a mask": openai("edits", masked=True),
    "variations": openai("variations"),
    "klein": klein,
    "bfl": bfl,
    "replicate, image": replicate(image=PICTURE, prompt_strength=0.5),
    "replicate, input_images": replicate(input_images=[PICTURE]),
}
# Masks are shapes, not colours.
MASKS = {"img2img, a mask", "native, a mask"}


@cache
def files() -> dict[str, tuple[bytes, bytes]]:
    """Name -> (the file, a plain PNG that looks the same)."""
    return {
        "everything at once": (everything(), encode(looks_of_everything())),
        "a turned picture of a phone": (phone(), encode(turn(scene()))),
        "grey of 16 bits": (deep_grey(), encode(grey().convert("RGB"))),
    }


@pytest.mark.parametrize("kind", ["everything at once", "a turned picture of a phone", "grey of 16 bits"])
@pytest.mark.parametrize("door", DOORS)
def test_every_door_sees_a_picture_as_it_looks(server: LiveServer, door: str, kind: str) -> None:
    data, plain = files()[kind]
    if door in MASKS and kind == "everything at once":
        alpha = Image.open(io.BytesIO(data)).getchannel("A")
        plain = encode(turn(alpha))
    seen, expected = DOORS[door](server, data), DOORS[door](server, plain)
    # A JPEG, and a step that is run, magnify a level or two.
    assert difference(seen, expected) < 8


def test_a_mask_of_openai_is_turned_upright(server: LiveServer) -> None:
    alpha = Image.new("LA", (128, 64), (0, 255))
    alpha.paste((0, 0), (0, 0, 64, 64))
    exif = Image.Exif()
    exif[0x0112] = 6
    seen, expected = (openai_mask(server, each) for each in (encode(alpha, exif=exif), encode(turn(alpha))))
    assert difference(seen, expected) == 0


def test_the_page_of_the_flux2_server_sees_it_too(small: LiveServer) -> None:
    def paint(data: bytes) -> Image.Image:
        body = {"prompt": "x", "steps": 10, "seed": 3, "input_image": text(data), "strength": 0.1}
        name = answer(small.post("/flux2-web/generate", body))["images"][0]["filename"]
        return opened(small.get(f"/flux2-web/images/{name}").content)

    data, plain = files()["everything at once"]
    assert difference(paint(data), paint(plain)) < 8


def test_long_compressed_text_is_read_by_png_info(server: LiveServer) -> None:
    found = answer(server.post("/sdapi/v1/png-info", {"image": text(everything())}))
    assert found["items"]["workflow"].startswith("a node")


# Pictures that are cut off

ERRORS: dict[str, Callable[[Any], object]] = {
    "sdapi": lambda reply: reply["detail"],
    "openai": lambda reply: reply["error"]["message"],
    "klein": lambda reply: reply["error"],
}


def cut_off(form: str) -> bytes:
    data = encode(Image.effect_noise((64, 64), 90).convert("RGB"), form)
    return data[: len(data) // 2]


CUT: dict[str, tuple[str, Callable[[LiveServer, bytes], requests.Response]]] = {
    "img2img": ("sdapi", lambda server, data: server.post("/sdapi/v1/img2img", {**WORDS, "init_images": [text(data)]})),
    "extras": (
        "sdapi",
        lambda server, data: server.post("/sdapi/v1/extra-single-image", {**ENLARGE, "image": text(data)}),
    ),
    "extras, as it is": (
        "sdapi",
        lambda server, data: server.post("/sdapi/v1/extra-single-image", {"image": text(data)}),
    ),
    "edits": ("openai", lambda server, data: edit(server, {"image": data})),
    "edits, the mask": ("openai", lambda server, data: edit(server, {"image": encode(scene()), "mask": data})),
    "variations": ("openai", lambda server, data: edit(server, {"image": data}, "variations")),
    "klein": ("klein", lambda server, data: server.post("/klein/edit", {**WORDS, "image_base64": text(data)})),
}


def edit(server: LiveServer, files: dict[str, bytes], path: str = "edits") -> requests.Response:
    parts = [(name, ("a", data, "image/png")) for name, data in files.items()]
    return requests.post(f"{server.url}/v1/images/{path}", data={"prompt": "x", "steps": "1"}, files=parts, timeout=60)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("door", CUT)
def test_a_picture_that_is_cut_off_is_the_clients_error(server: LiveServer, door: str, form: str) -> None:
    shape, send = CUT[door]
    reply = send(server, cut_off(form))
    # SD-WebUI itself answers 500 where not even the header can be read, which is so for WebP.
    expected = 500 if (shape, form) == ("sdapi", "WEBP") else 400
    assert (reply.status_code, "INTERNAL" in reply.text) == (expected, False), reply.text
    assert ERRORS[shape](reply.json())


@pytest.mark.parametrize("door", ["native", "bfl", "replicate"])
def test_a_job_with_a_picture_that_is_cut_off_fails_by_name(server: LiveServer, door: str) -> None:
    data = text(cut_off("PNG"))
    inputs = {"prompt": "x", **SIZE, "num_inference_steps": 1, "image": data}
    bodies: dict[str, tuple[str, dict[str, object]]] = {
        "native": ("/api/v1/generate", {**WORDS, **SIZE, "init_images": [data]}),
        "bfl": ("/v1/flux2-tiny", {**WORDS, **SIZE, "input_image": data}),
        "replicate": ("/replicate/v1/predictions", {"version": "flux2-tiny", "input": inputs}),
    }
    reply = answer(server.post(*bodies[door]))
    job = server.wait_for_status(reply.get("id") or reply["job_id"])
    assert (job["status"], job["code"]) == ("failed", "INVALID_IMAGE")
