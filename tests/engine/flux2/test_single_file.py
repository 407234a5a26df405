"""A transformer with the names of `flux2-dev.safetensors` paints the same as with diffusers' names."""

import re
import shutil
from pathlib import Path

import mlx.core as mx
import numpy as np
import pytest
from numpy.typing import NDArray

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.safetensors import Tensor
from mflux_api.checkpoints.tensor_names import (
    INNER,
    OUTER,
    is_single_file,
    map_single_file_name,
    map_transformer_name,
    split_fused_name,
)
from mflux_api.engine.model import Model, load_model
from tests.support.estimating import estimate_small
from tests.support.marks import slow_but
from tests.support.paths import CHECKPOINTS

DEV = CHECKPOINTS / "dev"
PARTS = {"attn.to_q": "img_attn.qkv", "attn.add_q_proj": "txt_attn.qkv"}
SINGLE = {INNER[name]: name for name in ("linear1", "linear2", "norm.query_norm", "norm.key_norm")}
DOUBLE = {INNER[name]: name for name in INNER if name.startswith(("img", "txt"))}
OUTER_BACK = {OUTER[name]: name for name in OUTER if name.startswith(("img", "txt", "time_in", "guidance_in", "final"))}


def in_their_names(tensors: dict[str, mx.array]) -> dict[str, mx.array]:
    """Convert diffusers' weights: fuse the attention projections and swap the halves of the last modulation."""
    found = {}
    for old, tensor in tensors.items():
        layer = (map_transformer_name(old) or old).removesuffix(".weight")
        if layer.endswith(("_k", "_v", "add_k_proj", "add_v_proj")) and "norm" not in layer:
            continue
        group = next((each for each in PARTS if layer.endswith(each)), None)
        suffix = "scale" if re.search(r"\.norm_(added_)?[qk]$", layer) else "weight"
        whole = mx.concatenate([tensors[old.replace("_q", f"_{part}")] for part in "qkv"]) if group else tensor
        swapped = mx.roll(whole, len(whole) // 2, 0) if layer == "norm_out.linear" else whole
        found[f"{their_layer(layer, group)}.{suffix}"] = swapped
    return found


def their_layer(layer: str, group: str | None) -> str:
    if "stream_modulation" in layer:
        return layer.replace(".linear", ".lin")
    if "blocks" not in layer:
        return OUTER_BACK[layer]
    blocks, number, inner = layer.split(".", 2)
    if blocks == "single_transformer_blocks":
        return f"single_blocks.{number}.{SINGLE[inner]}"
    return f"double_blocks.{number}.{PARTS[group] if group else DOUBLE[inner]}"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    copy = Path(shutil.copytree(DEV, tmp_path / "dev"))
    (path,) = (copy / "transformer").glob("*.safetensors")
    tensors = mx.load(str(path))
    assert isinstance(tensors, dict)
    mx.save_safetensors(str(copy / "transformer" / "flux2-dev.safetensors"), in_their_names(tensors))
    path.unlink()
    return copy


def pixels(model: Model) -> NDArray[np.float32]:
    return model.generate("a red circle", width=64, height=64, steps=2, seeds=(1,), guidance=4.0)[0].array


@pytest.mark.parametrize("described", slow_but([True, False], False))
@pytest.mark.parametrize("bits", slow_but([None, 4], None))
def test_it_paints_the_same(folder: Path, described: bool, bits: int | None) -> None:
    expected = pixels(load_model(DEV, quantize=bits))
    if not described:
        (folder / "model_index.json").unlink()
        (folder / "transformer" / "config.json").unlink()
        assert Checkpoint.read(folder).guidance_embeds
    np.testing.assert_array_equal(pixels(load_model(folder, quantize=bits)), expected)


@pytest.mark.parametrize("bits", [None, 4])
def test_it_is_estimated_as_the_other(folder: Path, bits: int | None) -> None:
    sizes = [estimate_small(each, bits) for each in (folder, DEV)]
    assert sizes[0] == sizes[1]


@pytest.mark.slow
def test_saving_it_writes_the_usual_names(folder: Path, tmp_path: Path) -> None:
    model = load_model(folder)
    model.save(tmp_path / "saved")
    np.testing.assert_array_equal(pixels(load_model(tmp_path / "saved")), pixels(model))


def test_names_of_another_layout_are_left_alone() -> None:
    assert not is_single_file({"transformer_blocks.0.attn.to_q.weight": Tensor((64, 64), "BF16", 8192)})
    assert map_single_file_name("double_blocks.0.img_attn.unknown.weight") is None
    assert split_fused_name("transformer_blocks.0.attn.to_qkv.weight") == [
        f"transformer_blocks.0.attn.to_{part}.weight" for part in "qkv"
    ]
