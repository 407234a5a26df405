"""The smallest whole weight files, for tests that only need a folder to be a model."""

import struct
from collections.abc import Iterable
from pathlib import Path

SAFETENSORS = struct.pack("<Q", 2) + b"{}"
# Magic, version 3, no tensors, no metadata, padded to the alignment.
GGUF = (b"GGUF" + struct.pack("<IQQ", 3, 0, 0)).ljust(32, b"\0")
TOKENIZER = b"{}"


def make_contents(names: Iterable[str]) -> dict[str, bytes]:
    """Return a whole file without any content for each name."""
    return {name: SAFETENSORS if name.endswith(".safetensors") else TOKENIZER for name in names}


def write_weights(path: Path) -> Path:
    """Write a whole file without any tensor, of the kind that its suffix names."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(GGUF if path.suffix == ".gguf" else SAFETENSORS)
    return path


def write_model(folder: Path, *, transformer: str = "transformer/0.safetensors") -> Path:
    """Write a folder that has all files of a model, all of them empty."""
    for name in (transformer, "text_encoder/0.safetensors", "vae/0.safetensors"):
        write_weights(folder / name)
    (folder / "tokenizer").mkdir(exist_ok=True)
    (folder / "tokenizer" / "tokenizer.json").write_bytes(TOKENIZER)
    return folder
