"""SeedVR2 folders: detection, errors, loading and memory estimates."""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest

from mflux_api.checkpoints.memory_estimate import Machine, MemoryEstimate
from mflux_api.checkpoints.seedvr2 import TRANSFORMERS, VAE_FILE, estimate_memory, has_files, read_checkpoint
from mflux_api.engine.cache import ModelCache
from mflux_api.engine.model import load_model, plan_load
from mflux_api.engine.precision import choose_precision
from mflux_api.engine.seedvr2.upscaler import Upscaler
from mflux_api.errors import MfluxError, ModelCorrupt, ModelIncomplete, ModelUnsupported
from mflux_api.models.registry import resolve_client_model, resolve_model
from tests.support.marks import slow_but
from tests.support.seedvr2 import FLOAT32, KINDS, draw_scene, upscale, write_upscaler


@pytest.fixture(scope="module", params=slow_but(TRANSFORMERS, TRANSFORMERS[0]), ids=["like-3b", "like-7b"])
def name(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, name: str) -> Path:
    return write_upscaler(tmp_path_factory.mktemp("upscaler"), name)


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A SeedVR2 folder that the test may damage."""
    return write_upscaler(tmp_path / "small")


def edited(path: Path, change: Callable[[dict[str, mx.array]], object]) -> None:
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    mx.eval(tensors)
    change(tensors)
    mx.save_safetensors(str(path), tensors)


def wanted_bytes(folder: Path, bits: int | None, *, width: int) -> MemoryEstimate:
    """Return the memory estimate for a picture of 256 x 256."""
    machine = Machine(device="cpu", bytes_per_value=width)
    layout = read_checkpoint(folder)
    return estimate_memory(layout, bits, machine, size=(256, 256), references=(), pictures=1, upsample=False)


# The folder


def test_a_folder_is_known_by_its_file_names(small: Path, checkpoint: Path) -> None:
    assert has_files(small)
    assert not has_files(checkpoint)
    assert not has_files(small / "nothing")


DAMAGES: list[tuple[Callable[[Path], object], type[MfluxError], str]] = [
    (lambda f: (f / VAE_FILE).unlink(), ModelIncomplete, "ema_vae_fp16.safetensors is missing."),
    (lambda f: (f / TRANSFORMERS[0]).unlink(), ModelIncomplete, "seedvr2_ema_3b_fp16.safetensors is missing."),
    (
        lambda f: (f / TRANSFORMERS[0]).write_bytes((f / TRANSFORMERS[0]).read_bytes()[:-10]),
        ModelCorrupt,
        "bytes long, its header says",
    ),
    (lambda f: (f / VAE_FILE).write_bytes(b""), ModelCorrupt, "is not a safetensors file"),
    *(
        (lambda f, name=name: edited(f / TRANSFORMERS[0], lambda t: t.pop(name)), ModelUnsupported, name)
        for name in (
            "vid_in.proj.weight",
            "vid_out_ada.out_scale",
            "blocks.0.ada.txt.mlp_gate",
            "blocks.0.attn.proj_qkv.txt.weight",
            "blocks.0.attn.rope.rope.freqs",
            "blocks.2.attn.proj_out.all.bias",
            "blocks.2.mlp.all.proj_in_gate.weight",
        )
    ),
    (
        lambda f: edited(f / VAE_FILE, lambda t: t.pop("decoder.up_blocks.3.resnets.2.conv2.weight")),
        ModelUnsupported,
        "lacks 1 tensors, decoder.up_blocks.3.resnets.2.conv2.weight",
    ),
    (
        lambda f: edited(f / VAE_FILE, lambda t: t.update({"encoder.conv_out.bias": mx.zeros(3)})),
        ModelUnsupported,
        "encoder.conv_out.bias of",
    ),
    (
        lambda f: edited(f / TRANSFORMERS[0], lambda t: t.update({"txt_in.weight": mx.zeros((64, 100))})),
        ModelUnsupported,
        "do not belong together",
    ),
]


@pytest.mark.parametrize(("damage", "error", "words"), DAMAGES)
def test_a_damaged_folder_is_refused_with_what_is_missing(
    small: Path, damage: Callable[[Path], object], error: type[MfluxError], words: str
) -> None:
    damage(small)
    with pytest.raises(error) as caught:
        load_model(small)
    assert words in caught.value.message


def test_the_smaller_of_two_transformers_is_loaded(tmp_path: Path) -> None:
    write_upscaler(tmp_path, TRANSFORMERS[1])
    write_upscaler(tmp_path, TRANSFORMERS[0])
    assert (
        len(Upscaler(read_checkpoint(tmp_path), None, FLOAT32).transformer.blocks)
        == KINDS[TRANSFORMERS[0]]["num_layers"]
    )


def test_a_network_of_another_size_is_loaded_by_its_shapes(tmp_path: Path) -> None:
    sizes: dict[str, Any] = {"vid_dim": 96, "heads": 3, "num_layers": 4, "mm_layers": 2, "expand_ratio": 5}
    upscaler = Upscaler(read_checkpoint(write_upscaler(tmp_path, widths=(32, 32, 32, 32), **sizes)), None, FLOAT32)
    assert upscale(upscaler).image.size == (64, 64)


# The library, the registry, the memory


def test_the_library_loads_it_and_paints_with_it(small: Path) -> None:
    model = load_model(small, precision="float32")
    assert isinstance(model.painter, Upscaler)
    made = model.generate("", image=draw_scene(32, 32), width=64, height=80, seeds=(3,))[0]
    assert made.image.size == (64, 80)
    with pytest.raises(ModelUnsupported, match="small enlarges pictures and does nothing else"):
        model.save(small / "copy")


def test_the_registry_finds_it_where_its_files_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_CACHE", str(tmp_path / "cache"))
    folder = tmp_path / "seedvr2"
    folder.mkdir()
    hint = "hf download numz/SeedVR2_comfyUI seedvr2_ema_3b_fp16.safetensors ema_vae_fp16.safetensors --local-dir"
    with pytest.raises(MfluxError, match=hint):
        resolve_model("seedvr2", tmp_path)
    write_upscaler(folder)
    for find in (resolve_model, resolve_client_model):
        located = find("seedvr2", tmp_path)
        assert (located.folder, located.spec.family) == (folder, "seedvr2")


def test_a_folder_of_ones_own_is_found(tmp_path: Path) -> None:
    write_upscaler(tmp_path / "mine", TRANSFORMERS[1])
    assert resolve_client_model("mine", tmp_path).spec.family == "seedvr2"
    assert resolve_model(tmp_path / "mine", tmp_path).spec.family == "seedvr2"


@pytest.mark.parametrize("bits", [None, 8, 4])
def test_it_holds_as_much_memory_as_was_estimated(folder: Path, bits: int | None) -> None:
    located = resolve_model(folder, folder)
    wanted = plan_load(located, bits, "float32", low_ram=False, embedding_cache=0)
    cache = ModelCache(2**40)
    gc.collect()
    mx.clear_cache()
    before = mx.get_active_memory()
    cache.get(wanted)
    held = mx.get_active_memory() - before
    assert cache.size == wanted_bytes(folder, bits, width=4).weights
    assert held == pytest.approx(cache.size, rel=0.02)


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_a_picture_takes_no_more_memory_than_was_estimated(folder: Path, precision: str) -> None:
    upscaler = Upscaler(read_checkpoint(folder), None, choose_precision(precision))
    gc.collect()
    mx.clear_cache()
    mx.reset_peak_memory()
    before = mx.get_active_memory()
    upscale(upscaler, 256, 256)
    used = mx.get_peak_memory() - before
    width = choose_precision(precision).dtype.size
    work = wanted_bytes(folder, None, width=width).activations
    assert work / 2 < used < work
