"""Sizes inferred from tensors, for folders saved by mflux, which have no config files."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import pytest
from mlx import nn

from mflux_api.checkpoints import inferred_config
from mflux_api.checkpoints.components import Component, read_any_header
from mflux_api.engine.flux2 import quantization
from mflux_api.engine.flux2.networks import Qwen3Encoder, build_transformer, build_vae
from mflux_api.engine.flux2.tensors import list_parameters
from mflux_api.errors import ModelUnsupported

TRANSFORMER: dict[str, Any] = {
    "in_channels": 128,
    "num_layers": 1,
    "num_single_layers": 2,
    "attention_head_dim": 128,
    "num_attention_heads": 2,
    "joint_attention_dim": 192,
    "timestep_guidance_channels": 256,
    "mlp_ratio": 3.0,
    "axes_dims_rope": (32, 32, 32, 32),
    "guidance_embeds": False,
}
TEXT_ENCODER: dict[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 64,
    "num_hidden_layers": 36,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "intermediate_size": 128,
    "head_dim": 32,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": True,
}
VAE: dict[str, Any] = {
    "latent_channels": 32,
    "block_out_channels": [32, 32, 64, 64],
    "decoder_block_out_channels": [32, 64, 64, 96],
    "norm_num_groups": 32,
    "layers_per_block": 2,
    "mid_block_add_attention": True,
}


def save_module(name: str, module: nn.Module, folder: Path, bits: int | None) -> Component:
    """Save a module as mflux does."""
    if bits is not None:
        quantization.quantize(module, bits)
    metadata = {"quantization_level": str(bits), "mflux_version": "0.24.0"}
    mx.save_safetensors(str(folder / "0.safetensors"), list_parameters(module), metadata)
    component = Component(name=name, folder=folder, file=None, indexed=False, read_header=read_any_header)
    assert component.is_saved_by_mflux
    assert component.stored_bits == bits
    return component


@pytest.mark.parametrize("bits", [None, 3, 4, 6, 8])
def test_a_transformer_is_known_by_its_tensors(tmp_path: Path, bits: int | None) -> None:
    assert save_module("transformer", build_transformer(TRANSFORMER), tmp_path, bits).config == TRANSFORMER


@pytest.mark.parametrize("bits", [None, 4])
def test_a_text_encoder_is_known_by_its_tensors(tmp_path: Path, bits: int | None) -> None:
    module = Qwen3Encoder(TEXT_ENCODER, (1, 2))
    assert save_module("text_encoder", module, tmp_path, bits).config == TEXT_ENCODER


def test_a_vae_is_known_by_its_tensors(tmp_path: Path) -> None:
    assert save_module("vae", build_vae(VAE), tmp_path, None).config == VAE


def test_tensors_of_another_model_are_refused() -> None:
    with pytest.raises(ModelUnsupported, match=r"Not a FLUX\.2 klein that mflux saved: no tensor x_embedder\.weight\."):
        inferred_config.infer_transformer_config({}, None)
