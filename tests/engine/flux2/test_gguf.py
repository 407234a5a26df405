"""A GGUF file paints the same as the values it represents, at every place in a model's folder."""

import json
import shutil
import struct
from collections.abc import Callable
from pathlib import Path

import gguf
import mlx.core as mx
import numpy as np
import pytest

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.gguf import read_gguf
from mflux_api.engine.flux2.tensors import TargetFormat, list_parameters, read_tensors
from mflux_api.engine.model import Model, load_model
from mflux_api.errors import ModelCorrupt, ModelIncomplete, ModelUnsupported
from tests.support.estimating import estimate_small
from tests.support.marks import slow_but
from tests.support.stored_files import (
    Arrays,
    Kind,
    copy_klein,
    in_their_names,
    load_weights,
    pixels,
    replace_weights,
    write_gguf,
)

KINDS = [Kind.F32, Kind.F16, Kind.BF16, Kind.Q8_0, Kind.Q4_0, Kind.Q4_1, Kind.Q5_0, Kind.Q5_1]
PACKED = {Kind.Q8_0: 8, Kind.Q4_0: 4, Kind.Q4_1: 4}
FLOATS = TargetFormat(mx.float32, None)
LLAMA = {
    "embed_tokens": "token_embd",
    "norm": "output_norm",
    "lm_head": "output",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
    "input_layernorm": "attn_norm",
    "post_attention_layernorm": "ffn_norm",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return copy_klein(tmp_path / "klein")


def transformer(folder: Path, kind: Kind, place: str = "transformer.gguf") -> Path:
    """Make a second folder whose transformer is a GGUF file in Black Forest Labs' names.

    The first folder gets the values that the file represents.
    """
    other = copy_klein(folder.parent / "gguf")
    shutil.rmtree(other / "transformer")
    values = write_gguf(other / place, in_their_names(load_weights(folder / "transformer")), lambda _: kind)
    replace_weights(folder / "transformer", values)
    return other


def in_llamas_names(tensors: Arrays) -> Arrays:
    found = {}
    for name, tensor in tensors.items():
        layer = name.removeprefix("model.").removesuffix(".weight")
        block, inner = "", layer
        if layer.startswith("layers."):
            _, number, inner = layer.split(".", 2)
            block = f"blk.{number}."
        found[f"{block}{LLAMA[inner]}.weight"] = tensor
    return found


def in_our_names(tensors: Arrays, before: Arrays) -> Arrays:
    return dict(zip(before, tensors.values(), strict=True))


def text_encoder(folder: Path, place: str, kind: Kind, architecture: str = "qwen3") -> Path:
    """Like `transformer`, for the text encoder; its metadata describes the model."""
    other = copy_klein(folder.parent / "gguf")
    config = json.loads((folder / "text_encoder" / "config.json").read_text())
    shutil.rmtree(other / "text_encoder")
    before = load_weights(folder / "text_encoder")
    said = {
        "embedding_length": config["hidden_size"],
        "block_count": config["num_hidden_layers"],
        "attention.head_count": config["num_attention_heads"],
        "attention.head_count_kv": config["num_key_value_heads"],
        "attention.key_length": config["head_dim"],
        "feed_forward_length": config["intermediate_size"],
        "attention.layer_norm_rms_epsilon": config["rms_norm_eps"],
        "rope.freq_base": float(config["rope_parameters"]["rope_theta"]),
    }
    told = {f"{architecture}.{name}": value for name, value in said.items()}
    values = write_gguf(other / place, in_llamas_names(before), lambda _: kind, architecture, **told)
    replace_weights(folder / "text_encoder", in_our_names(values, before))
    return other


def assert_same(folder: Path, other: Path, bits: int | None = None, *, text_encoder_too: bool = False) -> Model:
    """Assert that two models paint the same. Unless it is what they differ in, the prompt is encoded once."""
    one, two = (load_model(each, quantize=bits) for each in (folder, other))
    if not text_encoder_too:
        two.pipeline.prompt_encoder.cache = one.pipeline.prompt_encoder.cache
    np.testing.assert_array_equal(pixels(one), pixels(two))
    return two


@pytest.mark.parametrize("kind", slow_but(KINDS, Kind.F16, Kind.Q8_0, Kind.Q5_1), ids=lambda kind: kind.name)
def test_it_paints_what_its_numbers_paint(folder: Path, kind: Kind) -> None:
    other = transformer(folder, kind)
    model = assert_same(folder, other)
    assert model.bits == PACKED.get(kind)


@pytest.mark.parametrize("kind", slow_but([Kind.BF16, Kind.Q4_0], Kind.Q4_0), ids=lambda kind: kind.name)
def test_it_is_quantized_to_the_bits_that_are_asked_for(folder: Path, kind: Kind) -> None:
    model = assert_same(folder, transformer(folder, kind), bits=8)
    assert model.bits == 8


@pytest.mark.parametrize(("kind", "bits"), [(Kind.Q8_0, 8), (Kind.Q4_0, 4)])
def test_blocks_that_are_used_as_they_are_take_as_few_bytes_as_quantizing(folder: Path, kind: Kind, bits: int) -> None:
    other = transformer(folder, kind)
    packed = estimate_small(other).transformer
    whole = estimate_small(folder).transformer
    assert whole * bits / 32 < packed < whole * (bits + 3) / 32
    held = sum(array.nbytes for array in list_parameters(load_model(other).pipeline.transformer).values())
    assert held == pytest.approx(packed, rel=0.02)


@pytest.mark.parametrize("bits", [None, 4])
def test_blocks_that_are_unpacked_are_estimated_as_what_they_become(folder: Path, bits: int | None) -> None:
    other = transformer(folder, Kind.Q5_0)
    sizes = [estimate_small(each, bits) for each in (folder, other)]
    assert sizes[0] == sizes[1]


@pytest.mark.parametrize("place", slow_but(["transformer/x-Q8_0.gguf", "x-Q8_0.gguf"], "x-Q8_0.gguf"))
@pytest.mark.parametrize("indexed", slow_but([True, False], False))
def test_it_may_lie_in_the_folder_or_beside_the_others(folder: Path, place: str, indexed: bool) -> None:
    other = transformer(folder, Kind.Q8_0, place)
    if not indexed:
        (other / "model_index.json").unlink()
        shutil.rmtree(other / "scheduler")
        assert Checkpoint.read(other).distilled
    assert_same(folder, other)


@pytest.mark.slow
def test_a_file_that_is_named_is_the_one_that_paints(folder: Path) -> None:
    other = transformer(folder, Kind.Q8_0, "one.gguf")
    write_gguf(other / "two.gguf", {"double_blocks.0.img_attn.qkv.weight": mx.zeros((192, 64))}, lambda _: Kind.F16)
    with pytest.raises(ModelUnsupported, match=r"several files for the transformer: one\.gguf, two\.gguf"):
        load_model(other)
    model = assert_same(folder, other / "one.gguf")
    assert model.spec.name == "one"
    assert estimate_small(other / "one.gguf").transformer > 0


@pytest.mark.slow
def test_a_named_file_wins_over_the_transformer_beside_it(folder: Path) -> None:
    other = transformer(folder, Kind.Q4_0)
    named = copy_klein(folder.parent / "whole") / "transformer" / "x.gguf"
    shutil.copy(other / "transformer.gguf", named)
    assert_same(folder, named)


def test_a_file_alone_says_what_it_lacks_and_where_that_is(folder: Path) -> None:
    other = transformer(folder, Kind.Q8_0, "x.gguf")
    for part in ("text_encoder", "vae"):
        shutil.rmtree(other / part)
    with pytest.raises(ModelIncomplete, match=r"has no text_encoder and no vae of FLUX\.2") as caught:
        load_model(other / "x.gguf")
    assert caught.value.details["missing"] == ["text_encoder", "vae"]
    assert "hf download" in caught.value.message


@pytest.mark.slow
def test_saving_it_writes_a_folder_that_paints_the_same(folder: Path, tmp_path: Path) -> None:
    model = load_model(transformer(folder, Kind.Q4_1))
    model.save(tmp_path / "saved")
    again = load_model(tmp_path / "saved")
    assert again.bits == 4
    np.testing.assert_array_equal(pixels(again), pixels(model))


@pytest.mark.parametrize("kind", slow_but([Kind.F16, Kind.Q8_0, Kind.Q5_1], Kind.Q8_0), ids=lambda kind: kind.name)
@pytest.mark.parametrize(
    "place", slow_but(["text_encoder.gguf", "Qwen3.gguf", "text_encoder/Qwen3.gguf"], "Qwen3.gguf")
)
def test_a_text_encoder_in_llamas_names_reads_as_the_other(folder: Path, place: str, kind: Kind) -> None:
    other = text_encoder(folder, place, kind)
    assert_same(folder, other, text_encoder_too=True)
    sizes = [estimate_small(each, 4).text_encoder for each in (folder, other)]
    assert sizes[0] == sizes[1]


def test_a_text_encoder_of_another_architecture_is_refused(folder: Path) -> None:
    with pytest.raises(ModelUnsupported, match="architecture llama; as GGUF only qwen3 can be read"):
        load_model(text_encoder(folder, "text_encoder.gguf", Kind.F16, "llama"))


@pytest.mark.parametrize("kind", [Kind.Q2_K, Kind.Q3_K, Kind.Q4_K, Kind.Q5_K, Kind.Q6_K, Kind.IQ4_XS], ids=str)
def test_wider_blocks_are_unpacked(tmp_path: Path, kind: Kind) -> None:
    _, size = gguf.GGML_QUANT_SIZES[kind]
    # Bytes below 60 make finite scales.
    stored = np.random.default_rng(0).integers(0, 60, (6, 2 * size), dtype=np.uint8)
    writer = gguf.GGUFWriter(tmp_path / "x.gguf", "flux")
    writer.add_tensor("a.weight", stored, raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    shard = read_gguf(tmp_path / "x.gguf")
    assert shard.tensors["a.weight"].shape == (6, 512)
    ((_, found),) = read_tensors([shard], FLOATS, lambda _: True)
    np.testing.assert_array_equal(np.array(found), gguf.quants.dequantize(stored, kind))


def test_headers_are_read_as_the_package_that_writes_them_reads_them(folder: Path) -> None:
    other = transformer(folder, Kind.Q8_0)
    (shard,) = Checkpoint.read(other).transformer.shards
    reader = gguf.GGUFReader(other / "transformer.gguf")
    theirs = {
        each.name: (tuple(reversed(each.shape.tolist())), each.n_bytes, each.data_offset) for each in reader.tensors
    }
    assert {name: (each.shape, each.nbytes, each.offset) for name, each in shard.tensors.items()} == theirs
    assert shard.metadata["general.architecture"] == "flux"


DAMAGES: list[tuple[Callable[[bytes], bytes], str]] = [
    (lambda data: data[:-40], "bytes long, its header says"),
    (lambda data: data[:100], "is not a GGUF file"),
    (lambda data: b"", "is not a GGUF file"),
    (lambda data: b"GGML" + data[4:], "is not a GGUF file: it does not begin as one"),
    (lambda data: data[:8] + struct.pack("<Q", 2**60) + data[16:], "is not a GGUF file"),
    (lambda data: data[:24] + struct.pack("<Q", 2**60) + data[32:], "is not a GGUF file"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES, ids=[message for _, message in DAMAGES])
def test_a_damaged_file_is_refused_in_words(folder: Path, damage: Callable[[bytes], bytes], message: str) -> None:
    path = transformer(folder, Kind.Q8_0) / "transformer.gguf"
    path.write_bytes(damage(path.read_bytes()))
    with pytest.raises(ModelCorrupt, match=message):
        load_model(path)


def test_another_version_is_refused(folder: Path) -> None:
    path = transformer(folder, Kind.Q8_0) / "transformer.gguf"
    data = path.read_bytes()
    path.write_bytes(data[:4] + struct.pack("<I", 1) + data[8:])
    with pytest.raises(ModelUnsupported, match="GGUF of version 1"):
        load_model(path)


def test_blocks_that_nobody_can_unpack_are_refused_by_name(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nothing(*_: object) -> None:
        raise NotImplementedError

    other = transformer(folder, Kind.Q5_0)
    monkeypatch.setattr(gguf.quants, "dequantize", nothing)
    with pytest.raises(ModelUnsupported, match="is stored as Q5_0, which cannot be read"):
        load_model(other)


@pytest.mark.slow
def test_a_stranger_beside_the_others_does_not_matter(folder: Path) -> None:
    other = transformer(folder, Kind.Q8_0)
    (other / "notes.gguf").write_bytes(b"nothing of the kind")
    assert_same(folder, other)
