"""Bytes a model and a picture will take, from headers and configuration alone."""

import functools
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from mflux_api.checkpoints import components, inferred_config
from mflux_api.checkpoints.bit_packing import PACKED, PACKED_GROUP, group_size
from mflux_api.checkpoints.checkpoint import Layout, read_layout
from mflux_api.checkpoints.language_model import find_language
from mflux_api.checkpoints.safetensors import Config, Shard, Tensor, stored_bits
from mflux_api.checkpoints.tensor_names import text_encoder_name

COMPONENTS = ("transformer", "text_encoder", "vae")
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
Stamp: TypeAlias = tuple[tuple[str, int, int], ...]


@dataclass(frozen=True, kw_only=True)
class Machine:
    """What computes: its backend, and the bytes a number takes there."""

    device: str
    width: int


@dataclass(frozen=True, kw_only=True)
class Need:
    """Bytes, part by part. `work`: what one picture takes beside the weights.

    `writing`: what upsampling a prompt takes beside the text encoder, before the picture is begun.
    `in_turn`: text encoder and transformer take turns where they have no room together (FLUX.2-dev).
    """

    transformer: int
    text_encoder: int
    vae: int
    work: int
    writing: int = 0
    in_turn: bool = False

    @property
    def weights(self) -> int:
        """Once loaded, all of it at the same time."""
        return self.transformer + self.text_encoder + self.vae

    def peak(self, *, low_ram: bool) -> int:
        """The most at any time. With `low_ram` the text encoder has gone before the denoising begins.

        Networks that may take turns do so by themselves when they have to, so that is all they need.
        """
        if self.in_turn:
            return self.vae + max(self.text_encoder + self.writing, self.transformer + self.work)
        if low_ram:
            return self.transformer + self.vae + max(self.text_encoder + self.writing, self.work)
        return self.weights + max(self.writing, self.work)


def need(
    folder: Path,
    bits: int | None,
    machine: Machine,
    *,
    size: tuple[int, int],
    references: Sequence[tuple[int, int]],
    pictures: int,
    upsample: bool = False,
) -> Need:
    """What painting takes: `size` and `references` are (width, height) in pixels; `upsample`: the prompt, too.

    Raises the errors of a bad folder, and ModelUnsupported for a model that cannot upsample.
    """
    seen, stamp = tuple(references), _stamp(folder)
    return _need(folder, stamp, bits, machine, size=size, references=seen, pictures=pictures, upsample=upsample)


@functools.lru_cache(maxsize=64)
def _need(
    folder: Path,
    stamp: Stamp,
    bits: int | None,
    machine: Machine,
    *,
    size: tuple[int, int],
    references: tuple[tuple[int, int], ...],
    pictures: int,
    upsample: bool,
) -> Need:
    """Remembered until a file changes (`stamp`): thousands of tensors, counted twice for every job."""
    layout = read_layout(folder)
    work = picture_bytes(layout, machine, size=size, references=references)
    # Finished pictures leave the engine one by one; each is whole, and encoded, for a moment.
    work += min(pictures, 2) * 4 * size[0] * size[1]
    components = {name: _component_bytes(layout, name, bits, machine.width) for name in COMPONENTS}
    writing = writing_bytes(layout, bits, machine.width) if upsample else 0
    return Need(**components, work=work, writing=writing, in_turn=layout.guided)


def _stamp(folder: Path) -> Stamp:
    """What changes when any file of a model does."""
    around, _ = components.root(folder)
    folders = (around, *(around / name for name in (*COMPONENTS, "scheduler")))
    return tuple(
        (file.name, file.stat().st_mtime_ns, file.stat().st_size)
        for each in folders
        if each.is_dir()
        for file in sorted(os.scandir(each), key=lambda entry: entry.name)
    )


def model_bytes(layout: Layout, bits: int | None, width: int) -> int:
    """Bytes the model will hold once loaded; `width`: bytes of a number in what it computes with."""
    return sum(_component_bytes(layout, name, bits, width) for name in COMPONENTS)


def turn_bytes(layout: Layout, bits: int | None, width: int) -> int:
    """Bytes a model will hold at most when its text encoder and its transformer take turns."""
    transformer, text_encoder, vae = (_component_bytes(layout, name, bits, width) for name in COMPONENTS)
    return vae + max(transformer, text_encoder)


def writing_bytes(layout: Layout, bits: int | None, width: int) -> int:
    """Bytes that upsampling a prompt takes beside the text encoder. Raises ModelUnsupported where it cannot write."""
    language = find_language(layout)
    return sum(_loaded(tensor, bits, width) for tensor in language.rest.values()) + language.memory * width


def picture_bytes(
    layout: Layout, machine: Machine, *, size: tuple[int, int], references: Sequence[tuple[int, int]]
) -> int:
    """Bytes one picture takes beside the weights: the most that a step, the decoding or a reference needs."""
    transformer, vae = _config(layout, "transformer"), _config(layout, "vae")
    heads = int(transformer.get("num_attention_heads", 48))
    hidden = heads * int(transformer.get("attention_head_dim", 128))
    channels = int(vae.get("block_out_channels", (128,))[0])
    seen = [min(width * height, LARGEST_REFERENCE) for width, height in references]
    tokens = layout.text_length + (size[0] * size[1] + sum(seen)) // PATCH**2
    step = tokens * hidden * STEP_VALUES * machine.width
    if machine.device == "cpu":
        # Only here attention writes its whole table.
        step += tokens**2 * heads * machine.width
    column = size[1] * DECODE_VALUES + min(size[1] + 2, STRIP_ROWS) * STRIP_VALUES
    decode = size[0] * column * channels * machine.width
    values = ENCODE_VALUES.get(machine.device, ENCODE_VALUES_FUSED)
    encode = max(seen, default=0) * channels * values * machine.width
    return max(step, decode, encode)


def _config(layout: Layout, name: str) -> Config:
    written: Config = getattr(layout, name)
    if written:
        return written
    shards = components.read(layout.folder, name, layout.file)
    infer = {"transformer": inferred_config.transformer_config, "vae": inferred_config.vae_config}[name]
    return infer(inferred_config.tensors_of(shards), stored_bits(layout.folder / name, shards))


def _component_bytes(layout: Layout, name: str, bits: int | None, width: int) -> int:
    shards = components.read(layout.folder, name, layout.file)
    quantized = bits if name != "vae" and stored_bits(layout.folder / name, shards) is None else None
    return _shards_bytes(shards, layout, quantized, width)


def _shards_bytes(shards: list[Shard], layout: Layout, bits: int | None, width: int) -> int:
    used = (tensor for shard in shards for name, tensor in shard.tensors.items() if _is_used(name, layout))
    return sum(_loaded(tensor, bits, width) for tensor in used)


def _is_used(name: str, layout: Layout) -> bool:
    kept = text_encoder_name(name)
    layer = re.match(r"layers\.(\d+)\.", kept or "")
    return kept is not None and not (layer and int(layer[1]) >= max(layout.layers))


def _loaded(tensor: Tensor, bits: int | None, width: int) -> int:
    if tensor.is_integer:
        return tensor.size
    if bits is None and tensor.dtype in PACKED and len(tensor.shape) == 2:
        return tensor.count * PACKED[tensor.dtype] // 8 + 2 * width * tensor.count // PACKED_GROUP
    group = group_size(tensor.shape)
    if bits is None or group is None:
        return tensor.count * width
    return tensor.count * bits // 8 + 2 * width * tensor.count // group
