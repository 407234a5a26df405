"""The FLUX.2 web server's API: one picture at a time, with a file of its parameters beside it."""

import base64
import io
import re
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import requests
from PIL import Image

from mflux_api.dialects import flux2_web
from tests.support.documents import SMALL_SERVER
from tests.support.live_server import LiveServer, run_server
from tests.support.sdwebui_bodies import encode_base64

pytestmark = pytest.mark.system

PATH = "/flux2-web"
SQUARE = encode_base64(Image.new("RGB", (64, 64)))
NAME = re.compile(r"flux2_\d{8}_\d{6}_[0-9a-f]{8}\.png")


@pytest.fixture(scope="module")
def web(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    output = tmp_path_factory.mktemp("web") / "output"
    with run_server(output, "--root-dialect", "flux2-web", program=SMALL_SERVER, environ={"SIDE": "128"}) as live:
        yield live


def test_the_sizes_are_the_documented_ones() -> None:
    assert flux2_web.SIDES == {"square": (1024, 1024), "portrait": (768, 1344), "landscape": (1344, 768)}


def idle(live: LiveServer) -> None:
    while live.get(f"{PATH}/status").json()["generating"]:
        time.sleep(0.05)


@pytest.fixture(scope="module")
def busy(web: LiveServer) -> Iterator[dict[str, Any]]:
    """The status and the reply to a second request while the server paints, and the reply to the first."""
    body = {"prompt": "a red circle /4k\nnext", "orientation": "portrait", "steps": 10, "seed": 7, "strength": 0.1}
    source = io.BytesIO()
    Image.effect_noise((64, 64), 60).save(source, "PNG")
    body["input_image"] = "data:image/png;base64," + base64.b64encode(source.getvalue()).decode()
    with ThreadPoolExecutor(1) as pool:
        first = pool.submit(web.post, f"{PATH}/generate", body)
        while not web.get(f"{PATH}/status").json()["generating"]:
            time.sleep(0.02)
        status = web.get("/status").json()
        second = web.post(f"{PATH}/generate", {"prompt": "another"})
        yield {"first": first.result(), "second": second, "status": status}
    idle(web)


def test_a_picture_is_in_a_file_of_the_documented_name(web: LiveServer, busy: dict[str, Any]) -> None:
    reply: requests.Response = busy["first"]
    assert reply.status_code == 200, reply.text
    content = reply.json()
    assert content["success"]
    assert content["generation_time"] > 0
    (image,) = content["images"]
    assert NAME.fullmatch(image["filename"])
    assert image["seed"] == 7
    assert set(image["timings"]) == {"encoding", "diffusion", "save", "total"}
    for path in (f"{PATH}/images/{image['filename']}", f"/images/{image['filename']}"):
        with Image.open(io.BytesIO(web.get(path).content)) as picture:
            assert (picture.format, picture.size) == ("PNG", (128, 224))


def test_a_file_beside_it_says_how_it_was_painted(web: LiveServer, busy: dict[str, Any]) -> None:
    name = busy["first"].json()["images"][0]["filename"].replace(".png", ".prompt")
    lines = (web.output / "flux2-web" / name).read_text(encoding="utf-8").splitlines()
    found = dict(line.removeprefix("# ").split(": ", 1) for line in lines)
    assert (found["Prompt"], found["Dimensions"]) == ("a red circle /4k next", "128x224")
    assert (found["Seed"], found["Steps"]) == ("7", "10")
    assert re.fullmatch(r"encoding=[\d.]+s, diffusion=[\d.]+s, save=[\d.]+s", found["Timings"])


def test_one_at_a_time(busy: dict[str, Any]) -> None:
    assert busy["second"].status_code == 503
    assert busy["second"].json() == {"success": False, "error": "Generation already in progress"}
    assert busy["status"] == {"generating": True, "prompt": "a red circle /4k\nnext", "batch": 1, "current": 1}


def test_idle_it_says_so_and_what_it_paints_with(web: LiveServer, busy: dict[str, Any]) -> None:
    assert web.get(f"{PATH}/status").json() == {"generating": False, "prompt": None, "batch": 0, "current": 0}
    info = web.get(f"{PATH}/model-info").json()
    assert info == {
        "model": "flux2-tiny",
        "encoder": "local encoder",
        "description": "flux2-tiny with local encoder",
    }


@pytest.mark.parametrize(
    "wrong",
    [
        {"prompt": ""},
        {"prompt": "x", "orientation": "round"},
        {"prompt": "x", "size": "3mp"},
        {"prompt": "x", "steps": 9},
        {"prompt": "x", "steps": 51},
        {"prompt": "x", "batch": 5},
        {"prompt": "x", "strength": 1.1, "input_image": SQUARE},
        {"prompt": "x", "input_image": "no picture"},
        # Larger than generation.max_side.
        {"prompt": "x", "size": "4mp"},
    ],
)
def test_a_wrong_request_is_refused(server: LiveServer, wrong: dict[str, Any]) -> None:
    reply = server.post(f"{PATH}/generate", wrong)
    assert (reply.status_code, reply.json()["success"], bool(reply.json()["error"])) == (400, False, True)


@pytest.mark.parametrize("name", ["flux2_20250104_143012_a1b2c3d4.png", "..%2Fjobs.db", "jobs.db", "x.png"])
def test_nothing_else_is_handed_out(web: LiveServer, name: str) -> None:
    assert web.get(f"{PATH}/images/{name}").status_code == 404
