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
    assert DAMAGED not in can
    assert can[BASE]["guidance"] == "cfg"


def test_versions_of_a_model_name_it_and_what_sets_them_apart(stocked: LiveServer) -> None:
    found = rows(stocked)
    versions = {name: (row["variant_of"], row["variant"]) for name, row in found.items()}
    assert versions[AWAY] == (None, "full")
    assert versions[f"{AWAY}-4-bit"] == (AWAY, "4 bits")
    assert versions[f"{AWAY}-mlx-4bit"] == (AWAY, "4 bits, stored")
    assert versions[BASE] == (None, "full")
    # Versions have their model's label, and every label is that of one model.
    assert all(row["label"] == found[row["variant_of"] or name]["label"] for name, row in found.items())
    labels = [row["label"] for row in found.values() if row["variant_of"] is None]
    assert len(set(labels)) == len(labels)


def test_only_the_embedded_models_are_called_demos(stocked: LiveServer) -> None:
    demos = {row["variant_of"] or name for name, row in rows(stocked).items() if row["demo"]}
    assert demos == {HERE, f"{HERE}-base"}


def test_every_model_that_paints_from_words_has_four_examples(stocked: LiveServer) -> None:
    found = rows(stocked)
    counts = {row["capabilities"]["from_words"]: len(set(row["examples"])) for row in found.values()}
    assert counts == {True: 4, False: 0}
    assert found[f"{HERE}-4-bit"]["examples"] == found[HERE]["examples"] != found[AWAY]["examples"]
    assert found[BASE]["examples"] == found[AWAY]["examples"]


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


def test_the_memory_of_a_model_that_is_not_here_is_estimated_and_halved_by_half_the_bits(stocked: LiveServer) -> None:
    found = rows(stocked)
    assert not found[AWAY]["downloaded"]
    # 7 * 10^9 parameters, in the 4 bytes of a CPU.
    assert found[AWAY]["memory_gb"] == pytest.approx(26.3, abs=0.5)
    assert 1.7 < found[f"{AWAY}-8-bit"]["memory_gb"] / found[f"{AWAY}-4-bit"]["memory_gb"] < 2
    assert found[f"{AWAY}-mlx-4bit"]["memory_gb"] == found[f"{AWAY}-4-bit"]["memory_gb"]


def test_a_model_says_whether_it_fits_before_the_engine_has_started(tmp_path: Path) -> None:
    empty_cache = {"HF_HUB_CACHE": str(tmp_path / "cache")}
    with run_server(tmp_path / "output", "--set", "engine.memory_budget_gb=9", environ=empty_cache) as live:
        found = rows(live)
        assert live.get("/api/v1/system").json()["engine"]["running"] is False
    assert [found[name]["fits"] for name in (HERE, f"{AWAY}-4-bit", AWAY)] == [True, True, False]


def test_a_model_that_is_cut_off_is_not_listed_and_says_what_it_lacks(stocked: LiveServer) -> None:
    found = rows(stocked)
    assert DAMAGED not in found
    reply = stocked.post("/api/v1/generate", {"prompt": "x", "model": DAMAGED})
    assert reply.json()["code"] == "MODEL_INCOMPLETE"
    assert "transformer/" in reply.json()["error"]
    assert all(row["memory_gb"] is None for row in found.values() if row["unavailable"])


def test_the_size_of_a_download_is_the_registrys(stocked: LiveServer) -> None:
    found = rows(stocked)
    assert found[AWAY]["download_gb"] == found[AWAY]["size_gb"] == 16.0
    assert (found[AWAY]["url"], found[HERE]["url"]) == (
        "https://huggingface.co/black-forest-labs/FLUX.2-klein-4B",
        None,
    )
    assert found[HERE]["download_gb"] is None
    assert found[HERE]["size_gb"] > 0
