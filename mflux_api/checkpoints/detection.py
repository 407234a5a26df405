"""Tell from a folder's files whether it holds a model, and of which kind."""

import contextlib
import hashlib
import json
import struct
from pathlib import Path

WEIGHT_COMPONENTS = ("transformer", "text_encoder", "vae")
# A transformer or text encoder may be one file.
SINGLE_FILE_SUFFIXES = (".gguf", ".safetensors")


def is_checkpoint(folder: Path) -> bool:
    """Whether it looks like FLUX.2 klein as diffusers or mflux write it; other pipelines have the same folders."""
    return all(_has_component(folder, part) for part in WEIGHT_COMPONENTS) and _read_pipeline_name(folder).startswith(
        "Flux2"
    )


def _has_component(folder: Path, part: str) -> bool:
    """Whether there are weights in the part's folder or, VAE aside, beside it: what they are is seen on loading."""
    places = [folder / part] if part == "vae" else [folder / part, folder]
    return any(_find_weight_files(place) for place in places)


def _find_weight_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("*") if path.suffix in SINGLE_FILE_SUFFIXES)


def _read_pipeline_name(folder: Path) -> str:
    try:
        return str(json.loads((folder / "model_index.json").read_text(encoding="utf-8"))["_class_name"])
    except FileNotFoundError:
        return "Flux2"  # mflux writes no index
    except (OSError, ValueError, LookupError, TypeError):
        return ""


def measure_disk_usage(folder: Path) -> int:
    """What a model takes on disk, links to the Hugging Face cache followed, each file once."""
    sizes: dict[tuple[int, int], int] = {}
    for path in folder.rglob("*"):
        # A file may be gone since it was listed.
        with contextlib.suppress(OSError):
            if path.is_file():
                stat = path.stat()
                sizes[stat.st_dev, stat.st_ino] = stat.st_size
    return sum(sizes.values())


def compute_fingerprint(folder: Path) -> str | None:
    """SHA-256 over names, sizes and headers of a model's weights: reading 8 GB to name it would take a minute."""
    digest = hashlib.sha256()
    files = _find_weight_files(folder / "transformer") or _find_weight_files(folder)
    for path in files:
        with path.open("rb") as stream:
            head = stream.read(8)
            (length,) = struct.unpack("<Q", head) if len(head) == 8 else (0,)
            digest.update(f"{path.name}:{path.stat().st_size}:".encode() + head + stream.read(min(length, 1 << 24)))
    return digest.hexdigest() if files else None
