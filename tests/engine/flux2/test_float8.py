"""A transformer in scaled 8-bit floats paints the same as one with the values they represent."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
import pytest

from mflux_api.checkpoints.float8 import normalise_float8
from mflux_api.checkpoints.safetensors import read_shard
from mflux_api.engine.model import load_model
from mflux_api.errors import ModelCorrupt, ModelUnsupported
from tests.support.estimating import estimate_small
from tests.support.marks import slow_but
from tests.support.stored_files import (
    Scaling,
    comfy_metadata,
    copy_klein,
    encode_tensor,
    in_their_names,
    load_weights,
    pixels,
    quantize_float8,
    replace_weights,
    scale_by_block,
    scale_by_row,
    scale_by_tensor,
    write_safetensors,
)

LAYER = "double_blocks.0.img_attn.qkv"
Entries = dict[str, Any]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_klein(tmp_path / "klein")


def bfl(folder: Path, scaling: Scaling = scale_by_tensor) -> Entries:
    """Return the scaled transformer entries in Black Forest Labs' names; the folder's file gets the values instead."""
    entries, values = quantize_float8(in_their_names(load_weights(folder / "transformer")), scaling)
    replace_weights(folder / "transformer", values)
    return entries


def beside(folder: Path, entries: Entries, metadata: dict[str, str] | None = None) -> Path:
    """Make a second folder whose transformer is in 8-bit floats."""
    other = copy_klein(folder.parent / "float8")
    (path,) = (other / "transformer").glob("*.safetensors")
    write_safetensors(path, entries, metadata)
    return other


def assert_same(folder: Path, other: Path, bits: int | None = None, *, text_encoder_too: bool = False) -> None:
    """Assert that two models paint the same. Unless it is what they differ in, the prompt is encoded once."""
    one, two = (load_model(each, quantize=bits) for each in (folder, other))
    if not text_encoder_too:
        two.pipeline.prompt_encoder.cache = one.pipeline.prompt_encoder.cache
    np.testing.assert_array_equal(pixels(one), pixels(two))


def renamed(entries: Entries, **words: str) -> Entries:
    found = {}
    for name, value in entries.items():
        layer, _, last = name.rpartition(".")
        found[f"{layer}.{words.get(last, last)}"] = value
    return found


@pytest.mark.parametrize("scaling", slow_but([scale_by_tensor, scale_by_row, scale_by_block], scale_by_block))
@pytest.mark.parametrize("bits", slow_but([None, 4], None))
def test_it_paints_what_its_numbers_paint(folder: Path, scaling: Scaling, bits: int | None) -> None:
    entries = bfl(folder, scaling)
    assert_same(folder, beside(folder, entries, comfy_metadata(entries, "float8_e4m3fn")), bits)


@pytest.mark.slow
def test_it_is_close_to_what_it_was_made_from(folder: Path) -> None:
    before = pixels(load_model(folder))
    other = beside(folder, bfl(folder))
    # Loose: every weight of the blocks has three bits of mantissa, and the model is random.
    assert np.abs(pixels(load_model(other)) - before).mean() < 0.05


def test_the_words_of_diffusers_are_read(folder: Path) -> None:
    entries, values = quantize_float8(load_weights(folder / "transformer"))
    replace_weights(folder / "transformer", values)
    assert_same(folder, beside(folder, entries))


def older(entries: Entries) -> Entries:
    changed = renamed(entries, weight_scale="scale_weight", input_scale="scale_input")
    return {**changed, "scaled_fp8": {"dtype": "F8_E4M3", "shape": [2], "data": b"\0\0"}}


def marked(entries: Entries) -> Entries:
    said = np.frombuffer(b'{"format": "float8_e4m3fn"}', np.uint8)
    layers = [name.removesuffix(".weight_scale") for name in entries if name.endswith(".weight_scale")]
    return {**entries, **{f"{layer}.comfy_quant": encode_tensor(mx.array(said)) for layer in layers}}


def prefixed(entries: Entries) -> Entries:
    return {f"model.diffusion_model.{name}": value for name, value in entries.items()}


def in_one_place(entries: Entries) -> Entries:
    """Give scales of one number the shape (1,)."""
    return {name: {**value, "shape": value["shape"] or [1]} for name, value in entries.items()}


@pytest.mark.parametrize("change", slow_but([older, marked, prefixed, in_one_place], older, marked))
def test_every_spelling_of_scales_and_marks_is_read(folder: Path, change: Callable[[Entries], Entries]) -> None:
    entries = bfl(folder)
    assert_same(folder, beside(folder, change(entries)))


@pytest.mark.slow
def test_numbers_without_any_scale_are_the_weights_themselves(folder: Path) -> None:
    entries = bfl(folder, lambda weight: mx.array(1.0))
    bare = {name: value for name, value in entries.items() if not name.endswith("_scale")}
    assert_same(folder, beside(folder, bare))


@pytest.mark.slow
def test_a_scale_may_be_in_another_file_than_its_weight(folder: Path) -> None:
    entries = bfl(folder)
    other = beside(folder, entries)
    (path,) = (other / "transformer").glob("*.safetensors")
    path.unlink()
    names = sorted(entries)
    places = {}
    for number, part in enumerate((names[::2], names[1::2])):
        write_safetensors(other / "transformer" / f"{number}.safetensors", {name: entries[name] for name in part})
        places.update(dict.fromkeys(part, f"{number}.safetensors"))
    (other / "transformer" / "x.safetensors.index.json").write_text(json.dumps({"weight_map": places}))
    assert_same(folder, other)


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_it_is_estimated_as_what_it_becomes(folder: Path, bits: int | None) -> None:
    other = beside(folder, bfl(folder))
    sizes = [estimate_small(each, bits) for each in (folder, other)]
    assert sizes[0] == sizes[1]


@pytest.mark.slow
def test_a_text_encoder_may_be_in_scaled_8_bit_floats_too(folder: Path) -> None:
    tensors = load_weights(folder / "text_encoder")
    blocks = {name.replace("layers.", "blocks."): tensor for name, tensor in tensors.items()}
    entries, values = quantize_float8(blocks)
    replace_weights(
        folder / "text_encoder", {name.replace("blocks.", "layers."): tensor for name, tensor in values.items()}
    )
    other = copy_klein(folder.parent / "float8")
    (path,) = (other / "text_encoder").glob("*.safetensors")
    write_safetensors(path, {name.replace("blocks.", "layers."): value for name, value in entries.items()})
    (path,) = (other / "transformer").glob("*.safetensors")
    replace_weights(other / "transformer", load_weights(folder / "transformer"))
    assert_same(folder, other, text_encoder_too=True)


@pytest.mark.slow
def test_what_was_saved_loads_without_8_bit_floats(folder: Path, tmp_path: Path) -> None:
    model = load_model(beside(folder, bfl(folder)))
    model.save(tmp_path / "saved")
    np.testing.assert_array_equal(pixels(load_model(tmp_path / "saved")), pixels(model))


def nvfp4(entries: Entries) -> None:
    del entries[f"{LAYER}.input_scale"]
    entries[f"{LAYER}.weight_scale_2"] = encode_tensor(mx.array(1.0))
    entries[f"{LAYER}.weight"] = encode_tensor(mx.zeros((192, 32), mx.uint8))


def mxfp8(entries: Entries) -> None:
    entries[f"{LAYER}.weight_scale"] = encode_tensor(mx.zeros((192, 2), mx.uint8))


def int8(entries: Entries) -> None:
    entries[f"{LAYER}.weight"] = encode_tensor(mx.zeros((192, 64), mx.int8))


def other_floats(entries: Entries) -> None:
    entries[f"{LAYER}.weight"]["dtype"] = "F8_E5M2"


def odd_scales(entries: Entries) -> None:
    entries[f"{LAYER}.weight_scale"] = encode_tensor(mx.zeros((7,)))


@pytest.mark.parametrize(
    ("damage", "kind"),
    [(nvfp4, "nvfp4"), (mxfp8, "mxfp8"), (int8, "int8"), (other_floats, "float8_e5m2"), (odd_scales, "with scales")],
)
def test_other_formats_of_few_bits_are_refused_by_name(
    folder: Path, damage: Callable[[Entries], None], kind: str
) -> None:
    entries = bfl(folder)
    damage(entries)
    other = beside(folder, entries)
    for asking in (load_model, lambda path: estimate_small(path, 4)):
        with pytest.raises(ModelUnsupported, match=f"{LAYER} is stored as .*{kind}.* Take the model in bf16") as caught:
            asking(other)
        assert caught.value.details["tensor"] == LAYER


def test_a_format_that_the_header_names_is_refused_by_name(folder: Path) -> None:
    entries = bfl(folder)
    with pytest.raises(ModelUnsupported, match="is stored as mxfp8"):
        load_model(beside(folder, entries, comfy_metadata(entries, "mxfp8")))


def test_metadata_that_cannot_be_read_are_damage(folder: Path) -> None:
    with pytest.raises(ModelCorrupt, match="damaged metadata"):
        load_model(beside(folder, bfl(folder), {"_quantization_metadata": '{"layers": ["a"]}'}))


def test_a_missing_scale_is_damage(folder: Path) -> None:
    entries = bfl(folder)
    del entries[f"{LAYER}.weight_scale"]
    with pytest.raises(ModelCorrupt, match=f"{LAYER}.weight is in 8-bit floats and its scale is missing"):
        load_model(beside(folder, entries))


def test_ordinary_files_are_left_as_they_are(folder: Path) -> None:
    (path,) = (folder / "transformer").glob("*.safetensors")
    shard = read_shard(path)
    (same,) = normalise_float8([shard])
    assert {name: (tensor.shape, tensor.dtype) for name, tensor in same.tensors.items()} == {
        name: (tensor.shape, tensor.dtype) for name, tensor in shard.tensors.items()
    }
