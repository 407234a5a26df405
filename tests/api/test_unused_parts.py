"""Nothing that a client sends is dropped in silence: it is used, or refused with its name."""

import base64
import io
from typing import Any

import pytest
import requests
from PIL import Image

from tests.support.live_server import LiveServer

pytestmark = pytest.mark.system

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"
FORM = {"prompt": "a red circle", "size": "64x64", "steps": "1", "seed": "3", "output_format": "png"}


def encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


PICTURE = encode(Image.new("RGB", (64, 64), "green"))
LEFT_HALF = Image.new("L", (64, 64), 0)
LEFT_HALF.paste(255, (0, 0, 32, 64))
MASK = encode(LEFT_HALF)
CLEAR = Image.new("RGBA", (64, 64), "green")
CLEAR.paste((0, 0, 0, 0), (0, 0, 32, 64))


def send(live: LiveServer, path: str, parts: list[tuple[str, bytes]], **fields: str) -> requests.Response:
    files = [(name, (f"{index}.png", data, "image/png")) for index, (name, data) in enumerate(parts)]
    return requests.post(live.url + path, data={**FORM, **fields}, files=files, timeout=120)


def is_inpainted(data: bytes) -> bool:
    """Return whether the right half is the picture that was sent, and the left half is not."""
    with Image.open(io.BytesIO(data)) as image:
        right, left = image.convert("RGB").crop((36, 0, 64, 64)), image.convert("RGB").crop((0, 0, 28, 64))
    green = Image.new("RGB", (28, 64), "green").tobytes()
    return right.tobytes() == green and left.tobytes() != green


@pytest.mark.parametrize("picture", ["image", "image[]", "image[0]"])
@pytest.mark.parametrize("mask", ["mask", "mask[]", "mask[0]"])
def test_openais_masks_are_used_under_every_name(server: LiveServer, picture: str, mask: str) -> None:
    reply = send(server, EDITS, [(picture, PICTURE), (mask, MASK)])
    assert reply.status_code == 200, reply.text
    assert is_inpainted(base64.b64decode(reply.json()["data"][0]["b64_json"]))


@pytest.mark.parametrize(
    ("path", "parts", "fields", "field"),
    [
        (EDITS, [("image", PICTURE), ("masks", MASK)], {}, "masks"),
        (EDITS, [("image", PICTURE), ("image2", PICTURE)], {}, "image2"),
        (EDITS, [("image", PICTURE), ("mask", MASK), ("mask[]", MASK)], {}, "mask"),
        (EDITS, [("image", PICTURE)], {"mask": "aGVsbG8="}, "mask"),
        (EDITS, [("image", PICTURE)], {"image[]": "file-123"}, "image[]"),
        (VARIATIONS, [("image", PICTURE), ("mask", MASK)], {}, "mask"),
        (VARIATIONS, [("image", PICTURE), ("style", PICTURE)], {}, "style"),
    ],
)
def test_openais_other_parts_are_refused(
    server: LiveServer, path: str, parts: list[tuple[str, bytes]], fields: dict[str, str], field: str
) -> None:
    reply = send(server, path, parts, **fields)
    assert (reply.status_code, reply.json()["error"]["param"]) == (400, field)


def test_an_empty_text_in_place_of_a_mask_is_none(server: LiveServer) -> None:
    assert send(server, EDITS, [("image", PICTURE)], mask="").status_code == 200


def encode_base64(data: bytes) -> str:
    return base64.b64encode(data).decode()


@pytest.mark.parametrize(
    "pictures",
    [
        {"image": encode_base64(PICTURE), "mask": encode_base64(MASK)},
        {"image": encode_base64(encode(CLEAR))},
    ],
    ids=["mask", "transparency"],
)
def test_black_forest_labs_fill_repaints_the_masked_part(server: LiveServer, pictures: dict[str, str]) -> None:
    body = {"prompt": "x", "steps": 1, "output_format": "png", **pictures}
    task = server.post("/v1/flux-pro-1.0-fill", body).json()["id"]
    job: Any = server.wait_for_status(task, "completed")
    assert (job["parameters"]["width"], job["parameters"]["height"]) == (64, 64)
    picture = server.get(f"/api/v1/jobs/{task}/images/0").content
    assert is_inpainted(picture)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"mask": encode_base64(MASK)}, "mask"),
        ({"image": encode_base64(PICTURE)}, "mask"),
        ({"control_image": "x"}, "control_image"),
        ({"finetune_id": "mine"}, "finetune_id"),
        ({"raw": True}, "raw"),
        ({"image_prompt_strength": 0.5}, "image_prompt_strength"),
        ({"top": 64}, "top"),
    ],
)
def test_what_black_forest_labs_offer_beyond_this_is_refused(
    server: LiveServer, fields: dict[str, Any], field: str
) -> None:
    reply = server.post("/v1/flux-2-pro", {"prompt": "x", "width": 64, "height": 64, "steps": 1, **fields})
    assert (reply.status_code, reply.json()["code"]) == (400, "INVALID_REQUEST")
    assert field in reply.json()["detail"]


def test_values_without_an_effect_are_accepted(server: LiveServer) -> None:
    fields = {"raw": False, "control_image": None, "image_prompt_strength": 0.1, "top": 0, "interval": 2, "image": ""}
    reply = server.post("/v1/flux-2-pro", {"prompt": "x", "width": 64, "height": 64, "steps": 1, **fields})
    assert reply.status_code == 200, reply.text


def predict(live: LiveServer, **fields: object) -> requests.Response:
    inputs = {"prompt": "x", "width": 64, "height": 64, "num_inference_steps": 1, **fields}
    body = {"version": "flux-dev", "input": inputs}
    return live.post("/replicate/v1/predictions", body, headers={"Prefer": "wait"})


def test_replicates_mask_is_used(server: LiveServer) -> None:
    reply = predict(
        server,
        output_format="png",
        prompt_strength=1,
        image=encode_base64(PICTURE),
        mask=encode_base64(MASK),
    )
    assert reply.json()["status"] == "succeeded", reply.text
    assert is_inpainted(server.get(f"/api/v1/jobs/{reply.json()['id']}/images/0").content)


def test_replicates_steps_and_adapters_are_used(furnished: LiveServer) -> None:
    body = {"prompt": "x", "width": 64, "height": 64, "seed": 1, "steps": 2, "output_format": "png"}
    worn = furnished.post("/replicate/v1/predictions", {"version": "x", "input": {**body, "lora_weights": "GLOW"}})
    assert worn.status_code in {404, 400}
    order = {"version": "flux-dev", "input": {**body, "lora_weights": "GLOW", "lora_scale": 0.5}}
    reply = furnished.post("/replicate/v1/predictions", order)
    job: Any = furnished.wait_for_status(reply.json()["id"], "completed")
    assert job["parameters"]["steps"] == 2
    assert [use["scale"] for use in job["parameters"]["loras"]] == [0.5]


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"control_image": "x"}, "control_image"),
        ({"redux_image": "x"}, "redux_image"),
        ({"outpaint": "Zoom out 2x"}, "outpaint"),
        ({"lora_weights": "owner/nobody"}, "owner/nobody"),
        ({"mask": encode_base64(MASK)}, "mask"),
    ],
)
def test_what_replicate_offers_beyond_this_is_refused(server: LiveServer, fields: dict[str, Any], field: str) -> None:
    reply = predict(server, **fields)
    assert reply.status_code in {400, 404}
    assert field in reply.json()["detail"]
