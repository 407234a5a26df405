"""Bytes a model and a picture will take, from headers and configuration alone."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mflux_api.checkpoints.bit_packing import PACKED_BITS, PACKED_GROUP, choose_group_size
from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.components import Component
from mflux_api.checkpoints.language_model import find_language_model
from mflux_api.checkpoints.safetensors import Tensor
from mflux_api.checkpoints.tensor_names import map_text_encoder_name

# Measured on the CPU backend with the embedded model from 128 to 1024 pixels a side (docs/performance.md): values
# alive at once, per token and hidden unit in a step, per pixel and first channel in the autoencoder. It decodes in
# strips of some rows, and those take more.
STEP_VALUES = 40
DECODE_VALUES = 4
STRIP_VALUES = 24
STRIP_ROWS = 130
ENCODE_VALUES = {"cpu": 40}
ENCODE_VALUES_FUSED = 10
PATCH = 16
LARGEST_REFERENCE = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What computes: its backend, and the bytes a number takes there."""

    device: str
    bytes_per_value: int


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Bytes, part by part. `activations`: what one picture takes beside the weights.

    `upsampling`: what upsampling a prompt takes beside the text encoder, before the picture is begun.
    `takes_turns`: text encoder and transformer take turns where they have no room together (FLUX.2-dev).
    """

    transformer: int
    text_encoder: int
    vae: int
    activations: int
    upsampling: int = 0
    takes_turns: bool = False

    @property
    def weights(self) -> int:
        """Once loaded, all of it at the same time."""
        return self.transformer + self.text_encoder + self.vae

    def peak(self, *, low_ram: bool) -> int:
        """The most at any time. With `low_ram` the text encoder has gone before the denoising begins.

        Networks that may take turns do so by themselves when they have to, so that is all they need.
        """
        if self.takes_turns:
            return self.vae + max(self.text_encoder + self.upsampling, self.transformer + self.activations)
        if low_ram:
            return self.transformer + self.vae + max(self.text_encoder + self.upsampling, self.activations)
        return self.weights + max(self.upsampling, self.activations)


def estimate_memory(
    checkpoint: Checkpoint,
    bits: int | None,
    machine: Machine,
    *,
    size: tuple[int, int],
    references: Sequence[tuple[int, int]],
    pictures: int,
    upsample: bool = False,
) -> MemoryEstimate:
    """What painting takes: `size` and `references` are (width, height) in pixels; `upsample`: the prompt, too.

    Raises the errors of a bad folder, and ModelUnsupported for a model that cannot upsample.
    """
    work = estimate_picture_bytes(checkpoint, machine, size=size, references=references)
    # Finished pictures leave the engine one by one; each is whole, and encoded, for a moment.
    work += min(pictures, 2) * 4 * size[0] * size[1]
    transformer, text_encoder, vae = _estimate_network_bytes(checkpoint, bits, machine.bytes_per_value)
    return MemoryEstimate(
        transformer=transformer,
        text_encoder=text_encoder,
        vae=vae,
        activations=work,
        upsampling=estimate_upsampling_bytes(checkpoint, bits, machine.bytes_per_value) if upsample else 0,
        takes_turns=checkpoint.guidance_embeds,
    )


def estimate_model_bytes(checkpoint: Checkpoint, bits: int | None, bytes_per_value: int) -> int:
    """Bytes the model will hold once loaded; `bytes_per_value`: bytes of a number in what it computes with."""
    return sum(_estimate_network_bytes(checkpoint, bits, bytes_per_value))


def estimate_bytes_in_turns(checkpoint: Checkpoint, bits: int | None, bytes_per_value: int) -> int:
    """Bytes a model will hold at most when its text encoder and its transformer take turns."""
    transformer, text_encoder, vae = _estimate_network_bytes(checkpoint, bits, bytes_per_value)
    return vae + max(transformer, text_encoder)


def estimate_upsampling_bytes(checkpoint: Checkpoint, bits: int | None, bytes_per_value: int) -> int:
    """Bytes that upsampling a prompt takes beside the text encoder. Raises ModelUnsupported where it cannot write."""
    language = find_language_model(checkpoint)
    weights = sum(_count_loaded_bytes(tensor, bits, bytes_per_value) for tensor in language.tail.values())
    return weights + language.cached_values * bytes_per_value


def estimate_picture_bytes(
    checkpoint: Checkpoint, machine: Machine, *, size: tuple[int, int], references: Sequence[tuple[int, int]]
) -> int:
    """Bytes one picture takes beside the weights: the most that a step, the decoding or a reference needs."""
    transformer, vae = checkpoint.transformer.config, checkpoint.vae.config
    heads = int(transformer.get("num_attention_heads", 48))
    hidden = heads * int(transformer.get("attention_head_dim", 128))
    channels = int(vae.get("block_out_channels", (128,))[0])
    seen = [min(width * height, LARGEST_REFERENCE) for width, height in references]
    tokens = checkpoint.max_sequence_length + (size[0] * size[1] + sum(seen)) // PATCH**2
    step = tokens * hidden * STEP_VALUES * machine.bytes_per_value
    if machine.device == "cpu":
        # Only here attention writes its whole table.
        step += tokens**2 * heads * machine.bytes_per_value
    column = size[1] * DECODE_VALUES + min(size[1] + 2, STRIP_ROWS) * STRIP_VALUES
    decode = size[0] * column * channels * machine.bytes_per_value
    values = ENCODE_VALUES.get(machine.device, ENCODE_VALUES_FUSED)
    encode = max(seen, default=0) * channels * values * machine.bytes_per_value
    return max(step, decode, encode)


def _estimate_network_bytes(checkpoint: Checkpoint, bits: int | None, bytes_per_value: int) -> tuple[int, int, int]:
    """Of the transformer, the text encoder and the VAE, which is never quantized."""
    last = max(checkpoint.out_layers)
    return (
        _estimate_component_bytes(checkpoint.transformer, last, bits, bytes_per_value),
        _estimate_component_bytes(checkpoint.text_encoder, last, bits, bytes_per_value),
        _estimate_component_bytes(checkpoint.vae, last, None, bytes_per_value),
    )


@functools.lru_cache(maxsize=96)
def _estimate_component_bytes(component: Component, layers: int, bits: int | None, bytes_per_value: int) -> int:
    """Remembered: thousands of tensors, counted twice for every job."""
    quantized = bits if component.stored_bits is None else None
    tensors = (each for shard in component.shards for each in shard.tensors.items())
    return sum(
        _count_loaded_bytes(tensor, quantized, bytes_per_value) for name, tensor in tensors if _is_used(name, layers)
    )


def _is_used(name: str, layers: int) -> bool:
    """Whether it is kept: of a text encoder only the first `layers`."""
    kept = map_text_encoder_name(name)
    layer = re.match(r"layers\.(\d+)\.", kept or "")
    return kept is not None and not (layer and int(layer[1]) >= layers)


def _count_loaded_bytes(tensor: Tensor, bits: int | None, bytes_per_value: int) -> int:
    if tensor.is_integer:
        return tensor.nbytes
    if bits is None and tensor.dtype in PACKED_BITS and len(tensor.shape) == 2:
        return tensor.count * PACKED_BITS[tensor.dtype] // 8 + 2 * bytes_per_value * tensor.count // PACKED_GROUP
    group = choose_group_size(tensor.shape)
    if bits is None or group is None:
        return tensor.count * bytes_per_value
    return tensor.count * bits // 8 + 2 * bytes_per_value * tensor.count // group
