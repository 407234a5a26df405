"""The model registry: names to checkpoint folders."""

import difflib
import functools
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

from mflux_api.errors import ModelNotDownloaded, ModelNotFound

PROJECT = Path(__file__).resolve().parents[2]
REGISTRY = PROJECT / "configs" / "models.yaml"
EMBEDDED = PROJECT / "models"


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One entry of the registry; `configs/models.yaml` explains the fields."""

    name: str
    description: str = ""
    folder: str = ""
    repository: str | None = None
    revision: str | None = None
    distilled: bool | None = None
    overrides: bool = False
    cached_references: bool | None = None
    bits: tuple[int, ...] = ()
    stored_bits: int | None = None
    quantize: int | None = None
    steps: int = 4
    guidance: float = 1.0
    side: int = 1024


@dataclass(frozen=True)
class Located:
    """A model and the folder its files are in."""

    spec: ModelSpec
    folder: Path


@functools.cache
def registry() -> dict[str, ModelSpec]:
    """Every name that may be asked for, the runtime-quantized ones (NAME-N-bit) included."""
    entries: dict[str, dict[str, Any]] = yaml.safe_load(REGISTRY.read_text(encoding="utf-8"))
    return {spec.name: spec for name, entry in entries.items() for spec in _variants(name, entry)}


def _variants(name: str, entry: dict[str, Any]) -> Iterator[ModelSpec]:
    spec = ModelSpec(name=name, **{"folder": name, **entry, "bits": tuple(entry.get("bits", ()))})
    yield spec
    for bits in spec.bits:
        yield replace(spec, name=f"{name}-{bits}-bit", quantize=bits, bits=())


def find(name: str) -> ModelSpec:
    """The registry's entry for a name, in any case. Raises ModelNotFound with the nearest names."""
    spec = registry().get(name.lower())
    if spec is None:
        near = difflib.get_close_matches(name.lower(), registry(), n=3)
        hint = f"Did you mean {' or '.join(near)}?" if near else "`python -m mflux_api models` lists the names."
        raise ModelNotFound(
            f"Model '{name}' not found: neither a known name nor a folder. {hint}", model=name, suggestions=near
        )
    return spec


def locate(model: str | Path, models_dir: Path) -> Located:
    """The folder of a model given by name or by path. A name in the registry wins over a folder of that name.

    Raises ModelNotFound for an unknown name or a missing folder, ModelNotDownloaded for a known model without files.
    """
    if isinstance(model, str) and model.lower() in registry():
        spec = registry()[model.lower()]
        return Located(spec, _folder(spec, models_dir))
    path = Path(model).expanduser()
    if path.is_dir():
        return Located(ModelSpec(name=path.resolve().name), path)
    if isinstance(model, Path) or path.parent != Path():
        raise ModelNotFound(f"There is no model folder at {path}.", path=str(path))
    return Located(find(str(model)), path)


def is_here(spec: ModelSpec, models_dir: Path) -> bool:
    """Whether the model's files are on this machine."""
    try:
        _folder(spec, models_dir)
    except ModelNotDownloaded:
        return False
    return True


def _folder(spec: ModelSpec, models_dir: Path) -> Path:
    for parent in (models_dir, EMBEDDED):
        if (parent / spec.folder).is_dir():
            return parent / spec.folder
    snapshot = _snapshot(spec)
    if snapshot is None:
        raise ModelNotDownloaded(
            f"{spec.name} is not on this machine. Download it: "
            f"hf download {spec.repository} --local-dir {models_dir / spec.folder}",
            model=spec.name,
            repository=spec.repository,
        )
    return snapshot


def _snapshot(spec: ModelSpec) -> Path | None:
    """The repository in the Hugging Face cache, if it was downloaded there; never over the network."""
    if spec.repository is None:
        return None
    try:
        return Path(snapshot_download(spec.repository, revision=spec.revision, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError):
        return None
