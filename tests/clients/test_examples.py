"""The documents' examples in Python and curl, run with only address, key and size changed."""

import base64
import io
import json
import re
import sys
import types
from pathlib import Path

import pytest
import requests
from PIL import Image

import mflux_api
from mflux_api.engine.model import Model
from tests.support.documents import (
    COMET_SIZE,
    FOLDER,
    KEY,
    SIZE,
    comet_replacements,
    edge_replacements,
    klein_replacements,
    read_example,
    run_example,
)
from tests.support.live_server import LiveServer

pytestmark = pytest.mark.system

COST = re.compile(r"Cost: 0\.0\d\d\d บาท")


@pytest.fixture(scope="module")
def photo(guarded: LiveServer) -> str:
    """URL of a picture that can be fetched without an API key."""
    body = {"prompt": "a lake", "width": 256, "height": 256, "steps": 1}
    reply = requests.post(f"{guarded.url}/klein/generate", json=body, headers={"X-API-Key": KEY}, timeout=60)
    return str(reply.json()["image_url"])


def picture(address: str) -> tuple[str | None, tuple[int, int]]:
    with Image.open(io.BytesIO(requests.get(address, timeout=30).content)) as image:
        return image.format, image.size


# The Klein REST API


def test_kleins_python_paints_and_edits(guarded: LiveServer, photo: str, tmp_path: Path) -> None:
    example = read_example("klein.py", klein_replacements(guarded), *SIZE, ("https://example.com/photo.jpg", photo))
    found = re.findall(r"(?:Image URL|Edited image): (\S+)", run_example("klein.py", example, tmp_path))
    assert [picture(address) for address in found] == [("PNG", (256, 256))] * 2


@pytest.mark.slow
def test_kleins_curl_paints(guarded: LiveServer, tmp_path: Path) -> None:
    reply = json.loads(
        run_example("klein.sh", read_example("klein_generate.sh", klein_replacements(guarded), *SIZE), tmp_path)
    )
    assert (reply["width"], reply["height"]) == (256, 256)
    assert picture(reply["image_url"]) == ("PNG", (256, 256))


@pytest.mark.slow
def test_kleins_curl_edits(guarded: LiveServer, photo: str, tmp_path: Path) -> None:
    example = read_example("klein_edit.sh", klein_replacements(guarded), ("https://example.com/photo.jpg", photo))
    assert picture(json.loads(run_example("klein.sh", example, tmp_path))["image_url"]) == ("PNG", (256, 256))


# The edge worker


def test_the_edge_workers_curl_writes_a_picture(small: LiveServer, tmp_path: Path) -> None:
    run_example("edge.sh", read_example("edge.sh", edge_replacements(small)), tmp_path)
    with Image.open(tmp_path / "image.png") as image:
        assert (image.format, image.size) == ("PNG", (64, 64))


def test_the_edge_workers_python_writes_a_picture_and_its_cost(small: LiveServer, tmp_path: Path) -> None:
    assert COST.search(run_example("edge.py", read_example("edge.py", edge_replacements(small)), tmp_path))
    with Image.open(tmp_path / "generated.png") as image:
        assert image.size == (112, 64)


@pytest.mark.slow
def test_the_edge_workers_python_writes_frames(small: LiveServer, tmp_path: Path) -> None:
    # In the document, the import is in the example before.
    example = "import requests\n" + read_example("edge_video.py", edge_replacements(small))
    assert re.search(r"Generated 3 frames. Total cost: 0\.\d\d บาท", run_example("edge.py", example, tmp_path))
    assert len(list(tmp_path.glob("frame_000?.png"))) == 3


@pytest.mark.slow
def test_the_edge_workers_python_tries_again(small: LiveServer, tmp_path: Path) -> None:
    # The document defines the function without calling it.
    call = "\nopen('tried.png', 'wb').write(generate_with_retry('a red circle'))\n"
    run_example("edge.py", read_example("edge_retry.py", edge_replacements(small)) + call, tmp_path)
    with Image.open(tmp_path / "tried.png") as image:
        assert image.format == "PNG"


# CometAPI


def test_comets_python_waits_for_its_picture(guarded: LiveServer, tmp_path: Path) -> None:
    found = run_example("comet.py", read_example("cometapi.py", comet_replacements(guarded), *COMET_SIZE), tmp_path)
    address = re.search(r"Image ready: (\S+)", found)
    assert address
    assert picture(address[1]) == ("JPEG", (64, 64))


def test_comets_curl_orders_and_asks(guarded: LiveServer, tmp_path: Path) -> None:
    sent = json.loads(
        run_example(
            "comet.sh", read_example("cometapi_generate.sh", comet_replacements(guarded), *COMET_SIZE), tmp_path
        )
    )
    assert sent["status"] == "Pending"
    ask = read_example("cometapi_result.sh", comet_replacements(guarded), ("1n6vvx3ykhrm80cphgnafcmvgg", sent["id"]))
    while (reply := json.loads(run_example("comet.sh", ask, tmp_path)))["status"] == "Pending":
        assert reply["id"] == sent["id"]
    assert (reply["status"], reply["result"]["seed"]) == ("Ready", 42)
    assert reply["result"]["prompt"] == "ein fantastisches bild"


# The FLUX.2 web server


def test_the_web_servers_body_paints(small: LiveServer) -> None:
    source = io.BytesIO()
    Image.effect_noise((64, 64), 60).save(source, "PNG")
    body = json.loads((FOLDER / "flux2_web.json").read_text())
    body["input_image"] = body["input_image"].replace("...", base64.b64encode(source.getvalue()).decode())
    reply = small.post("/flux2-web/generate", body).json()
    assert (reply["success"], reply["images"][0]["seed"]) == (True, 12345)
    assert picture(f"{small.url}/flux2-web/images/{reply['images'][0]['filename']}") == ("PNG", (112, 64))


def test_the_web_servers_python_paints(tiny: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    # In the document the module has another name. The default model is not on every machine.
    module = types.ModuleType("fl24bit")
    module.generate_image = mflux_api.generate_image  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "fl24bit", module)
    monkeypatch.setattr("mflux_api.engine.model._last_loaded", {"model": tiny})
    names: dict[str, object] = {}
    exec(
        read_example(
            "flux2_web.py", (), ("steps=25", "steps=2"), ("width=1344", "width=112"), ("height=768", "height=64")
        ),
        names,
    )
    image, timings = names["image"], names["timings"]
    assert isinstance(image, Image.Image)
    assert isinstance(timings, dict)
    assert (image.size, names["seed"]) == ((112, 64), 12345)
    assert {"encoding", "diffusion", "total"} <= set(timings)
