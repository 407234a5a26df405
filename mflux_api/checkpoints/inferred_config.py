"""Infer configurations from tensor shapes, for folders with weights but without config files (mflux-save).

Values that no tensor shows (rotary base, group-norm groups, epsilons) are those of the published FLUX.2 models.
"""

import math
import re
from collections.abc import Mapping

from mflux_api.checkpoints.safetensors import Config, Shard, Tensor
from mflux_api.checkpoints.tensor_names import DECODERS, is_single_file, split_fused_tensors
from mflux_api.errors import ModelUnsupported

Tensors = Mapping[str, Tensor]

PUBLISHED_GROUPS = 32
UNTIED_HIDDEN_SIZE = 4096
PUBLISHED_MISTRAL_HEAD = 128
PUBLISHED_HEAD_ROPE = {128: (32, 32, 32, 32)}


def collect_tensors(shards: list[Shard]) -> dict[str, Tensor]:
    """Return all tensors of a component. Those of a single file by Black Forest Labs get mflux's names."""
    tensors = {name: tensor for shard in shards for name, tensor in shard.tensors.items()}
    return split_fused_tensors(tensors) if is_single_file(tensors) else tensors


def infer_transformer_config(tensors: Tensors, bits: int | None) -> Config:
    inner = _rows(tensors, "x_embedder")
    head = _vector(tensors, "transformer_blocks.0.attn.norm_q")
    return {
        "in_channels": _columns(tensors, "x_embedder", bits),
        "num_layers": _count(tensors, "transformer_blocks"),
        "num_single_layers": _count(tensors, "single_transformer_blocks"),
        "attention_head_dim": head,
        "num_attention_heads": inner // head,
        "joint_attention_dim": _columns(tensors, "context_embedder", bits),
        "timestep_guidance_channels": _columns(tensors, "time_guidance_embed.linear_1", bits),
        "mlp_ratio": _rows(tensors, "transformer_blocks.0.ff.linear_in") / 2 / inner,
        "axes_dims_rope": PUBLISHED_HEAD_ROPE.get(head, (head // 4,) * 4),
        "guidance_embeds": has_guidance_embeds(tensors),
    }


def has_guidance_embeds(tensors: Tensors) -> bool:
    """Return whether a transformer has a guidance embedding, by mflux's or diffusers' names."""
    return any(name.startswith("time_guidance_embed.guidance") for name in tensors)


def infer_text_encoder_config(tensors: Tensors, bits: int | None) -> Config:
    tensors = {DECODERS.sub("", name): tensor for name, tensor in tensors.items()}
    if "layers.0.self_attn.q_norm.weight" not in tensors:
        return _infer_mistral_config(tensors)
    head = _vector(tensors, "layers.0.self_attn.q_norm")
    return {
        "vocab_size": _rows(tensors, "embed_tokens"),
        "hidden_size": _vector(tensors, "layers.0.input_layernorm"),
        "num_hidden_layers": max(_count(tensors, "layers"), 36),
        "num_attention_heads": _rows(tensors, "layers.0.self_attn.q_proj") // head,
        "num_key_value_heads": _rows(tensors, "layers.0.self_attn.k_proj") // head,
        "intermediate_size": _rows(tensors, "layers.0.mlp.gate_proj"),
        "head_dim": head,
        "rope_theta": 1_000_000.0,
        # Tied in Qwen3 up to 4B.
        "tie_word_embeddings": _vector(tensors, "layers.0.input_layernorm") < UNTIED_HIDDEN_SIZE,
    }


def _infer_mistral_config(tensors: Tensors) -> Config:
    head = PUBLISHED_MISTRAL_HEAD
    return {
        "model_type": "mistral",
        "vocab_size": _rows(tensors, "embed_tokens"),
        "hidden_size": _vector(tensors, "layers.0.input_layernorm"),
        "num_hidden_layers": max(_count(tensors, "layers"), 40),
        "num_attention_heads": _rows(tensors, "layers.0.self_attn.q_proj") // head,
        "num_key_value_heads": _rows(tensors, "layers.0.self_attn.k_proj") // head,
        "intermediate_size": _rows(tensors, "layers.0.mlp.gate_proj"),
        "head_dim": head,
        "rms_norm_eps": 1e-5,
        "rope_theta": 1e9,
        "sliding_window": None,
    }


def infer_vae_config(tensors: Tensors, bits: int | None) -> Config:
    down, up = _widths(tensors, "encoder.down_blocks"), _widths(tensors, "decoder.up_blocks")[::-1]
    return {
        "latent_channels": _rows(tensors, "post_quant_conv"),
        "block_out_channels": down,
        "decoder_block_out_channels": up,
        "norm_num_groups": math.gcd(PUBLISHED_GROUPS, *down, *up),
        "layers_per_block": _count(tensors, "encoder.down_blocks.0.resnets"),
        "mid_block_add_attention": "encoder.mid_block.attentions.0.to_q.weight" in tensors,
    }


def _widths(tensors: Tensors, blocks: str) -> list[int]:
    return [_rows(tensors, f"{blocks}.{i}.resnets.0.conv1") for i in range(_count(tensors, blocks))]


def _tensor(tensors: Tensors, name: str) -> Tensor:
    if name not in tensors:
        raise ModelUnsupported(f"Not a FLUX.2 klein that mflux saved: no tensor {name}.", tensor=name)
    return tensors[name]


def _rows(tensors: Tensors, layer: str) -> int:
    return _tensor(tensors, f"{layer}.weight").shape[0]


def _vector(tensors: Tensors, layer: str) -> int:
    return _tensor(tensors, f"{layer}.weight").shape[0]


def _columns(tensors: Tensors, layer: str, bits: int | None) -> int:
    # A quantized row is packed into 32-bit words.
    width = _tensor(tensors, f"{layer}.weight").shape[-1]
    return width * 32 // bits if bits and f"{layer}.scales" in tensors else width


def _count(tensors: Tensors, prefix: str) -> int:
    found = (re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in tensors)
    return max((int(match[1]) + 1 for match in found if match), default=0)
