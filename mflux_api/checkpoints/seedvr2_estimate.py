"""Bytes SeedVR2 and a picture of it will take, from headers alone. No MLX: the server asks first."""

from pathlib import Path

from mflux_api.checkpoints.memory_estimate import Machine, Need
from mflux_api.checkpoints.safetensors import Shard, Tensor
from mflux_api.checkpoints.seedvr2 import Layout, read_layout

# Measured on the CPU backend with random networks, from 512 to 1536 pixels a side: float32 values alive at once in the
# transformer, per token and hidden unit; bytes in the autoencoder, per pixel of a tile and first channel, much the same
# in every precision, of which the CPU's unfolded convolutions are a quarter.
STEP_VALUES = 30
DECODE_BYTES = {"cpu": 280}
DECODE_BYTES_FUSED = 210
# Colours are matched outside MLX, the whole picture at once.
COLOUR_BYTES = 200
TILE = 512
PIXELS = 16
WORDS = 58
GROUPS = (64, 32)
FLOAT = 4


def need(folder: Path, bits: int | None, machine: Machine, *, size: tuple[int, int], pictures: int) -> Need:
    """What enlarging to `size`, (width, height) in pixels, takes. Raises the errors of a bad folder."""
    layout = read_layout(folder)
    work = _work(layout, machine, size) + min(pictures, 2) * 4 * size[0] * size[1]
    return Need(
        transformer=_transformer_bytes(layout, bits, machine.width),
        text_encoder=0,
        vae=_vae_bytes(layout.vae, machine.width),
        work=work,
    )


def model_bytes(folder: Path, bits: int | None, width: int) -> int:
    """Bytes the model will hold once loaded; `width`: bytes of a number in what it computes with."""
    layout = read_layout(folder)
    return _transformer_bytes(layout, bits, width) + _vae_bytes(layout.vae, width)


def _work(layout: Layout, machine: Machine, size: tuple[int, int]) -> int:
    tokens = -(-size[0] // PIXELS) * -(-size[1] // PIXELS)
    step = tokens * layout.transformer_sizes["vid_dim"] * STEP_VALUES * FLOAT
    tile = min(size[0], TILE) * min(size[1], TILE)
    each = DECODE_BYTES.get(machine.device, DECODE_BYTES_FUSED)
    decode = tile * layout.vae_sizes["block_out_channels"][0] * each
    return int(max(step, decode, size[0] * size[1] * COLOUR_BYTES))


def _transformer_bytes(layout: Layout, bits: int | None, width: int) -> int:
    words = WORDS * int(layout.transformer_sizes["txt_in_dim"]) * width
    tensors = layout.transformer.tensors.items()
    return words + sum(_loaded(tensor, bits, FLOAT if name.endswith(".freqs") else width) for name, tensor in tensors)


def _loaded(tensor: Tensor, bits: int | None, width: int) -> int:
    group = next((size for size in GROUPS if tensor.shape[-1] % size == 0), None)
    if bits is None or len(tensor.shape) != 2 or group is None:
        return tensor.count * width
    return tensor.count * bits // 8 + 2 * width * tensor.count // group


def _vae_bytes(shard: Shard, width: int) -> int:
    """Its convolutions over time, five-dimensional, become flat ones: (O, I, T, H, W) to (O, I, H, W)."""
    return sum(
        tensor.count // (tensor.shape[2] if len(tensor.shape) == 5 else 1) * width for tensor in shard.tensors.values()
    )
