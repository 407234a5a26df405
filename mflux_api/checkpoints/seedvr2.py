"""SeedVR2 on disk: its two files, the networks' configs inferred from tensor shapes, and a memory estimate.

Values that no tensor shows are the published ones (mflux's ModelConfig, seedvr2-3b and seedvr2-7b): those of the 3B for
a network with gated layers, those of the 7B without. The published config.json is an empty file.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mflux_api.checkpoints.completeness import is_whole_file
from mflux_api.checkpoints.memory_estimate import Machine, MemoryEstimate
from mflux_api.checkpoints.safetensors import Config, Shard, Tensor, read_shard
from mflux_api.errors import ModelIncomplete, ModelUnsupported

# File names of its repository: the transformers, smaller one first, and the autoencoder that both use.
TRANSFORMERS = ("seedvr2_ema_3b_fp16.safetensors", "seedvr2_ema_7b_fp16.safetensors")
VAE_FILE = "ema_vae_fp16.safetensors"
# Latents in a token of the transformer: 2 x 2.
LATENTS_PER_TOKEN = 4
LIKE_3B: Mapping[str, Any] = {
    "mlp_type": "swiglu",
    "rope_freqs_for": "lang",
    "rope_on_text": True,
    "last_layer_vid_only": True,
}
LIKE_7B: Mapping[str, Any] = {
    "mlp_type": "normal",
    "rope_freqs_for": "pixel",
    "rope_on_text": False,
    "last_layer_vid_only": False,
}


@dataclass(frozen=True)
class SeedVR2Checkpoint:
    """The two files, and the matching arguments of mflux's SeedVR2Transformer and SeedVR2VAE."""

    transformer: Shard
    vae: Shard
    transformer_config: Config
    vae_config: Config


def has_files(folder: Path) -> bool:
    """Return whether a folder has any SeedVR2 files under their published names, complete or not."""
    return any((folder / name).is_file() for name in (*TRANSFORMERS, VAE_FILE))


def is_whole(folder: Path) -> bool:
    """Return whether a folder has all files that SeedVR2 needs."""
    return (folder / VAE_FILE).is_file() and any((folder / name).is_file() for name in TRANSFORMERS)


def find_missing_files(folder: Path, names: Sequence[str]) -> list[str]:
    """Return the files that are missing or not whole. `names`: files that the folder must have."""
    present = [name for name in TRANSFORMERS if (folder / name).is_file()] or [TRANSFORMERS[0]]
    needed = names or (present[0], VAE_FILE)
    return [name for name in needed if not is_whole_file(folder / name)]


def read_checkpoint(folder: Path) -> SeedVR2Checkpoint:
    """Read both headers. Of two transformers the smaller one is used.

    Raises ModelIncomplete, ModelCorrupt, and ModelUnsupported if a tensor needed to infer a size is missing.
    """
    present = [folder / name for name in TRANSFORMERS if (folder / name).is_file()]
    if not present:
        raise _missing(folder, TRANSFORMERS[0])
    if not (folder / VAE_FILE).is_file():
        raise _missing(folder, VAE_FILE)
    transformer, vae = read_shard(present[0]), read_shard(folder / VAE_FILE)
    return SeedVR2Checkpoint(transformer, vae, _infer_transformer_config(transformer), _infer_vae_config(vae))


def _missing(folder: Path, name: str) -> ModelIncomplete:
    path = folder / name
    return ModelIncomplete(f"{path} is missing. Download the model again.", path=str(path))


def _infer_transformer_config(shard: Shard) -> Config:
    width, patch = _shape(shard, "vid_in.proj.weight")
    layers = _count(shard, "blocks.{}.")
    shared = next((layer for layer in range(layers) if _is_shared(shard, layer)), layers)
    kind = "vid" if shared else "all"
    gated = f"blocks.0.mlp.{kind}.proj_in_gate.weight" in shard.tensors
    head = _shape(shard, f"blocks.0.attn.norm_q.{kind}.weight")[0]
    hidden = _shape(shard, f"blocks.0.mlp.{kind}.proj_in.weight")[0]
    text, words = _shape(shard, "txt_in.weight")
    return {
        **(LIKE_3B if gated else LIKE_7B),
        "vid_in_channels": patch // LATENTS_PER_TOKEN,
        "vid_out_channels": _shape(shard, "vid_out.proj.weight")[0] // LATENTS_PER_TOKEN,
        "vid_dim": width,
        "txt_in_dim": words,
        "txt_dim": text,
        "heads": _shape(shard, f"blocks.0.attn.proj_qkv.{kind}.weight")[0] // (3 * head),
        "head_dim": head,
        # A gated layer is two thirds as wide, rounded up to a multiple of 256.
        "expand_ratio": 1.5 * hidden / width if gated else hidden // width,
        "num_layers": layers,
        "mm_layers": shared,
        # Three axes, one frequency for every two values of an axis.
        "rope_dim": 6 * _shape(shard, "blocks.0.attn.rope.rope.freqs")[0],
        "use_output_ada": "vid_out_ada.out_shift" in shard.tensors,
    }


def _infer_vae_config(shard: Shard) -> Config:
    blocks = _count(shard, "encoder.down_blocks.{}.")
    return {
        "in_channels": _shape(shard, "encoder.conv_in.weight")[1],
        "out_channels": _shape(shard, "decoder.conv_out.weight")[0],
        "latent_channels": _shape(shard, "decoder.conv_in.weight")[1],
        "block_out_channels": tuple(
            _shape(shard, f"encoder.down_blocks.{block}.resnets.0.conv1.weight")[0] for block in range(blocks)
        ),
    }


def _is_shared(shard: Shard, layer: int) -> bool:
    """Return whether picture and text share the weights of a layer."""
    return any(name.startswith(f"blocks.{layer}.") and ".all." in name for name in shard.tensors)


def _shape(shard: Shard, name: str) -> tuple[int, ...]:
    tensor: Tensor | None = shard.tensors.get(name)
    if tensor is None:
        raise missing_tensors_error(shard, [name])
    return tensor.shape


def missing_tensors_error(shard: Shard, names: list[str]) -> ModelUnsupported:
    """Return the error for tensors that are missing in a file."""
    return ModelUnsupported(
        f"{shard.path} is not SeedVR2 as it is published: it lacks {len(names)} tensors, {', '.join(names[:3])}.",
        path=str(shard.path),
        missing=names[:10],
    )


def _count(shard: Shard, pattern: str) -> int:
    numbered = re.compile(re.escape(pattern).replace(r"\{\}", r"(\d+)"))
    found = (numbered.match(name) for name in shard.tensors)
    return max((int(match[1]) + 1 for match in found if match), default=0)


# Measured on the CPU backend with random networks, from 512 to 1536 pixels a side. STEP_VALUES: float32 values alive at
# the same time in the transformer, per token and hidden unit. DECODE_BYTES: bytes in the autoencoder, per pixel of a
# tile and first channel, about the same in every precision; a quarter of them are the CPU's unfolded convolutions.
STEP_VALUES = 30
DECODE_BYTES = {"cpu": 280}
DECODE_BYTES_FUSED = 210
# Bytes per pixel of the colour matching, which runs outside MLX on the whole picture at once.
COLOUR_BYTES = 200
TILE_SIDE = 512
TOKEN_SIDE = 16
TEXT_TOKENS = 58
GROUP_SIZES = (64, 32)
FLOAT32_BYTES = 4


def estimate_memory(
    layout: SeedVR2Checkpoint,
    bits: int | None,
    machine: Machine,
    *,
    size: tuple[int, int],
    references: Sequence[tuple[int, int]],
    pictures: int,
    upsample: bool,
) -> MemoryEstimate:
    """Estimate the memory of enlarging to `size`, (width, height) in pixels. `references`, `upsample`: not used."""
    work = _estimate_activations(layout, machine, size) + min(pictures, 2) * 4 * size[0] * size[1]
    return MemoryEstimate(
        transformer=_estimate_transformer_bytes(layout, bits, machine.bytes_per_value),
        text_encoder=0,
        vae=_estimate_vae_bytes(layout.vae, machine.bytes_per_value),
        activations=work,
    )


def _estimate_activations(layout: SeedVR2Checkpoint, machine: Machine, size: tuple[int, int]) -> int:
    tokens = -(-size[0] // TOKEN_SIDE) * -(-size[1] // TOKEN_SIDE)
    step = tokens * layout.transformer_config["vid_dim"] * STEP_VALUES * FLOAT32_BYTES
    tile = min(size[0], TILE_SIDE) * min(size[1], TILE_SIDE)
    each = DECODE_BYTES.get(machine.device, DECODE_BYTES_FUSED)
    decode = tile * layout.vae_config["block_out_channels"][0] * each
    return int(max(step, decode, size[0] * size[1] * COLOUR_BYTES))


def _estimate_transformer_bytes(layout: SeedVR2Checkpoint, bits: int | None, bytes_per_value: int) -> int:
    words = TEXT_TOKENS * int(layout.transformer_config["txt_in_dim"]) * bytes_per_value
    tensors = layout.transformer.tensors.items()
    return words + sum(
        _count_loaded_bytes(tensor, bits, FLOAT32_BYTES if name.endswith(".freqs") else bytes_per_value)
        for name, tensor in tensors
    )


def _count_loaded_bytes(tensor: Tensor, bits: int | None, bytes_per_value: int) -> int:
    group = next((size for size in GROUP_SIZES if tensor.shape[-1] % size == 0), None)
    if bits is None or len(tensor.shape) != 2 or group is None:
        return tensor.count * bytes_per_value
    return tensor.count * bits // 8 + 2 * bytes_per_value * tensor.count // group


def _estimate_vae_bytes(shard: Shard, bytes_per_value: int) -> int:
    """Estimate the VAE's bytes. Its convolutions over time are loaded as 2D ones: (O, I, T, H, W) to (O, I, H, W)."""
    return sum(
        tensor.count // (tensor.shape[2] if len(tensor.shape) == 5 else 1) * bytes_per_value
        for tensor in shard.tensors.values()
    )
