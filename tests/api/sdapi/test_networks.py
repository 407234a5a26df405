"""Adapters in SD-WebUI's prompts: which names are found, and how the others are reported."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from tests.support.live_server import LiveServer, run_server

pytestmark = pytest.mark.system

LAYER = "single_transformer_blocks.0.attn.to_out"
NUMBERS = np.random.default_rng(0)
FACTORS = {"lora_down.weight": NUMBERS.normal(size=(4, 768)), "lora_up.weight": NUMBERS.normal(size=(192, 4))}


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LiveServer]:
    """A server with an adapter that has an alias and tensors for a text encoder, and with a broken link."""
    folder = Path(tmp_path_factory.mktemp("networks"))
    tensors = {f"lora_transformer_{LAYER.replace('.', '_')}.{name}": value for name, value in FACTORS.items()}
    tensors["lora_te1_layers_0.lora_down.weight"] = np.zeros((4, 4))
    loras = folder / "loras"
    loras.mkdir()
    save_file(
        {name: value.astype(np.float32) for name, value in tensors.items()},
        loras / "downloaded_v2.safetensors",
        {"ss_output_name": "My Style"},
    )
    (loras / "gone.safetensors").symlink_to("nothing.safetensors")
    (loras / "._downloaded_v2.safetensors").write_bytes(b"\x00\x05\x16\x07")
    with run_server(folder / "output", "--set", f"models.lora_dir={loras}") as live:
        yield live


def paint(live: LiveServer, prompt: str, **fields: object) -> tuple[str, Any]:
    body = {"prompt": prompt, "width": 64, "height": 64, "steps": 1, "seed": 7, **fields}
    reply = live.post("/sdapi/v1/txt2img", body)
    assert reply.status_code == 200, reply.text
    return reply.json()["images"][0], json.loads(reply.json()["info"])


def test_the_lists_have_the_files_that_are_there(live: LiveServer) -> None:
    (row,) = live.get("/sdapi/v1/loras").json()
    assert (row["name"], row["alias"]) == ("downloaded_v2", "My Style")
    (row,) = live.get("/api/v1/loras").json()["loras"]
    assert (row["name"], row["alias"]) == ("downloaded_v2", "My Style")


@pytest.mark.parametrize("name", ["downloaded_v2", "DOWNLOADED_V2", "My Style", "my style"])
def test_a_tag_finds_an_adapter_by_name_and_alias(live: LiveServer, name: str) -> None:
    picture, info = paint(live, f"a fox <lora:{name}:1>")
    assert picture != paint(live, "a fox")[0]
    assert "Networks not found" not in info["extra_generation_params"]


def test_what_an_adapter_has_for_the_text_encoder_is_reported(live: LiveServer) -> None:
    _, info = paint(live, "a fox <lora:my style:1>")
    assert info["extra_generation_params"]["Lora left out"] == "1 of 3 tensors of downloaded_v2 (text encoder)"


@pytest.mark.parametrize(
    ("prompt", "fields", "names"),
    [
        ("a fox <lora:nobody:1><lyco:no one:1>", {}, "nobody, no one"),
        ("a fox <hypernet:nobody:1> <lora:my style:0>", {}, "nobody"),
        ("a fox", {"negative_prompt": "bad <lora:my style:1>"}, "my style"),
        ("a fox", {"enable_hr": True, "hr_scale": 1, "hr_prompt": "x <lora:my style:1>"}, "my style"),
    ],
)
def test_a_tag_without_effect_is_reported(live: LiveServer, prompt: str, fields: dict[str, Any], names: str) -> None:
    _, info = paint(live, prompt, **fields)
    assert info["extra_generation_params"]["Networks not found"] == names
    assert info["message"].endswith(f"Networks not found: {names}")
    assert any(names in line for line in live.lines)


def test_the_native_api_takes_an_alias_and_names_what_it_does_not_find(live: LiveServer) -> None:
    order = {"prompt": "x", "width": 64, "height": 64, "steps": 1}
    reply = live.post("/api/v1/generate", {**order, "lora_files": ["MY STYLE"]})
    live.wait_for_status(reply.json()["job_id"], "completed")
    reply = live.post("/api/v1/generate", {**order, "lora_files": ["nobody"]})
    assert (reply.status_code, reply.json()["code"]) == (404, "LORA_NOT_FOUND")
