"""FLUX.2-dev: guidance as an input, no negative prompts, networks loaded in turns, weights read block by block."""

import gc
import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from mflux_api.checkpoints.capabilities import ModelFacts
from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.components import COMPONENTS
from mflux_api.checkpoints.memory_estimate import (
    Machine,
    estimate_memory,
)
from mflux_api.engine.cache import LoadPlan, ModelCache
from mflux_api.engine.engine import Engine
from mflux_api.engine.flux2.loading import NetworkLoader
from mflux_api.engine.flux2.networks import build_text_encoder, embed_timesteps
from mflux_api.engine.flux2.pipeline import Pipeline
from mflux_api.engine.flux2.quantization import quantize
from mflux_api.engine.flux2.sampler import scale_guidance
from mflux_api.engine.flux2.tensors import list_parameters
from mflux_api.engine.model import Model, load_model
from mflux_api.engine.precision import choose_precision, device_name
from mflux_api.errors import OutOfMemory
from mflux_api.ipc.messages import EngineSetup, FinishedPicture, PaintCommand
from mflux_api.models.registry import resolve_model
from mflux_api.request import GenerateRequest
from tests.engine.flux2.test_quantization import psnr
from tests.support.estimating import estimate_held
from tests.support.marks import slow_but
from tests.support.paths import CHECKPOINTS

DEV = CHECKPOINTS / "dev"
WIDTH = choose_precision("auto").dtype.size
SMALL: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "seeds": (3,)}
PLAN = LoadPlan(
    folder=DEV,
    family="flux2",
    facts=ModelFacts(),
    bits=None,
    precision="auto",
    low_ram=False,
    embedding_cache=1 << 20,
)


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(DEV)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return Path(shutil.copytree(DEV, tmp_path / "dev"))


@pytest.fixture
def clear_caches() -> None:
    """Free what earlier tests left behind, so that it is not freed during a measurement."""
    gc.collect()
    mx.clear_cache()


def pixels(model: Model, **changes: Any) -> NDArray[np.float32]:
    return model.generate("a red circle", **{**SMALL, **changes})[0].array


# Guidance


def test_guidance_changes_the_picture_and_is_reported_as_asked(model: Model) -> None:
    pictures = [model.generate("a red circle", guidance=value, **SMALL)[0] for value in (0.0, 1.0, 2.5, 4.0)]
    assert [picture.guidance for picture in pictures] == [0.0, 1.0, 2.5, 4.0]
    assert len({picture.array.tobytes() for picture in pictures}) == 4


@pytest.mark.parametrize("guidance", [0.0, 0.5, 1.0, 1.0001, 4.0])
def test_the_transformer_embeds_a_thousand_times_the_guidance(model: Model, guidance: float) -> None:
    value = scale_guidance(guidance)
    scaled = value * 1000 if value.max() <= 1 else value
    np.testing.assert_allclose(np.array(scaled), guidance * 1000, rtol=1e-6)


def test_sines_of_large_angles_are_those_of_exact_frequencies() -> None:
    found = np.array(embed_timesteps(mx.array([4000.0]), 256))[0]
    angles = 4000.0 * np.exp(-np.log(10_000.0) * np.arange(128) / 128)
    assert np.abs(found - np.concatenate([np.cos(angles), np.sin(angles)])).max() < 3e-4


def test_a_negative_prompt_changes_nothing_and_is_not_encoded(model: Model) -> None:
    plain = pixels(model, guidance=4.0)
    np.testing.assert_array_equal(pixels(model, guidance=4.0, negative_prompt="never read"), plain)
    assert "never read" not in model.pipeline.prompt_encoder.cache


@pytest.mark.parametrize("checkpoint", slow_but(["dev", "klein"], "dev"))
def test_only_devs_transformer_is_evaluated_block_by_block(
    checkpoint: str, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    painting = load_model(DEV.parent / checkpoint) if checkpoint != "dev" else model
    painting.pipeline.prompt_encoder.encode("a red circle")
    evaluated: list[object] = []
    monkeypatch.setattr("mflux_api.engine.flux2.networks.mx.eval", lambda *values: evaluated.append(values))
    transformer = painting.pipeline.transformer
    prompt, tokens = mx.zeros((1, 4, 96)), mx.zeros((1, 16, 128))
    ids = [mx.zeros((count, 4), dtype=mx.int32) for count in (4, 16)]
    level = mx.array(0.5)
    transformer(tokens, prompt, level, img_ids=ids[1], txt_ids=ids[0])
    blocks = len(transformer.transformer_blocks) + len(transformer.single_transformer_blocks)
    assert len(evaluated) == (blocks if checkpoint == "dev" else 0)


# Quantization


@pytest.mark.parametrize(("bits", "floor"), [(8, 30.0), pytest.param(4, 15.0, marks=pytest.mark.slow)])
def test_quantized_pictures_stay_near_the_float32_ones(model: Model, bits: int, floor: float) -> None:
    assert psnr(model, load_model(DEV, quantize=bits)) > floor


@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("part", ["transformer", "text_encoder"])
def test_quantizing_block_by_block_gives_the_bits_of_quantizing_the_whole(bits: int, part: str) -> None:
    loaded = [
        getattr(NetworkLoader(PLAN.read_checkpoint(), width, choose_precision("auto")), f"load_{part}")()
        for width in (bits, None)
    ]
    mx.eval(loaded[1].parameters())
    quantize(loaded[1], bits)
    found, whole = (list_parameters(module) for module in loaded)
    assert found.keys() == whole.keys()
    assert any(name.endswith(".scales") for name in found)
    assert all(mx.array_equal(found[name], whole[name]) for name in found)


def enlarge(folder: Path) -> int:
    """Give the folder a text encoder of thirty large blocks; return the number of values in one block."""
    path = folder / "text_encoder" / "config.json"
    config = json.loads(path.read_text())
    config["text_config"] |= {"hidden_size": 256, "intermediate_size": 512, "num_attention_heads": 8}
    path.write_text(json.dumps(config))
    expected = list_parameters(build_text_encoder(config, (10, 20, 30)))
    tensors = {name: mx.random.normal(value.shape).astype(mx.bfloat16) for name, value in expected.items()}
    mx.save_safetensors(str(folder / "text_encoder" / "model.safetensors"), tensors)
    return sum(value.size for name, value in expected.items() if name.startswith("layers.0."))


@pytest.mark.usefixtures("clear_caches")
@pytest.mark.parametrize("precision", slow_but(["bfloat16", "float32"], "bfloat16"))
@pytest.mark.parametrize("bits", slow_but([4, 8, None], 4, None))
def test_no_more_than_a_block_is_in_memory_beside_what_is_kept(folder: Path, bits: int | None, precision: str) -> None:
    block = enlarge(folder)
    loader = NetworkLoader(Checkpoint.read(folder), bits, choose_precision(precision))
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    mx.reset_peak_memory()
    module = loader.load_text_encoder()
    size, peak = mx.get_active_memory() - before, mx.get_peak_memory() - before
    assert len(module.layers) == 30
    # One block as stored (2 bytes a value) and the same block after the cast.
    assert peak - size <= block * (2 + choose_precision(precision).dtype.size)


# Networks loaded in turns


def count_loads(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count how often each network is loaded."""
    loads = dict.fromkeys(COMPONENTS, 0)

    def counting(part: str, load: Callable[[NetworkLoader], Any]) -> Callable[[NetworkLoader], Any]:
        def loading(loader: NetworkLoader) -> Any:
            loads[part] += 1
            return load(loader)

        return loading

    for part in COMPONENTS:
        load = getattr(NetworkLoader, f"load_{part}")
        monkeypatch.setattr(NetworkLoader, f"load_{part}", counting(part, load))
    return loads


def test_networks_that_take_turns_paint_the_same(model: Model) -> None:
    in_turn = load_model(DEV, low_ram=True)
    assert in_turn.pipeline.takes_turns
    np.testing.assert_array_equal(pixels(in_turn), pixels(model))


@pytest.mark.slow
def test_the_second_picture_of_a_prompt_loads_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    loads = count_loads(monkeypatch)
    in_turn = load_model(DEV, low_ram=True)
    assert loads == {"transformer": 0, "text_encoder": 0, "vae": 1}
    for _ in range(2):
        pixels(in_turn)
        assert loads == {"transformer": 1, "text_encoder": 1, "vae": 1}
    in_turn.generate("another prompt", **SMALL)
    assert loads == {"transformer": 2, "text_encoder": 2, "vae": 1}


@pytest.mark.usefixtures("clear_caches")
def test_networks_that_take_turns_are_never_in_memory_together(folder: Path) -> None:
    enlarge(folder)
    machine = Machine(device=device_name(), bytes_per_value=WIDTH)
    wanted = estimate_memory(Checkpoint.read(folder), None, machine, size=(64, 64), references=[], pictures=0)
    in_turn = load_model(folder, low_ram=True).pipeline
    before = mx.get_active_memory()
    for _ in range(2):
        for part, size in (("text_encoder", wanted.text_encoder), ("transformer", wanted.transformer)):
            assert getattr(in_turn, part)
            assert mx.get_active_memory() - before == pytest.approx(size, rel=0.05)


@pytest.mark.parametrize("short", [0, 1])
def test_they_take_turns_when_the_budget_asks_for_it(short: int) -> None:
    wanted = estimate_memory(
        Checkpoint.read(DEV),
        None,
        Machine(device=device_name(), bytes_per_value=WIDTH),
        size=(1024, 1024),
        references=[],
        pictures=0,
    )
    together = wanted.transformer + wanted.text_encoder + wanted.vae + wanted.activations
    cache = ModelCache(together - short)
    assert cache.fit_to_budget(PLAN).low_ram == bool(short)
    pipeline = cache.get(PLAN)
    assert isinstance(pipeline, Pipeline)
    assert pipeline.takes_turns == bool(short)
    assert cache.size == estimate_held(PLAN.read_checkpoint(), None, WIDTH, low_ram=bool(short))


def test_a_large_picture_makes_them_take_turns_and_they_go_on() -> None:
    machine = Machine(device=device_name(), bytes_per_value=WIDTH)
    work = estimate_memory(
        Checkpoint.read(DEV), None, machine, size=(1024, 1024), references=[], pictures=0
    ).activations
    cache = ModelCache(estimate_held(PLAN.read_checkpoint(), None, WIDTH) + work)
    assert not cache.fit_to_budget(PLAN).low_ram
    assert cache.fit_to_budget(PLAN, (2048, 2048)).low_ram
    assert cache.fit_to_budget(PLAN, references=1).low_ram
    cache.get(cache.fit_to_budget(PLAN, (2048, 2048)))
    assert cache.fit_to_budget(PLAN).low_ram


def test_the_files_of_a_loaded_model_are_not_read_again_for_each_picture(folder: Path) -> None:
    plan, cache = replace(PLAN, folder=folder), ModelCache(1 << 30)
    cache.get(plan)
    for file in folder.rglob("*.safetensors"):
        file.unlink()
    assert cache.fit_to_budget(plan) == plan


def test_the_engine_lets_them_take_turns_in_a_small_budget() -> None:
    located = resolve_model(DEV, Path())
    budget = estimate_held(PLAN.read_checkpoint(), None, WIDTH)
    engine = Engine(
        EngineSetup(
            budget=budget, precision="auto", embedding_cache=1 << 20, max_image_pixels=1 << 20, low_priority=False
        )
    )
    request = GenerateRequest(prompt="x", negative_prompt="", guidance=4.0, **SMALL)
    replies = list(engine.run_command(PaintCommand(model=located, request=request, low_ram=False)))
    assert isinstance(replies[-1], FinishedPicture)
    assert [held.low_ram for held in engine.cache.list_plans()] == [True]
    assert list(engine.report_memory().loaded) == [located.spec.name]


def test_a_budget_too_small_for_turns_is_refused_with_what_they_need() -> None:
    least = estimate_held(PLAN.read_checkpoint(), None, WIDTH, low_ram=True)
    with pytest.raises(OutOfMemory) as caught:
        ModelCache(least - 1).get(PLAN)
    assert caught.value.details["needed"] == least


@pytest.mark.parametrize("bits", slow_but([None, 4], 4))
@pytest.mark.parametrize("low_ram", slow_but([False, True], True))
def test_a_saved_model_paints_the_same(tmp_path: Path, bits: int | None, low_ram: bool) -> None:
    loaded = load_model(DEV, quantize=bits, low_ram=low_ram)
    loaded.save(tmp_path / "saved")
    saved = load_model(tmp_path / "saved")
    assert saved.bits == bits
    assert saved.pipeline.checkpoint.guidance_embeds
    np.testing.assert_array_equal(pixels(saved, guidance=4.0), pixels(loaded, guidance=4.0))
