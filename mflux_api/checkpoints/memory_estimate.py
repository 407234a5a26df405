"""Estimate the memory of a model and a picture, from headers and configuration alone."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass

from mflux_api.checkpoints.bit_packing import GROUP_SIZES, PACKED_BITS, PACKED_GROUP, choose_group_size
from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.components import Component
from mflux_api.checkpoints.language_model import find_language_model
from mflux_api.checkpoints.safetensors import Tensor
from mflux_api.checkpoints.tensor_names import map_text_encoder_name

# Values alive at the same time, measured on the CPU backend with the embedded model from 128 to 1024 pixels a side
# (docs/performance.md): STEP_VALUES per token and hidden unit in a step, the others per pixel and first channel in the
# autoencoder. It decodes in strips of STRIP_ROWS rows, which take STRIP_VALUES more.
STEP_VALUES = 40
DECODE_VALUES = 4
STRIP_VALUES = 24
STRIP_ROWS = 130
ENCODE_VALUES = {"cpu": 40}
ENCODE_VALUES_FUSED = 10
PATCH = 16
# Of models that are not here: the side of the picture, and the first channels of FLUX.2's autoencoder.
USUAL_SIDE = 1024
USUAL_CHANNELS = 128
# Share of the machine's memory that models may take, unless a budget is set.
BUDGET_SHARE = 0.75
BILLION = 10**9
LARGEST_REFERENCE = 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Machine:
    """The machine's MLX backend and the bytes per number in its computations."""

    device: str
    bytes_per_value: int


@dataclass(frozen=True, kw_only=True)
class MemoryEstimate:
    """Estimated bytes by part. `activations`: for one picture, beside the weights.

    `upsampling`: for prompt upsampling, beside the text encoder and before the picture starts. `takes_turns`: text
    encoder and transformer can take turns in memory when they do not fit together (FLUX.2-dev).
    """

    transformer: int
    text_encoder: int
    vae: int
    activations: int
    upsampling: int = 0
    takes_turns: bool = False

    @property
    def weights(self) -> int:
        """Bytes of all networks, loaded at the same time."""
        return self.transformer + self.text_encoder + self.vae

    def held_bytes(self, *, low_ram: bool) -> int:
        """Return the most bytes held between pictures: networks that take turns are never in memory together."""
        if low_ram and self.takes_turns:
            return self.vae + max(self.transformer, self.text_encoder)
        return self.weights

    def peak(self, *, low_ram: bool) -> int:
        """Return the peak in bytes. With `low_ram` the text encoder is freed before the denoising starts.

        Networks with `takes_turns` do so automatically when needed, so their peak is always that of taking turns.
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
    """Estimate the memory that painting takes.

    `size`, `references`: (width, height) in pixels. `upsample`: include upsampling of the prompt. Raises the errors of
    a bad folder, and ModelUnsupported if the model cannot upsample prompts.
    """
    work = estimate_picture_bytes(checkpoint, machine, size=size, references=references)
    # Finished pictures leave the engine one by one. Each exists both as pixels and encoded for a moment.
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


def estimate_upsampling_bytes(checkpoint: Checkpoint, bits: int | None, bytes_per_value: int) -> int:
    """Estimate the bytes of prompt upsampling beside the text encoder. Raises ModelUnsupported if it is impossible."""
    language = find_language_model(checkpoint)
    weights = sum(_count_loaded_bytes(tensor, bits, bytes_per_value) for tensor in language.tail.values())
    return weights + language.cached_values * bytes_per_value


def estimate_picture_bytes(
    checkpoint: Checkpoint, machine: Machine, *, size: tuple[int, int], references: Sequence[tuple[int, int]]
) -> int:
    """Estimate the bytes of one picture beside the weights: the maximum of a step, decoding and encoding."""
    transformer, vae = checkpoint.transformer.config, checkpoint.vae.config
    heads = int(transformer.get("num_attention_heads", 48))
    hidden = heads * int(transformer.get("attention_head_dim", 128))
    channels = int(vae.get("block_out_channels", (128,))[0])
    seen = [min(width * height, LARGEST_REFERENCE) for width, height in references]
    tokens = checkpoint.max_sequence_length + (size[0] * size[1] + sum(seen)) // PATCH**2
    step = tokens * hidden * STEP_VALUES * machine.bytes_per_value
    if machine.device == "cpu":
        # Only the CPU backend stores the whole attention matrix.
        step += tokens**2 * heads * machine.bytes_per_value
    decode = _count_decoded_values(size, channels) * machine.bytes_per_value
    values = ENCODE_VALUES.get(machine.device, ENCODE_VALUES_FUSED)
    encode = max(seen, default=0) * channels * values * machine.bytes_per_value
    return max(step, decode, encode)


def _count_decoded_values(size: tuple[int, int], channels: int) -> int:
    column = size[1] * DECODE_VALUES + min(size[1] + 2, STRIP_ROWS) * STRIP_VALUES
    return size[0] * column * channels


def estimate_from_counts(
    counts: Sequence[float], bits: int | None, bytes_per_value: int, *, takes_turns: bool
) -> MemoryEstimate:
    """Estimate the memory of a model that is not here, with a picture of USUAL_SIDE.

    `counts`: 10^9 parameters of the transformer, the text encoder and the VAE, which is never quantized.
    """
    quantized = bytes_per_value if bits is None else bits / 8 + 2 * bytes_per_value / GROUP_SIZES[0]
    transformer, text_encoder, vae = (count * BILLION for count in counts)
    return MemoryEstimate(
        transformer=int(transformer * quantized),
        text_encoder=int(text_encoder * quantized),
        vae=int(vae * bytes_per_value),
        activations=_count_decoded_values((USUAL_SIDE, USUAL_SIDE), USUAL_CHANNELS) * bytes_per_value,
        takes_turns=takes_turns,
    )


def _estimate_network_bytes(checkpoint: Checkpoint, bits: int | None, bytes_per_value: int) -> tuple[int, int, int]:
    """Estimate the bytes of the transformer, the text encoder and the VAE, which is never quantized."""
    last = max(checkpoint.out_layers)
    return (
        _estimate_component_bytes(checkpoint.transformer, last, bits, bytes_per_value),
        _estimate_component_bytes(checkpoint.text_encoder, last, bits, bytes_per_value),
        _estimate_component_bytes(checkpoint.vae, last, None, bytes_per_value),
    )


@functools.lru_cache(maxsize=96)
def _estimate_component_bytes(component: Component, layers: int, bits: int | None, bytes_per_value: int) -> int:
    """Estimate the bytes of one network. Cached: every job counts its thousands of tensors twice."""
    quantized = bits if component.stored_bits is None else None
    tensors = (each for shard in component.shards for each in shard.tensors.items())
    return sum(
        _count_loaded_bytes(tensor, quantized, bytes_per_value) for name, tensor in tensors if _is_used(name, layers)
    )


def _is_used(name: str, layers: int) -> bool:
    """Return whether a tensor is loaded. Of a text encoder only the first `layers` are."""
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
