"""Loading: errors for damaged folders, and the two supported layouts."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlx.core as mx
import numpy as np
import pytest
from mflux.models.common.weights.saving.model_saver import ModelSaver
from mflux.models.flux2.weights.flux2_weight_definition import Flux2KleinWeightDefinition

from mflux_api.engine.model import Model, load_model
from mflux_api.errors import (
    InvalidRequest,
    MfluxError,
    ModelCorrupt,
    ModelIncomplete,
    ModelNotFound,
    ModelUnsupported,
)
from tests.support.marks import slow_but

WEIGHTS = "transformer/diffusion_pytorch_model.safetensors"
PAINT: dict[str, Any] = {"width": 64, "height": 64, "steps": 2, "seeds": (3,)}


def edit_json(path: Path, **changes: object) -> None:
    config = json.loads(path.read_text())
    config.update(changes)
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def truncate(folder: Path) -> None:
    path = folder / WEIGHTS
    path.write_bytes(path.read_bytes()[:-1000])


def overwrite_header(folder: Path) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", 10) + b"not json!!")


def rename_index_entry(folder: Path) -> None:
    index = {"weight_map": {"x_embedder.weight": "model-00002-of-00002.safetensors"}}
    (folder / "transformer/diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps(index))


def remove_chat_template(folder: Path) -> None:
    for path in (folder / "tokenizer").glob("chat_template*"):
        path.unlink()
    edit_json(folder / "tokenizer/tokenizer_config.json", chat_template=None)


DAMAGES: list[tuple[Callable[[Path], object], type[MfluxError], str]] = [
    (truncate, ModelCorrupt, "bytes long, its header says"),
    (overwrite_header, ModelCorrupt, "is not a safetensors file"),
    (lambda f: (f / WEIGHTS).write_bytes(b""), ModelCorrupt, "is not a safetensors file"),
    (lambda f: (f / WEIGHTS).unlink(), ModelIncomplete, "holds no .safetensors file. Download the model again."),
    (rename_index_entry, ModelIncomplete, "model-00002-of-00002.safetensors is missing. Download the model again."),
    (lambda f: (f / "vae/config.json").unlink(), ModelIncomplete, "vae/config.json is missing."),
    (lambda f: (f / "vae/config.json").write_text("{"), ModelCorrupt, "vae/config.json is not readable JSON"),
    (lambda f: (f / "vae/config.json").write_text("[]"), ModelCorrupt, "vae/config.json must hold a JSON object."),
    (lambda f: shutil.rmtree(f / "tokenizer"), ModelIncomplete, "tokenizer is missing. Download the model again."),
    (lambda f: (f / "tokenizer/tokenizer.json").write_text("{}"), ModelCorrupt, "The tokenizer in"),
    (lambda f: shutil.rmtree(f / "text_encoder"), ModelIncomplete, "text_encoder/config.json is missing."),
    (
        lambda f: edit_json(f / "model_index.json", _class_name="FluxPipeline"),
        ModelUnsupported,
        "holds a FluxPipeline; supported are Flux2KleinPipeline",
    ),
    (
        lambda f: edit_json(f / "model_index.json", text_encoder_out_layers=[99]),
        ModelUnsupported,
        "Hidden states [99] are asked of a text encoder with",
    ),
    (
        lambda f: edit_json(f / "transformer/config.json", num_layers=9),
        ModelUnsupported,
        "its config.json and weights disagree.",
    ),
    (
        lambda f: edit_json(f / "transformer/config.json", in_channels=64),
        ModelUnsupported,
        "x_embedder.weight of the transformer is",
    ),
    (
        lambda f: edit_json(f / "text_encoder/config.json", rope_parameters={"rope_type": "yarn", "rope_theta": 1e4}),
        ModelUnsupported,
        "Rotary embeddings of the type yarn are not supported.",
    ),
    (
        lambda f: edit_json(f / "vae/config.json", block_out_channels=[16, 32, 64]),
        ModelUnsupported,
        "The VAE must have act_fn silu, patch_size 2x2 and 4 levels of block_out_channels.",
    ),
    (
        remove_chat_template,
        ModelIncomplete,
        "tokenizer has no chat template. Download the model again.",
    ),
    (
        lambda f: edit_json(f / "text_encoder/config.json", vocab_size=None),
        ModelUnsupported,
        "The text_encoder cannot be built from its config.json: KeyError('vocab_size').",
    ),
    (
        lambda f: edit_json(f / "transformer/config.json", num_layers="many"),
        ModelUnsupported,
        "The transformer cannot be built from its config.json: TypeError",
    ),
    (
        lambda f: (f / "vae/x.safetensors.index.json").write_text('{"weight_map": [1]}'),
        ModelCorrupt,
        "x.safetensors.index.json is damaged: an object was expected.",
    ),
    (
        lambda f: edit_json(f / "scheduler/scheduler_config.json", use_karras_sigmas=True),
        ModelUnsupported,
        "The scheduler option use_karras_sigmas is not supported.",
    ),
]


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGES)
def test_a_damaged_folder_is_refused_in_words(
    checkpoint: Path, damage: Callable[[Path], object], error: type[MfluxError], message: str
) -> None:
    damage(checkpoint)
    with pytest.raises(error) as caught:
        load_model(checkpoint)
    assert type(caught.value) is error
    assert message in caught.value.message


def test_a_foreign_folder_is_refused_with_what_it_holds(tmp_path: Path) -> None:
    (tmp_path / "weights.gguf").write_bytes(b"")
    with pytest.raises(ModelUnsupported, match=r"is not a FLUX.2 checkpoint: .* \(found: weights.gguf\)"):
        load_model(tmp_path)


def test_a_missing_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound):
        load_model(tmp_path / "nothing")


@pytest.mark.parametrize("bits", [5, 0, True, 16])
def test_a_width_that_is_not_offered_is_refused(bits: int) -> None:
    with pytest.raises(InvalidRequest, match=r"quantize must be one of 3, 4, 6, 8 \(bits\), not"):
        load_model("flux2-tiny", quantize=bits)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(
        InvalidRequest, match=r"precision must be one of auto, float32, bfloat16, float16, not 'int8'\."
    ):
        load_model("flux2-tiny", precision="int8")


@pytest.mark.parametrize("bits", slow_but([None, 8, 4], 4))
def test_a_saved_model_paints_the_same_bits_without_quantizing_again(tmp_path: Path, bits: int | None) -> None:
    model = load_model("flux2-tiny", quantize=bits)
    model.save(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.pipeline.bits == bits
    assert_same_picture(model, again)


@pytest.mark.parametrize("bits", slow_but([3, 4, 6, 8], 4))
def test_a_folder_that_mflux_itself_saved_paints_the_same(checkpoint: Path, bits: int) -> None:
    quantized = load_model(checkpoint, quantize=bits)
    pipeline = quantized.pipeline
    parts = SimpleNamespace(
        transformer=pipeline.transformer,
        text_encoder=pipeline.prompt_encoder.get_encoder(),
        vae=pipeline.autoencoder.vae,
        tokenizers={},
    )
    for path in checkpoint.glob("*/*.safetensors"):
        path.unlink()
    ModelSaver.save_model(parts, bits, str(checkpoint), Flux2KleinWeightDefinition)
    again = load_model(checkpoint)
    assert again.pipeline.bits == bits
    assert_same_picture(quantized, again)


def test_shards_are_read_together(tiny: Model, checkpoint: Path) -> None:
    path = checkpoint / WEIGHTS
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    names = sorted(tensors)
    shards = {"model-1.safetensors": names[::2], "model-2.safetensors": names[1::2]}
    for shard, held in shards.items():
        mx.save_safetensors(str(path.parent / shard), {name: tensors[name] for name in held})
    places = {name: shard for shard, held in shards.items() for name in held}
    (path.parent / "diffusion_pytorch_model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    path.unlink()
    assert_same_picture(tiny, load_model(checkpoint))


def test_saving_onto_something_is_refused(tiny: Model, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("mine")
    with pytest.raises(InvalidRequest, match=r"is not empty; choose another folder to save to\."):
        tiny.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["precious"]


def assert_same_picture(first: Model, second: Model) -> None:
    one, other = (model.generate("a red circle", **PAINT)[0].array for model in (first, second))
    np.testing.assert_array_equal(one, other)
