"""Every API refuses a job or model that does not fit into memory, before it loads anything."""

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system

# The embedded model takes 28 MiB; painting 64x64 pixels takes 35 MiB in all.
NARROW = ("--set", "engine.memory_budget_gb=0.05")
TOO_NARROW = ("--set", "engine.memory_budget_gb=0.01")
DOORS = ("/api/v1/generate", "/sdapi/v1/txt2img")
SMALL: dict[str, Any] = {"prompt": "a red circle", "width": 64, "height": 64, "steps": 1}
BIG: dict[str, Any] = {**SMALL, "width": 256, "height": 256}


def reference(side: int) -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (side, side), "navy").save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


@pytest.fixture(scope="module")
def narrow(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    with run_server(Path(tmp_path_factory.mktemp("narrow")) / "output", *NARROW) as live:
        live.wait_for_status(live.submit())
        yield live


def loaded(live: LiveServer) -> list[str]:
    found: list[str] = live.get("/api/v1/system").json()["loaded_models"]
    return found


@pytest.mark.parametrize("door", DOORS)
@pytest.mark.parametrize("order", [BIG, {**SMALL, "extra_images": [reference(256)] * 8}], ids=["size", "references"])
def test_a_picture_that_does_not_fit_is_not_even_queued(narrow: LiveServer, door: str, order: dict[str, Any]) -> None:
    before = narrow.get("/api/v1/jobs").json()["total"]
    reply = narrow.post(door, order)
    content = reply.json()
    assert (reply.status_code, content["code"]) == (503, "OOM_ERROR")
    assert content["error"] == "Insufficient memory. Try using a quantized model or low_ram mode"
    assert content["details"]["suggestion"] == "Use flux2-klein-4b-mlx-4bit or set low_ram=true"
    assert content["details"]["needed_gb"] > content["details"]["budget_gb"] == 0.05
    assert narrow.get("/api/v1/jobs").json()["total"] == before


@pytest.mark.parametrize("door", DOORS)
def test_a_picture_that_fits_is_painted(narrow: LiveServer, door: str) -> None:
    content = narrow.post(door, SMALL).json()
    assert content.get("images") or narrow.wait_for_status(content["job_id"])["status"] == "completed"


@pytest.mark.slow
def test_what_was_accepted_with_more_memory_fails_before_anything_is_loaded(tmp_path: Path) -> None:
    with run_server(tmp_path / "output") as live:
        live.post("/api/v1/queue/pause")
        job_id = live.submit(**BIG)
        live.stop()
    with run_server(tmp_path / "output", *NARROW) as live:
        job: dict[str, Any] = live.wait_for_status(job_id)
        assert (job["status"], job["code"], job["attempts"]) == ("failed", "OOM_ERROR", 1)
        assert job["details"]["suggestion"] == "Use flux2-klein-4b-mlx-4bit or set low_ram=true"
        assert loaded(live) == []
        assert live.wait_for_status(live.submit())["status"] == "completed"


def test_a_model_larger_than_the_budget_is_never_loaded(tmp_path: Path) -> None:
    with run_server(tmp_path / "output", *TOO_NARROW) as live:
        # The first request arrives while the engine starts and its memory is not known yet.
        for _ in range(2):
            reply = live.post("/sdapi/v1/txt2img", SMALL)
            assert (reply.status_code, reply.json()["code"]) == (503, "OOM_ERROR")
        reply = live.post("/api/v1/models/flux2-tiny/load")
        assert (reply.status_code, reply.json()["code"]) == (503, "OOM_ERROR")
        assert loaded(live) == []
        assert live.get("/api/v1/health").json()["status"] == "healthy"
