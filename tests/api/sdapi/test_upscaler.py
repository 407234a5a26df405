"""An upscaler model behind SD-WebUI's extras: a tiny random SeedVR2 in place of the real one."""

import base64
import io
import json
from collections.abc import Iterator

import pytest
from PIL import Image

from tests.support.live_server import LiveServer, run_server
from tests.support.seedvr2 import write_upscaler

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def enlarging(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    folder = tmp_path_factory.mktemp("enlarging")
    write_upscaler(folder / "models" / "seedvr2")
    with run_server(folder / "output", "--models-dir", str(folder / "models")) as live:
        yield live


def source() -> str:
    buffer = io.BytesIO()
    Image.effect_noise((40, 32), 60).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decode_image(text: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(text)))


def test_it_is_offered_only_where_it_is(enlarging: LiveServer, server: LiveServer) -> None:
    names = [[row["name"] for row in live.get("/sdapi/v1/upscalers").json()] for live in (enlarging, server)]
    assert names == [["None", "Lanczos", "Nearest", "SeedVR2"], ["None", "Lanczos", "Nearest"]]
    # An upscaler is not listed among the models that paint from prompts.
    assert "seedvr2" not in [row["title"] for row in enlarging.get("/sdapi/v1/sd-models").json()]


@pytest.mark.parametrize("name", ["SeedVR2", "seedvr2"])
def test_it_enlarges(enlarging: LiveServer, name: str) -> None:
    body = {"image": source(), "upscaler_1": name, "upscaling_resize": 2}
    reply = enlarging.post("/sdapi/v1/extra-single-image", body)
    assert reply.status_code == 200, reply.text
    assert decode_image(reply.json()["image"]).size == (80, 64)
    plain = enlarging.post("/sdapi/v1/extra-single-image", {**body, "upscaler_1": "Lanczos"}).json()["image"]
    assert decode_image(plain).tobytes() != decode_image(reply.json()["image"]).tobytes()


def test_it_is_refused_where_it_is_not(server: LiveServer) -> None:
    reply = server.post("/sdapi/v1/extra-single-image", {"image": source(), "upscaler_1": "SeedVR2"})
    assert (reply.status_code, reply.json()["errors"]) == (500, "could not find upscaler named SeedVR2")


def test_words_alone_are_refused(enlarging: LiveServer) -> None:
    reply = enlarging.post("/api/v1/generate", {"prompt": "x", "model": "seedvr2", "width": 64, "height": 64})
    assert (reply.status_code, reply.json()["code"]) == (400, "MODEL_UNSUPPORTED"), json.dumps(reply.json())
