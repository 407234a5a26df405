"""Errors about the fields, models, adapters and pictures of a request."""

import base64
import io
import json
import socket
import struct
from urllib.parse import quote

import psutil
import pytest
import requests
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from tests.support.live_server import LiveServer
from tests.support.refusals import (
    GENERATE,
    IMG2IMG,
    ORDERS,
    TXT2IMG,
    assert_refused,
    chunk,
    make_bomb,
    order,
    picture,
    post_text,
)

pytestmark = pytest.mark.system

MOST_GROWTH = 100 * 1024**2
NAN, INFINITY = float("nan"), float("inf")
FLUX1 = "Flux1 models removed. Use flux2-klein-4b or flux2-klein-9b"


# Fields

BAD_SIDES: list[object] = [
    63,
    65,
    0,
    -16,
    2064,
    10**4000,
    1e308,
    64.5e9,
    "abc",
    "",
    "6 4",
    "NaN",
    NAN,
    INFINITY,
    True,
    False,
    [64],
]
BAD_VALUES: dict[str, list[object]] = {
    "width": BAD_SIDES,
    "height": BAD_SIDES,
    "steps": [0, -1, 151, 10**30, "abc", "", NAN, -INFINITY, True, [1], {}],
    "num_images": [0, -1, 5, 10_000, "abc", NAN, True, [2]],
    "seed": [2**64, 10**400, -(10**400), "abc", "1e400", NAN, True, [1], {}],
    "guidance": [-1, -0.001, NAN, INFINITY, "abc", "nan", 10**400, True, [1.0]],
    "cfg_scale": [NAN, "abc", True, {}],
    "image_strength": [NAN, INFINITY, "abc", True, [0.5]],
    "denoising_strength": [NAN, INFINITY, "abc", True, [0.5]],
    "priority": [99, -11, "abc", NAN, True],
    "prompt": ["x" * 10_001, 7, True, ["a", "b"], {"a": "b"}],
    "negative_prompt": ["x" * 10_001, 7, ["a"]],
    "model": [7, True, ["flux2-tiny"], {}],
    "sd_model_checkpoint": [7, ["flux2-tiny"]],
    "low_ram": ["maybe", 7, [True], {}],
    "mask": [7, ["x"], {}],
    "lora_files": [7, [7], {"a": 1}, [["a"]], [None]],
    "lora_scales": ["abc", ["abc"], [NAN], [True], [None], [[1]], [1.0]],
    "init_images": [7, [7], {}, [None]],
    "extra_images": [7, [7], [None]],
}
BAD_FIELDS = [(name, value) for name, values in BAD_VALUES.items() for value in values]


# SD-WebUI accepts numbers as text, so these values are valid there.
BAD_ORDERS = [
    (path, name, value)
    for path in (GENERATE, TXT2IMG)
    for name, value in BAD_FIELDS
    if path == GENERATE or value not in (7, [7])
]


@pytest.mark.parametrize(("path", "name", "value"), BAD_ORDERS, ids=lambda part: repr(part)[:24])
def test_a_bad_field_is_refused_with_its_name(server: LiveServer, path: str, name: str, value: object) -> None:
    # The documented field `model` selects the documented errors in /sdapi too.
    reply = post_text(server, path, json.dumps(order(**{"model": "flux2-tiny", name: value})))
    content = assert_refused(reply, 400, "INVALID_REQUEST", sdapi=path == TXT2IMG)
    assert content["details"]["field"].partition(".")[0] == name
    assert name in content["error"]
    # The error must not repeat the whole value.
    assert len(content["error"]) < 500


@pytest.mark.parametrize("name", ["image_strength", "denoising_strength"])
@pytest.mark.parametrize("value", [1.1, -0.1, 1e308])
def test_a_strength_beyond_its_range_is_refused(server: LiveServer, name: str, value: float) -> None:
    fields = order(init_images=[picture()], **{name: value})
    content = assert_refused(server.post(GENERATE, fields), 400, "INVALID_REQUEST")
    assert "strength" in content["details"]["field"]


@pytest.mark.parametrize("scale", [1e308, 10.5, -11])
def test_a_scale_beyond_its_range_is_refused(tight: LiveServer, scale: float) -> None:
    content = assert_refused(
        tight.post(GENERATE, order(lora_files=["inside"], lora_scales=[scale])), 400, "INVALID_REQUEST"
    )
    assert "lora" in content["details"]["field"]


@pytest.mark.parametrize("sides", [(5, 1), (1, 5), (0, 1), (-1, -1), (10**30, 10**30), (10**4000, 1)])
def test_more_pictures_by_batches_than_allowed_are_refused(server: LiveServer, sides: tuple[int, int]) -> None:
    fields = order(model="flux2-tiny", batch_size=sides[0], n_iter=sides[1])
    content = assert_refused(post_text(server, TXT2IMG, json.dumps(fields)), 400, "INVALID_REQUEST", sdapi=True)
    assert content["details"]["field"] in {"num_images", "n_iter", "batch_size"}
    assert len(content["error"]) < 500


def test_more_references_than_allowed_are_refused(server: LiveServer) -> None:
    assert_refused(server.post(GENERATE, order(extra_images=[picture()] * 9)), 400, "INVALID_REQUEST")


def test_a_second_picture_to_repaint_is_refused(server: LiveServer) -> None:
    content = assert_refused(server.post(GENERATE, order(init_images=[picture()] * 2)), 400, "INVALID_REQUEST")
    assert content["details"]["field"] == "init_images"


def test_a_mask_without_its_picture_is_refused(server: LiveServer) -> None:
    content = assert_refused(server.post(GENERATE, order(mask=picture())), 400, "INVALID_REQUEST")
    assert content["details"]["field"] == "mask"


@pytest.mark.parametrize("fields", [{}, {"init_images": []}, {"init_images": None}])
def test_repainting_without_a_picture_is_refused(server: LiveServer, fields: dict[str, object]) -> None:
    content = assert_refused(
        server.post(IMG2IMG, order(model="flux2-tiny", **fields)), 400, "INVALID_REQUEST", sdapi=True
    )
    assert content["details"]["field"] == "init_images"


def test_a_long_idempotency_key_is_refused(server: LiveServer) -> None:
    reply = server.post(GENERATE, order(), headers={"Idempotency-Key": "x" * 201})
    assert assert_refused(reply, 400, "INVALID_REQUEST")["details"]["field"] == "Idempotency-Key"


def test_an_idempotency_key_of_another_order_is_refused(server: LiveServer) -> None:
    key = {"Idempotency-Key": "test_errors"}
    assert server.post(GENERATE, order(), headers=key).status_code == 200
    assert_refused(server.post(GENERATE, order(steps=2), headers=key), 409, "CONFLICT")


# Models and adapters


@pytest.mark.parametrize("path", ORDERS)
def test_an_unknown_model_is_refused_with_those_there_are(server: LiveServer, path: str) -> None:
    reply = server.post(path, order(model="nothing", init_images=[picture()]))
    content = assert_refused(reply, 404, "MODEL_NOT_FOUND", sdapi=path != GENERATE)
    assert "flux2-klein-4b" in content["details"]["available_models"]


@pytest.mark.parametrize("name", ["schnell", "dev", "flux1-dev", "FLUX.1-schnell", "krea-dev"])
def test_flux1_names_are_answered_as_documented(server: LiveServer, name: str) -> None:
    for reply in (server.post(GENERATE, order(model=name)), server.get(f"/api/v1/models/{name}/status")):
        content = assert_refused(reply, 404, "MODEL_NOT_FOUND")
        assert content["error"] == f"Model '{name}' not found. {FLUX1}"


@pytest.mark.parametrize("name", ["seedvr2"])
def test_a_model_that_cannot_paint_is_refused(server: LiveServer, name: str) -> None:
    assert_refused(server.post(GENERATE, order(model=name)), 400, "MODEL_UNSUPPORTED")


def test_an_unknown_adapter_is_refused(server: LiveServer, tight: LiveServer) -> None:
    for live in (server, tight):
        content = assert_refused(live.post(GENERATE, order(lora_files=["nothing"])), 404, "LORA_NOT_FOUND")
        assert content["details"] == {"lora": "nothing"}
        assert "models/loras" not in content["error"]
        assert str(tight.output.parent) not in content["error"]


PIECES = [
    "..",
    ".",
    "/",
    "\\",
    "%2e%2e",
    "%2f",
    "\0",
    "~",
    "~root",
    "~nobody-of-this-name",
    "C:",
    "a" * 300,
    "etc/passwd",
]
PATHS = st.lists(st.sampled_from([*PIECES, "flux2-tiny", "inside", ".safetensors", ":", "ä", "\n"]), min_size=1)
PATHS_GIVEN = PATHS.map("".join).filter(lambda name: name not in {"flux2-tiny", "inside", "inside.safetensors"})


@given(PATHS_GIVEN)
def test_a_path_is_no_model(server: LiveServer, name: str) -> None:
    assert_refused(server.post(GENERATE, order(model=name)), 404, "MODEL_NOT_FOUND")


@given(PATHS_GIVEN)
def test_a_path_in_the_address_is_no_model(server: LiveServer, name: str) -> None:
    url = f"{server.url}/api/v1/models/{quote(name, safe='')}/status"
    prepared = requests.Request("GET", url).prepare()
    prepared.url = url
    with requests.Session() as session:
        reply = session.send(prepared, timeout=60, allow_redirects=False)
    assert_refused(reply, 404, reply.json()["code"])
    assert reply.json()["code"] in {"MODEL_NOT_FOUND", "NOT_FOUND"}


@given(PATHS_GIVEN)
@example("a" * 300)
@example("~nobody-of-this-name/x")
@example("~/x")
@example("")
def test_a_path_is_no_adapter(tight: LiveServer, name: str) -> None:
    reply = tight.post(GENERATE, order(lora_files=[name]))
    content = assert_refused(reply, reply.status_code, reply.json()["code"])
    assert (reply.status_code, content["code"]) in {(404, "LORA_NOT_FOUND"), (400, "LORA_INVALID")}
    assert str(tight.output.parent) not in reply.text


@pytest.mark.parametrize(
    "there", ["/etc/passwd", "{}/outside.safetensors", "../outside.safetensors", "link", "../outside"]
)
def test_whether_a_file_is_outside_the_folder_of_adapters_is_not_told(tight: LiveServer, there: str) -> None:
    name = there.format(tight.output.parent)
    answers = [tight.post(GENERATE, order(lora_files=[given])) for given in (name, f"{name}-nothing")]
    texts = [reply.json()["error"].replace("-nothing", "") for reply in answers]
    assert answers[0].status_code == answers[1].status_code == 404
    assert texts[0] == texts[1]


# Pictures


def form_of(kind: str) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (64, 64)).save(buffer, kind)
    return buffer.getvalue()


STRANGE: dict[str, bytes] = {
    "nothing": b"",
    "text": b"this is a text",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64"/>',
    "pdf": b"%PDF-1.7\n",
    "psd": b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 64, 64, 8, 3) + bytes(64),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 64 64\n%%EndComments\n",
    "fits": b"SIMPLE  =                    T".ljust(2880),
    "tiff": form_of("TIFF"),
    "ico": form_of("ICO"),
    "ppm": form_of("PPM"),
    "icns": b"icns" + bytes(60),
    "half a header": form_of("PNG")[:20],
    "no pixels": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", struct.pack(">IIBBBBB", 0, 0, 8, 2, 0, 0, 0)),
}


@pytest.mark.parametrize("field", ["init_images", "extra_images", "mask"])
@pytest.mark.parametrize("kind", STRANGE)
def test_what_is_no_picture_is_refused(server: LiveServer, field: str, kind: str) -> None:
    sent = base64.b64encode(STRANGE[kind] or b"\0").decode()
    fields = {"init_images": [picture()], field: sent if field == "mask" else [sent]}
    content = assert_refused(server.post(GENERATE, order(**fields)), 400, "INVALID_IMAGE")
    assert content["details"]["field"] == field


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("prefix", ["", "data:image/any;base64,"])
def test_pictures_of_the_usual_kinds_are_taken(server: LiveServer, kind: str, prefix: str) -> None:
    reply = server.post(GENERATE, order(init_images=[prefix + picture(form=kind)]))
    assert server.wait_for_status(reply.json()["job_id"])["status"] == "completed"


@pytest.mark.parametrize("text", ["=", "a", "data:image/png;base64,a", "äöü", "data:,", ""])
def test_broken_base64_is_refused(server: LiveServer, text: str) -> None:
    reply = server.post(IMG2IMG, order(model="flux2-tiny", init_images=[text]))
    content = assert_refused(reply, 400, "INVALID_IMAGE", sdapi=True)
    assert content["details"]["field"] == "init_images"


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_the_address_of_a_picture_is_refused(server: LiveServer, scheme: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as canary:
        canary.settimeout(0.2)
        address = f"{scheme}://127.0.0.1:{canary.getsockname()[1]}/picture.png"
        content = assert_refused(server.post(GENERATE, order(init_images=[address])), 400, "INVALID_IMAGE")
        assert "not its address" in content["error"]
        with pytest.raises(TimeoutError):
            canary.accept()


@pytest.mark.parametrize("address", ["file:///etc/passwd", "ftp://127.0.0.1/a", "HTTP://127.0.0.1/a", "/etc/passwd"])
def test_other_addresses_are_no_pictures_either(server: LiveServer, address: str) -> None:
    assert_refused(server.post(GENERATE, order(init_images=[address])), 400, "INVALID_IMAGE")


@pytest.mark.parametrize("side", [6000, 9000, 13_000, 19_000])
def test_a_decompression_bomb_is_refused_without_being_unpacked(server: LiveServer, side: int) -> None:
    sent = make_bomb(side)
    process = psutil.Process(server.process.pid)
    before = process.memory_info().rss
    worked = process.cpu_times().user
    reply = server.post(GENERATE, order(init_images=[sent]))
    seconds = process.cpu_times().user - worked
    assert_refused(reply, 400, "INVALID_IMAGE")
    assert seconds < 1
    assert process.memory_info().rss - before < MOST_GROWTH
