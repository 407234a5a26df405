"""The components of a checkpoint: the files of each network, their headers and configs.

A network usually has its own folder (`transformer/*.safetensors`). A transformer or a text encoder may also be a single
file, GGUF or safetensors: in that folder, beside it (`transformer.gguf`), or beside it under any name, detected by its
tensors.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from mflux_api.checkpoints.file_kinds import list_files
from mflux_api.checkpoints.float8 import normalise_float8
from mflux_api.checkpoints.gguf import GGUF_SUFFIX, read_gguf
from mflux_api.checkpoints.inferred_config import (
    Tensors,
    collect_tensors,
    infer_text_encoder_config,
    infer_transformer_config,
    infer_vae_config,
)
from mflux_api.checkpoints.safetensors import (
    Config,
    Shard,
    find_stored_bits,
    is_saved_by_mflux,
    read_indexes,
    read_json,
    read_json_if_present,
    read_shard,
    read_shards,
)
from mflux_api.checkpoints.tensor_names import LM_HEAD_WEIGHT, map_llama_cpp_name
from mflux_api.errors import MfluxError, ModelUnsupported

COMPONENTS = ("transformer", "text_encoder", "vae")
SAFETENSORS = ".safetensors"
SUFFIXES = (GGUF_SUFFIX, SAFETENSORS)
TENSOR_PATTERNS = {
    "transformer": re.compile(r"(^|\.)((double|single)_blocks|(single_)?transformer_blocks)\.\d+\."),
    "text_encoder": re.compile(r"^(blk\.\d+\.|(language_model\.|model\.)*layers\.\d+\.self_attn\.)"),
}
INFER: Mapping[str, Callable[[Tensors, int | None], Config]] = {
    "transformer": infer_transformer_config,
    "text_encoder": infer_text_encoder_config,
    "vae": infer_vae_config,
}
ARCHITECTURE = "general.architecture"
QWEN3 = "qwen3"
EMBEDDING = "embed_tokens.weight"
# Config keys of transformers -> metadata keys of llama.cpp, without the architecture's prefix.
QWEN3_CONFIG = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
}
ReadHeader = Callable[[Path], Shard]


@dataclass(frozen=True, eq=False)
class Component:
    """One network on disk. Its files are read once, on first use.

    `folder`: its own folder in the model's folder. `file`: a file that was named, used instead of all others.
    `indexed`: the model has a model_index.json, so config files are required. `read_header`: reads the header of a
    single file.
    """

    name: str
    folder: Path
    file: Path | None
    indexed: bool
    read_header: ReadHeader

    @cached_property
    def single_files(self) -> list[Path]:
        """Its single files; empty if its folder holds safetensors. Raises ModelUnsupported for duplicates."""
        if self.file is not None:
            return [self.file]
        return _find_single_files(self.folder, self.name, self.read_header)

    @property
    def is_present(self) -> bool:
        """Whether it has any weight files."""
        return bool(list_files(self.folder, f"*{SAFETENSORS}")) or bool(self.single_files)

    @cached_property
    def shards(self) -> list[Shard]:
        """Its checked files. Raises ModelIncomplete when there are none, ModelCorrupt, ModelUnsupported."""
        if not self.single_files:
            return normalise_float8(read_shards(self.folder, self.indexes))
        shards = [self.read_header(path) for path in self.single_files]
        if self.name == "text_encoder":
            return [_normalise_text_encoder(shard) for shard in shards]
        return normalise_float8(shards)

    @cached_property
    def indexes(self) -> list[Config]:
        """The safetensors indexes in its folder. Raises ModelCorrupt."""
        return read_indexes(self.folder)

    @cached_property
    def stored_bits(self) -> int | None:
        """Bits of its weights as quantized by mflux; None if it was not quantized or not saved by mflux."""
        return find_stored_bits(self.shards, self.indexes)

    @cached_property
    def is_saved_by_mflux(self) -> bool:
        """Whether its tensors have the names of mflux's modules."""
        return is_saved_by_mflux(self.shards, self.indexes)

    @cached_property
    def written_config(self) -> Config:
        """The contents of config.json, or else the config in a GGUF file's metadata; empty without either.

        Raises ModelIncomplete if the model has an index and config.json is missing, ModelCorrupt, and the errors of
        `shards`.
        """
        path = self.folder / "config.json"
        if self.indexed and not self.single_files:
            return read_json(path)
        written = read_json_if_present(path)
        if written or self.name != "text_encoder" or not self.single_files:
            return written
        return _read_gguf_config(self.shards)

    def check_config(self) -> None:
        """Read config.json now. Raises what `written_config` raises."""
        _ = self.written_config

    @cached_property
    def config(self) -> Config:
        """The config to build it from: as written, else inferred from its tensors. Raises ModelUnsupported."""
        return self.written_config or INFER[self.name](collect_tensors(self.shards), self.stored_bits)


def read_any_header(path: Path) -> Shard:
    """Read and check the header of a GGUF or safetensors file. Raises ModelCorrupt, ModelUnsupported."""
    return read_gguf(path) if path.suffix == GGUF_SUFFIX else read_shard(path)


def _find_single_files(folder: Path, name: str, read_header: ReadHeader) -> list[Path]:
    if name not in TENSOR_PATTERNS or list_files(folder, f"*{SAFETENSORS}"):
        return []
    around = folder.parent
    named = [path for suffix in SUFFIXES if (path := around / f"{name}{suffix}").is_file()]
    found = (
        list_files(folder, f"*{GGUF_SUFFIX}")
        or named[:1]
        or _find_by_tensors(around, TENSOR_PATTERNS[name], read_header)
    )
    _check_no_duplicates(found, name, read_header)
    return found


def _find_by_tensors(folder: Path, kind: re.Pattern[str], read_header: ReadHeader) -> list[Path]:
    paths = (path for suffix in SUFFIXES for path in list_files(folder, f"*{suffix}"))
    return [path for path in paths if _holds(path, kind, read_header)]


def _holds(path: Path, kind: re.Pattern[str], read_header: ReadHeader) -> bool:
    try:
        return any(kind.search(name) and "lora" not in name for name in read_header(path).tensors)
    except MfluxError:
        # Not a readable weight file. If it was meant as a component, that component is reported as missing.
        return False


def _check_no_duplicates(paths: Sequence[Path], component: str, read_header: ReadHeader) -> None:
    names = [name for path in paths for name in read_header(path).tensors] if len(paths) > 1 else []
    if len(names) != len(set(names)):
        raise ModelUnsupported(
            f"{paths[0].parent} holds several files for the {component}: {', '.join(path.name for path in paths)}. "
            "Leave one of them there, or name the one of the transformer as the model.",
            path=str(paths[0].parent),
        )


def _read_gguf_config(shards: Sequence[Shard]) -> Config:
    """Return the text encoder's config from a GGUF file's metadata; empty for other files."""
    said = shards[0].metadata
    if said.get(ARCHITECTURE) != QWEN3:
        return {}
    numbers = {ours: int(said[f"{QWEN3}.{theirs}"]) for ours, theirs in QWEN3_CONFIG.items()}
    words = next(shard.tensors[EMBEDDING] for shard in shards if EMBEDDING in shard.tensors)
    return {
        **numbers,
        "vocab_size": words.shape[0],
        "rms_norm_eps": float(said[f"{QWEN3}.attention.layer_norm_rms_epsilon"]),
        "rope_theta": float(said[f"{QWEN3}.rope.freq_base"]),
        "tie_word_embeddings": not any(LM_HEAD_WEIGHT in shard.tensors for shard in shards),
    }


def _normalise_text_encoder(shard: Shard) -> Shard:
    """Return a text encoder's file with transformers' tensor names. Raises ModelUnsupported."""
    if shard.path.suffix != GGUF_SUFFIX:
        return normalise_float8([shard])[0]
    kind = shard.metadata.get(ARCHITECTURE)
    if kind != QWEN3:
        # For other architectures llama.cpp permutes the queries and keys, so they differ from transformers'.
        raise ModelUnsupported(
            f"{shard.path} is a text encoder of the architecture {kind}; as GGUF only {QWEN3} can be read. "
            "Take it as safetensors.",
            path=str(shard.path),
        )
    tensors = {map_llama_cpp_name(name): tensor for name, tensor in shard.tensors.items()}
    return Shard(shard.path, tensors, shard.metadata)
