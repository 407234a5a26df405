"""OpenAI's image API, tested with OpenAI's own client."""

import base64
import io
from collections.abc import Iterator
from typing import Any

import openai
import pytest
import requests
from PIL import Image

from tests.support.documents import KEY
from tests.support.live_server import LiveServer

pytestmark = pytest.mark.system


@pytest.fixture
def client(server: LiveServer) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(api_key="any", base_url=f"{server.url}/v1", max_retries=0) as client:
        yield client


def picture(color: str = "red", size: int = 64) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), color).save(buffer, "PNG")
    return buffer.getvalue()


def open_base64(text: str | None) -> Image.Image:
    assert text is not None
    return Image.open(io.BytesIO(base64.b64decode(text)))


@pytest.mark.parametrize(("size", "form"), [("64x64", "png"), ("128x72", "jpeg"), ("72x64", "webp")])
def test_words_become_pictures(client: openai.OpenAI, size: str, form: Any) -> None:
    reply = client.images.generate(model="gpt-image-1", prompt="a red circle", size=size, n=2, output_format=form)
    assert reply.data is not None
    images = [open_base64(each.b64_json) for each in reply.data]
    assert [(image.format, "{}x{}".format(*image.size)) for image in images] == [(form.upper(), size)] * 2


def test_a_picture_may_be_named_by_its_address(client: openai.OpenAI) -> None:
    reply = client.images.generate(model="flux2-tiny", prompt="a red circle", size="64x64", response_format="url")
    assert reply.data is not None
    assert requests.get(str(reply.data[0].url), timeout=30).headers["Content-Type"] == "image/png"


def test_open_webuis_request_is_answered(server: LiveServer) -> None:
    body = {"model": "flux2-tiny", "prompt": "a red circle", "n": 1, "size": "64x64", "response_format": "b64_json"}
    reply = server.post("/v1/images/generations", body, headers={"Authorization": "Bearer "})
    assert open_base64(reply.json()["data"][0]["b64_json"]).size == (64, 64)


def test_pictures_are_edited_after_others_and_under_a_mask(client: openai.OpenAI) -> None:
    both = [("a.png", picture()), ("b.png", picture("blue"))]
    assert client.images.edit(image=both, prompt="a star", size="64x64").data
    mask = Image.new("L", (64, 64), 0)
    mask.paste(255, (0, 0, 32, 64))
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    reply = client.images.edit(image=("a.png", picture()), mask=("m.png", buffer.getvalue()), prompt="blue")
    assert reply.data is not None
    # Black parts of the mask are unchanged.
    assert open_base64(reply.data[0].b64_json).convert("RGB").getpixel((60, 30)) == (255, 0, 0)


def with_alpha(*boxes: tuple[int, tuple[int, int, int, int]], mode: str = "RGBA") -> bytes:
    """Return a black mask, opaque except for these boxes with another alpha."""
    alpha = Image.new("L", (64, 64), 255)
    for value, box in boxes:
        alpha.paste(value, box)
    mask = Image.new("RGB", (64, 64), "black").convert(mode)
    mask.putalpha(alpha)
    buffer = io.BytesIO()
    mask.save(buffer, "PNG")
    return buffer.getvalue()


LEFT, MIDDLE = (0, 0, 32, 64), (32, 0, 48, 64)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_in_a_mask_is_repainted_and_nothing_else(client: openai.OpenAI, mode: str) -> None:
    mask = with_alpha((0, LEFT)) if mode == "P" else with_alpha((0, LEFT), (128, MIDDLE), mode=mode)
    if mode == "P":
        buffer = io.BytesIO()
        Image.open(io.BytesIO(mask)).convert("RGBA").quantize(4).save(buffer, "PNG")
        mask = buffer.getvalue()
    reply = client.images.edit(
        image=("a.png", picture()), mask=("m.png", mask), prompt="a blue sea", size="64x64", extra_body={"seed": 7}
    )
    assert reply.data is not None
    image = open_base64(reply.data[0].b64_json).convert("RGB")
    # Partly transparent parts are unchanged as well.
    assert image.crop((32, 0, 64, 64)).getcolors() == [(32 * 64, (255, 0, 0))]
    assert (32 * 64, (255, 0, 0)) not in (image.crop(LEFT).getcolors(64 * 64) or [])


@pytest.mark.parametrize("mask", [with_alpha(), with_alpha((1, LEFT))])
def test_a_mask_in_which_nothing_is_transparent_is_refused(client: openai.OpenAI, mask: bytes) -> None:
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.edit(image=("a.png", picture()), mask=("m.png", mask), prompt="blue")
    body: Any = caught.value.body
    assert (body["param"], "fully transparent" in body["message"]) == ("mask", True)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_picture_is_varied(client: openai.OpenAI) -> None:
    reply = client.images.create_variation(image=("a.png", picture()), n=2)
    assert reply.data is not None
    assert [open_base64(each.b64_json).size for each in reply.data] == [(64, 64)] * 2


def test_a_picture_is_streamed_while_it_comes(client: openai.OpenAI) -> None:
    stream: Any = client.images.generate(
        prompt="a red circle", size="128x128", stream=True, partial_images=2, extra_body={"steps": 4}
    )
    events = list(stream)
    kinds = [event.type.rpartition(".")[2] for event in events]
    assert kinds == ["partial_image", "partial_image", "completed"]
    assert [event.partial_image_index for event in events[:-1]] == [0, 1]
    assert open_base64(events[-1].b64_json).size == (128, 128)


def test_models_that_are_here_are_listed(client: openai.OpenAI) -> None:
    assert "flux2-tiny" in [model.id for model in client.models.list()]
    assert client.models.retrieve("flux2-tiny").id == "flux2-tiny"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nobody")


@pytest.mark.parametrize(
    ("wrong", "field"),
    [
        ({"prompt": ""}, "prompt"),
        ({"size": "12x12"}, "width"),
        ({"size": "large"}, "size"),
        ({"n": 0}, "num_images"),
        ({"background": "transparent"}, "background"),
        ({"output_format": "gif"}, "output_format"),
    ],
)
def test_a_wrong_request_is_refused_as_openai_does(client: openai.OpenAI, wrong: dict[str, Any], field: str) -> None:
    fields: Any = {"prompt": "x", "size": "64x64", **wrong}
    with pytest.raises(openai.BadRequestError) as caught:
        client.images.generate(**fields)
    body: Any = caught.value.body
    assert (body["type"], body["param"]) == ("invalid_request_error", field)


def test_a_form_without_a_picture_is_refused(server: LiveServer) -> None:
    url = f"{server.url}/v1/images/edits"
    assert requests.post(url, data={"prompt": "x"}, timeout=30).status_code == 415
    assert requests.post(url, files={"prompt": (None, "x")}, timeout=30).status_code == 400
    assert requests.post(url, files={"image": ("a.png", b"no picture")}, timeout=30).status_code == 400
    broken = {"Content-Type": "multipart/form-data; boundary=x"}
    assert requests.post(url, data=b"--y", headers=broken, timeout=30).status_code == 400


def test_a_wrong_key_is_refused(guarded: LiveServer) -> None:
    with openai.OpenAI(api_key=KEY, base_url=f"{guarded.url}/v1", max_retries=0) as client:
        assert client.models.list().data
    wrong = openai.OpenAI(api_key="wrong", base_url=f"{guarded.url}/v1", max_retries=0)
    with wrong as client, pytest.raises(openai.AuthenticationError):
        client.models.list()
