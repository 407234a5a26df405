"""Memory estimates of FLUX.2-dev: against a random checkpoint, and the table in the documentation."""

import gc
import json
import re
import shutil
import struct
from pathlib import Path

import mlx.core as mx
import pytest
from mlx import nn

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.components import COMPONENTS
from mflux_api.checkpoints.memory_estimate import (
    BUDGET_SHARE,
    Machine,
    MemoryEstimate,
    estimate_memory,
    estimate_picture_bytes,
)
from mflux_api.engine.flux2.loading import NetworkLoader
from mflux_api.engine.flux2.networks import build_text_encoder, build_transformer, build_vae
from mflux_api.engine.flux2.tensors import list_parameters
from mflux_api.engine.memory import GIB
from mflux_api.engine.model import Model, load_model
from mflux_api.engine.precision import choose_precision, device_name
from tests.support.marks import slow_but
from tests.support.paths import CHECKPOINTS, ROOT

DEV = CHECKPOINTS / "dev"
DOCUMENT = ROOT / "docs" / "performance.md"
HERE = Machine(device=device_name(), bytes_per_value=choose_precision("auto").dtype.size)
MAC = Machine(device="metal", bytes_per_value=2)
MACHINES = (32, 64, 96, 128)
ROW = re.compile(r"^\| (4|8|16) bits \| (.*) \|$", re.MULTILINE)


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with the headers of the published FLUX.2-dev and sparse files in place of 100 GB of weights."""
    folder = tmp_path_factory.mktemp("published") / "dev"
    shutil.copytree(DEV, folder, ignore=shutil.ignore_patterns("*.safetensors", "config.json"))
    mistral = {"model_type": "mistral3"}
    modules = {"transformer": build_transformer({}), "text_encoder": build_text_encoder(mistral, (39,))}
    for part, module in {**modules, "vae": build_vae({})}.items():
        (folder / part).mkdir(exist_ok=True)
        (folder / part / "config.json").write_text(json.dumps(mistral if part == "text_encoder" else {}))
        write_hollow(folder / part / "model.safetensors", module)
    return folder


def write_hollow(path: Path, module: nn.Module) -> None:
    header, end = {}, 0
    for name, value in list_parameters(module).items():
        header[name] = {"dtype": "BF16", "shape": value.shape, "data_offsets": [end, end + 2 * value.size]}
        end += 2 * value.size
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + end)


def wanted(folder: Path, bits: int | None, machine: Machine = MAC) -> MemoryEstimate:
    return estimate_memory(Checkpoint.read(folder), bits, machine, size=(1024, 1024), references=[], pictures=1)


def settle() -> int:
    """Free unused memory and return the bytes still in use."""
    gc.collect()
    mx.clear_cache()
    return int(mx.get_active_memory())


@pytest.mark.parametrize("bits", [None, 8, 4])
@pytest.mark.parametrize("part", COMPONENTS)
def test_each_network_takes_what_is_estimated(part: str, bits: int | None) -> None:
    estimate = getattr(wanted(DEV, bits, HERE), part)
    network = getattr(NetworkLoader(Checkpoint.read(DEV), bits, choose_precision("auto")), f"load_{part}")()
    assert sum(value.nbytes for value in list_parameters(network).values()) == pytest.approx(estimate, rel=0.001)


@pytest.mark.parametrize("size", slow_but([(64, 64), (256, 192)], (64, 64)))
def test_a_picture_takes_no_more_than_the_estimate(size: tuple[int, int]) -> None:
    model: Model = load_model(DEV)
    before = settle()
    mx.reset_peak_memory()
    model.generate("a red circle", width=size[0], height=size[1], steps=1, seeds=(1,))
    real = int(mx.get_peak_memory()) - before
    assert real <= estimate_picture_bytes(Checkpoint.read(DEV), HERE, size=size, references=[]) <= 4 * real


def test_the_published_sizes_are_those_of_the_published_weights(published: Path) -> None:
    found = wanted(published, None)
    assert found.transformer == pytest.approx(64.4e9, rel=0.002)
    assert found.text_encoder == pytest.approx(34.7e9, rel=0.002)


def verdict(found: MemoryEstimate, memory: int) -> str:
    budget = memory * GIB * BUDGET_SHARE
    if found.transformer + found.text_encoder + found.vae + found.activations <= budget:
        return "together"
    return "in turn" if found.peak(low_ram=False) <= budget else "no"


def cells(found: MemoryEstimate) -> list[str]:
    together = found.transformer + found.text_encoder + found.vae + found.activations
    parts = (found.transformer, found.text_encoder, found.activations, found.peak(low_ram=True), together)
    return [*(f"{part / GIB:.1f}" for part in parts), *(verdict(found, memory) for memory in MACHINES)]


def test_the_documented_table_is_what_admission_computes(published: Path) -> None:
    documented = {row[1]: row[2].split(" | ") for row in ROW.finditer(DOCUMENT.read_text(encoding="utf-8"))}
    computed = {str(bits or 16): cells(wanted(published, bits)) for bits in (4, 8, None)}
    assert documented == computed
