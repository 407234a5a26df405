"""The list of models, and the facts about each before it is loaded."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import TINY
from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system

DAMAGED, BASE = "damaged", "own-base"
HERE, AWAY = "flux2-tiny", "flux2-klein-4b"
GIB = 1024**3


@pytest.fixture(scope="module")
def stocked(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """Run a server with the embedded model, a damaged copy, and a copy marked as not distilled."""
    folder = Path(tmp_path_factory.mktemp("stocked"))
    for name in (DAMAGED, BASE):
        shutil.copytree(TINY, folder / "models" / name, ignore=shutil.ignore_patterns("samples", "*.md"))
    copy, index = folder / "models" / DAMAGED, folder / "models" / BASE / "model_index.json"
    index.write_text(json.dumps({**json.loads(index.read_text()), "is_distilled": False}))
    (weights,) = (copy / "transformer").glob("*.safetensors")
    weights.write_bytes(weights.read_bytes()[:1000])
    empty_cache = {"HF_HUB_CACHE": str(folder / "cache")}
    with run_server(folder / "output", "--set", f"models.cache_dir={folder / 'models'}", environ=empty_cache) as live:
        yield live


def rows(live: LiveServer) -> dict[str, dict[str, Any]]:
    return {row["title"]: row for row in live.get("/api/v1/models").json()["models"]}


def test_every_model_says_what_it_paints_by_default(stocked: LiveServer) -> None:
    found = rows(stocked)
    names = ("default_width", "default_height", "default_guidance", "upscaler")
    assert [found[HERE][name] for name in names] == [256, 256, 1.0, False]
    assert [found[AWAY][name] for name in names] == [512, 512, 1.0, False]
    assert found["seedvr2"]["upscaler"] is True
    assert found["flux2-klein-base-4b"]["default_guidance"] > 1


def test_every_model_says_what_it_can_do(stocked: LiveServer) -> None:
    can = {name: row["capabilities"] for name, row in rows(stocked).items()}
    names = ("from_words", "enlarges", "guidance", "negative_prompt", "mask", "references", "loras", "fixed_steps")
    assert [can["flux2-klein-base-4b"][name] for name in names] == [True, False, "cfg", True, True, 8, True, False]
    assert [can["seedvr2"][name] for name in names] == [False, True, "fixed", False, False, 0, False, True]
    assert (can[HERE]["native_side"], can[HERE]["bits"], can[f"{HERE}-4-bit"]["bits"]) == (256, [3, 4, 6, 8], [])


def test_a_model_that_is_here_says_what_its_folder_can_do(stocked: LiveServer) -> None:
    can = {name: row["capabilities"] for name, row in rows(stocked).items()}
    # The embedded model's text encoder cannot generate text; the published one can.
    assert [can[name]["prompt_upsampling"] for name in (HERE, AWAY)] == [False, True]
    assert can[DAMAGED]["guidance"] == "fixed"
    assert can[BASE]["guidance"] == "cfg"


def test_one_model_is_the_default(stocked: LiveServer) -> None:
    assert [name for name, row in rows(stocked).items() if row["default"]] == [HERE]


def test_the_default_size_is_the_one_that_is_painted(stocked: LiveServer) -> None:
    row = rows(stocked)[HERE]
    job_id = stocked.post("/api/v1/generate", {"prompt": "a circle", "steps": 1}).json()["job_id"]
    job: Any = stocked.wait_for_status(job_id)
    assert (job["parameters"]["width"], job["parameters"]["height"]) == (row["default_width"], row["default_height"])


def test_the_memory_of_a_model_is_known_before_it_is_loaded_and_about_right(stocked: LiveServer) -> None:
    row = rows(stocked)[HERE]
    stocked.post(f"/api/v1/models/{HERE}/load")
    used = stocked.get("/api/v1/system").json()["mlx_memory_gb"]
    assert row["memory_gb"] == pytest.approx(used, rel=0.15)


def test_the_memory_of_a_model_that_is_not_here_or_cannot_be_read_is_not_known(stocked: LiveServer) -> None:
    found = rows(stocked)
    assert (found[AWAY]["memory_gb"], found[AWAY]["downloaded"]) == (None, False)
    assert (found[DAMAGED]["memory_gb"], found[DAMAGED]["downloaded"]) == (None, True)
    assert all(row["memory_gb"] is None for row in found.values() if row["unavailable"])


def test_the_size_of_a_download_is_the_registrys(stocked: LiveServer) -> None:
    found = rows(stocked)
    assert found[AWAY]["download_gb"] == found[AWAY]["size_gb"] == 16.0
    assert found[HERE]["download_gb"] is None
    assert found[HERE]["size_gb"] > 0
