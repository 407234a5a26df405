"""Where the files of each network lie in a model's folder, and what they hold.

Usually in a folder of its own (`transformer/*.safetensors`). A transformer or a text encoder may also be one file, GGUF
or safetensors: in that folder, beside it (`transformer.gguf`), or loose under any name, known by the tensors it holds.
"""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from mflux_api.checkpoints.float8 import plain
from mflux_api.checkpoints.gguf import SUFFIX, read_gguf
from mflux_api.checkpoints.safetensors import Config, Shard, read_shard, read_shards
from mflux_api.checkpoints.tensor_names import HEAD, llama_name
from mflux_api.errors import MfluxError, ModelUnsupported

PARTS = ("transformer", "text_encoder", "tokenizer", "vae")
SAFETENSORS = ".safetensors"
SUFFIXES = (SUFFIX, SAFETENSORS)
KINDS = {
    "transformer": re.compile(r"(^|\.)((double|single)_blocks|(single_)?transformer_blocks)\.\d+\."),
    "text_encoder": re.compile(r"^(blk\.\d+\.|(language_model\.|model\.)*layers\.\d+\.self_attn\.)"),
}
ARCHITECTURE = "general.architecture"
QWEN3 = "qwen3"
EMBEDDING = "embed_tokens.weight"
# transformers' words -> llama.cpp's, after the architecture's name.
QWEN3_CONFIG = {
    "hidden_size": "embedding_length",
    "num_hidden_layers": "block_count",
    "num_attention_heads": "attention.head_count",
    "num_key_value_heads": "attention.head_count_kv",
    "head_dim": "attention.key_length",
    "intermediate_size": "feed_forward_length",
}


def read(folder: Path, part: str, file: Path | None = None) -> list[Shard]:
    """A network's checked files. `file`: the transformer's, where it was named.

    Raises ModelIncomplete when there is none, ModelCorrupt, ModelUnsupported.
    """
    paths = loose(folder, part, file)
    if not paths:
        return plain(read_shards(folder / part))
    shards = [_read(path) for path in paths]
    return [_renamed(shard) for shard in shards] if part == "text_encoder" else plain(shards)


def loose(folder: Path, part: str, file: Path | None = None) -> list[Path]:
    """The network's files that are not its folder's safetensors; empty where those are. Raises ModelUnsupported."""
    if file is not None and part == "transformer":
        return [file]
    if part not in KINDS or any((folder / part).glob(f"*{SAFETENSORS}")):
        return []
    named = [path for suffix in SUFFIXES if (path := folder / f"{part}{suffix}").is_file()]
    found = sorted((folder / part).glob(f"*{SUFFIX}")) or named[:1] or _holding(folder, part)
    _check_one(found, part)
    return found


def root(path: Path) -> tuple[Path, Path | None]:
    """The model's folder, and the transformer's file where that is what was named."""
    if not path.is_file():
        return path, None
    parent = path.absolute().parent
    return (parent.parent if parent.name == "transformer" else parent), path


def missing(folder: Path, file: Path | None) -> list[str]:
    """The parts that a folder has no files of."""
    return [part for part in PARTS if not _has(folder, part, file)]


def encoder_config(shards: Sequence[Shard]) -> Config:
    """What a GGUF file says of its text encoder; empty for other files."""
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
        "tie_word_embeddings": not any(HEAD in shard.tensors for shard in shards),
    }


def _has(folder: Path, part: str, file: Path | None) -> bool:
    if part == "tokenizer":
        return any((folder / part).glob("tokenizer*"))
    return any((folder / part).glob(f"*{SAFETENSORS}")) or bool(loose(folder, part, file))


def _read(path: Path) -> Shard:
    return read_gguf(path) if path.suffix == SUFFIX else read_shard(path)


def _holding(folder: Path, part: str) -> list[Path]:
    paths = (path for suffix in SUFFIXES for path in sorted(folder.glob(f"*{suffix}")))
    return [path for path in paths if _holds(path, KINDS[part])]


def _holds(path: Path, kind: re.Pattern[str]) -> bool:
    try:
        return any(kind.search(name) and "lora" not in name for name in _read(path).tensors)
    except MfluxError:
        # A stranger in the folder; if it was meant, its part will be missed.
        return False


def _check_one(paths: list[Path], part: str) -> None:
    names = [name for path in paths for name in _names(path)] if len(paths) > 1 else []
    if len(names) != len(set(names)):
        raise ModelUnsupported(
            f"{paths[0].parent} holds several files for the {part}: {_listed(paths)}. Leave one of them there, or "
            "name the one of the transformer as the model.",
            path=str(paths[0].parent),
        )


def _names(path: Path) -> Iterable[str]:
    return _read(path).tensors


def _listed(paths: list[Path]) -> str:
    return ", ".join(path.name for path in paths)


def _renamed(shard: Shard) -> Shard:
    """A text encoder's file under transformers' names. Raises ModelUnsupported."""
    if shard.path.suffix != SUFFIX:
        return plain([shard])[0]
    kind = shard.metadata.get(ARCHITECTURE)
    if kind != QWEN3:
        # llama.cpp turns the queries and keys of others around, and sets theirs apart from transformers'.
        raise ModelUnsupported(
            f"{shard.path} is a text encoder of the architecture {kind}; as GGUF only {QWEN3} can be read. "
            "Take it as safetensors.",
            path=str(shard.path),
        )
    tensors = {llama_name(name): tensor for name, tensor in shard.tensors.items()}
    return Shard(shard.path, tensors, shard.metadata)
