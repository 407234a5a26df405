"""Memory estimates of FLUX.2 [klein]: the table in the documentation, from the published sizes."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from mflux.models.common.config import ModelConfig

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.memory_estimate import BUDGET_SHARE, Machine, MemoryEstimate, estimate_memory
from mflux_api.engine.flux2.networks import build_text_encoder, build_transformer, build_vae
from mflux_api.engine.memory import GIB
from tests.engine.flux2.test_dev_estimates import write_hollow
from tests.support.paths import CHECKPOINTS, ROOT

KLEIN = CHECKPOINTS / "klein"
DOCUMENT = ROOT / "docs" / "performance.md"
MAC = Machine(device="metal", bytes_per_value=2)
MACHINES = (8, 16, 24, 32, 48)
ROW = re.compile(r"^\| \[klein\] (4B|9B), (4|8|16) bits \| (.*) \|$", re.MULTILINE)
# The published text encoders are Qwen3-4B and Qwen3-8B; mflux has the sizes in which they differ.
QWEN3 = {
    "model_type": "qwen3",
    "num_hidden_layers": 36,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "vocab_size": 151936,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1e6,
}
OUT_LAYERS = (9, 18, 27)
CONFIGS = {"4B": ModelConfig.flux2_klein_4b, "9B": ModelConfig.flux2_klein_9b}


@pytest.fixture(scope="module", params=CONFIGS)
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[str, Path]:
    """A size of [klein], and a folder with the headers of its published files in place of the weights."""
    config = CONFIGS[request.param]()
    folder = tmp_path_factory.mktemp("published") / "klein"
    shutil.copytree(KLEIN, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json", "model_index.json"))
    transformer = {**config.transformer_overrides, "guidance_embeds": False}
    text_encoder = {**QWEN3, **config.text_encoder_overrides}
    write_component(folder / "transformer", transformer, build_transformer(transformer))
    write_component(folder / "text_encoder", text_encoder, build_text_encoder(text_encoder, OUT_LAYERS))
    write_component(folder / "vae", {}, build_vae({}))
    (folder / "model_index.json").write_text('{"is_distilled": true}')
    return request.param, folder


def write_component(folder: Path, config: dict[str, Any], module: Any) -> None:
    folder.mkdir(exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    write_hollow(folder / "model.safetensors", module)


def estimate(folder: Path, bits: int | None) -> MemoryEstimate:
    return estimate_memory(Checkpoint.read(folder), bits, MAC, size=(1024, 1024), references=[], pictures=1)


def verdict(found: MemoryEstimate, memory: int) -> str:
    budget = memory * GIB * BUDGET_SHARE
    if found.peak(low_ram=False) <= budget:
        return "yes"
    return "`low_ram`" if found.peak(low_ram=True) <= budget else "no"


def cells(found: MemoryEstimate) -> list[str]:
    peaks = (found.peak(low_ram=True), found.peak(low_ram=False))
    parts = (found.transformer, found.text_encoder, found.activations, *peaks)
    return [*(f"{part / GIB:.1f}" for part in parts), *(verdict(found, memory) for memory in MACHINES)]


def test_the_transformer_is_as_large_as_the_published_one(published: tuple[str, Path]) -> None:
    size, folder = published
    assert estimate(folder, None).transformer == pytest.approx({"4B": 7.75e9, "9B": 18.16e9}[size], rel=0.002)


def test_the_documented_rows_are_what_admission_computes(published: tuple[str, Path]) -> None:
    size, folder = published
    text = DOCUMENT.read_text(encoding="utf-8")
    documented = {row[2]: row[3].split(" | ") for row in ROW.finditer(text) if row[1] == size}
    computed = {str(bits or 16): cells(estimate(folder, bits)) for bits in (4, 8, None)}
    assert documented == computed, "\n".join(
        f"| [klein] {size}, {bits} bits | {' | '.join(row)} |" for bits, row in computed.items()
    )
