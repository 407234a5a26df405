"""Detect a FLUX.2 checkpoint by a folder's files, and measure and fingerprint model folders."""

import contextlib
import hashlib
import json
import struct
from pathlib import Path

from mflux_api.checkpoints.file_kinds import list_files

WEIGHT_COMPONENTS = ("transformer", "text_encoder", "vae")
# A transformer or a text encoder may be a single file.
SINGLE_FILE_SUFFIXES = (".gguf", ".safetensors")


def is_checkpoint(folder: Path) -> bool:
    """Return whether a folder looks like FLUX.2 as diffusers or mflux write it.

    The pipeline's name is checked too, because other pipelines have the same folders.
    """
    return all(_has_component(folder, part) for part in WEIGHT_COMPONENTS) and _read_pipeline_name(folder).startswith(
        "Flux2"
    )


def _has_component(folder: Path, part: str) -> bool:
    """Return whether there are weights in the component's folder or, except for the VAE, beside it.

    What the weights are is checked on loading.
    """
    places = [folder / part] if part == "vae" else [folder / part, folder]
    return any(_find_weight_files(place) for place in places)


def _find_weight_files(folder: Path) -> list[Path]:
    return [path for path in list_files(folder) if path.suffix in SINGLE_FILE_SUFFIXES]


def _read_pipeline_name(folder: Path) -> str:
    try:
        return str(json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"])
    except FileNotFoundError:
        return "Flux2"  # mflux writes no index.
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return ""


def measure_disk_usage(folder: Path) -> int:
    """Return a model's bytes on disk. Links to the Hugging Face cache are followed; each file counts once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        # A file may have been deleted since it was listed.
        with contextlib.suppress(OSError):
            if path.is_file():
                stat = path.stat()
                sizes[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(sizes.values())


def compute_fingerprint(folder: Path) -> str | None:
    """Return a SHA-256 over names, sizes and headers of a model's weight files; None without such files.

    The whole files are not read: 8 GB would take a minute.
    """
    digest = hashlib.sha256()
    files = _find_weight_files(folder / "transformer") or _find_weight_files(folder)
    for path in files:
        with path.open("rb") as stream:
            head = stream.read(8)
            (length,) = struct.unpack("<Q", head) if len(head) == 8 else (0,)
            digest.update(f"{path.name}:{path.stat().st_size}:".encode() + head + stream.read(min(length, 1 << 24)))
    return digest.hexdigest() if files else None
