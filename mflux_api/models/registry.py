"""The model registry: maps names to checkpoint folders."""

import difflib
import functools
import logging
import os
import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import yaml

from mflux_api.checkpoints.capabilities import Capabilities, ModelFacts
from mflux_api.checkpoints.detection import SINGLE_FILE_SUFFIXES, WEIGHT_COMPONENTS
from mflux_api.checkpoints.families import DEFAULT_FAMILY, FAMILIES, detect_family, is_whole_model
from mflux_api.errors import ModelIncomplete, ModelNotDownloaded, ModelNotFound, ModelUnsupported
from mflux_api.models.folders import list_entries, normalise_name
from mflux_api.resources import find_resource

REGISTRY_FILE = find_resource("configs/models.yaml")
EMBEDDED_MODELS_DIR = find_resource("models")
CLOUD = "cloud-names"
# Excludes weights beside the folders: they repeat the transformer in one file (64 GB for FLUX.2-dev).
WITHOUT_REPEATS = " --include '*/*' '*.json'"
# Files that a model with only a transformer of its own takes from another model's repository (`rest`).
COMPANION_FILES = (
    "model_index.json",
    "transformer/config.json",
    "text_encoder/*",
    "tokenizer/*",
    "scheduler/*",
    "vae/*",
)
LONGEST_NAME = 100
# Missing files that a message names.
SHOWN = 3
logger = logging.getLogger(__name__)
FLUX1 = re.compile(r"flux[._ -]?1(?!\d).*|(flux-)?(schnell|dev|krea|kontext|fill|redux)(-.*)?", re.IGNORECASE)


@dataclass(frozen=True, kw_only=True)
class ModelSpec:
    """One entry of the registry; `configs/models.yaml` explains the fields."""

    name: str
    family: str = DEFAULT_FAMILY
    label: str = ""
    variant_of: str | None = None
    variant: str = "full"
    demo: bool = False
    examples: tuple[str, ...] = ()
    description: str = ""
    folder: str = ""
    repository: str | None = None
    revision: str | None = None
    files: tuple[str, ...] = ()
    rest: str = ""
    distilled: bool | None = None
    overrides: bool = False
    cached_references: bool | None = None
    stored_bits: int | None = None
    quantize: int | None = None
    steps: int | None = None
    guidance: float | None = None
    side: int | None = None
    size_gb: float | None = None
    parameters: tuple[float, ...] = ()
    licence: str = ""
    gated: bool = False
    unavailable: str = ""
    guided: bool = False

    @property
    def facts(self) -> ModelFacts:
        """The fields that its family reads."""
        return ModelFacts(
            distilled=self.distilled,
            guidance_embeds=self.guided,
            cached_references=self.cached_references,
            overrides=self.overrides,
        )

    @property
    def capabilities(self) -> Capabilities:
        """The model's capabilities, as far as they are known without its folder."""
        return self.adjust(FAMILIES[self.family].capabilities_of(self.facts))

    @property
    def bits(self) -> int | None:
        """Bits per weight in memory; None if its weights are not quantized."""
        return self.stored_bits if self.quantize is None else self.quantize

    @property
    def url(self) -> str | None:
        """Address of the model's own page."""
        return None if self.repository is None else f"https://huggingface.co/{self.repository}"

    @property
    def example_prompts(self) -> tuple[str, ...]:
        """Prompts that the model paints well; empty for one that needs a picture."""
        return self.examples or FAMILIES[self.family].examples

    def adjust(self, can: Capabilities) -> Capabilities:
        """Return `can` with this entry's own defaults. Quantized weights have no `bits`: they stay as they are."""
        return replace(
            can,
            default_steps=can.default_steps if self.steps is None else self.steps,
            default_guidance=can.default_guidance if self.guidance is None else self.guidance,
            native_side=can.native_side if self.side is None else self.side,
            bits=can.bits if self.bits is None else (),
        )


@dataclass(frozen=True)
class ResolvedModel:
    """A model and its folder, or its transformer's file if that was named."""

    spec: ModelSpec
    folder: Path


@functools.cache
def load_registry() -> dict[str, ModelSpec]:
    """Return all models by name, including the variants that are quantized while loading (NAME-N-bit)."""
    entries = {name: entry for name, entry in _read_registry_file().items() if name != CLOUD}
    return {spec.name: spec for name, entry in entries.items() for spec in _expand_variants(name, entry)}


@functools.cache
def load_cloud_names() -> dict[str, str | None]:
    """Return names of cloud-only models and the local model used in place of each; None means the default model."""
    found: dict[str, str | None] = _read_registry_file()[CLOUD]
    return found


def _read_registry_file() -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(REGISTRY_FILE.read_text(encoding="utf-8"))
    return found


def _expand_variants(name: str, entry: dict[str, Any]) -> Iterator[ModelSpec]:
    lists = {field: tuple(entry.get(field, ())) for field in ("files", "examples", "parameters")}
    spec = ModelSpec(name=name, **{"folder": name, "label": name, **entry, **lists})
    yield spec
    for bits in spec.capabilities.bits:
        yield replace(spec, name=f"{name}-{bits}-bit", quantize=bits, variant_of=name, variant=f"{bits} bits")


def find_spec(name: str) -> ModelSpec:
    """Return the registry's entry for a name, in any case. Raises ModelNotFound with similar names."""
    spec = load_registry().get(name.lower())
    if spec is None:
        raise _not_found(name)
    return spec


def _not_found(name: str) -> ModelNotFound:
    shown = name if len(name) <= LONGEST_NAME else f"{name[: LONGEST_NAME - 1]}…"
    names = [spec.name for spec in load_registry().values() if spec.quantize is None]
    if FLUX1.fullmatch(name):
        message = f"Model '{shown}' not found. Flux1 models removed. Use flux2-klein-4b or flux2-klein-9b"
        return ModelNotFound(message, model=shown, available_models=names)
    near = difflib.get_close_matches(shown.lower(), load_registry(), n=3)
    hint = f"Did you mean {' or '.join(near)}?" if near else "`mflux-api models` lists the names."
    message = f"Model '{shown}' not found: neither a known name nor a folder. {hint}"
    return ModelNotFound(message, model=shown, suggestions=near, available_models=names)


def resolve_model(model: str | Path, models_dir: Path) -> ResolvedModel:
    """Find a model by name, by folder or by its transformer's file. The registry takes precedence over a folder.

    Raises ModelNotFound for an unknown name or a missing folder, ModelNotDownloaded for a known model without files,
    ModelUnsupported for one that this version cannot run.
    """
    if isinstance(model, str) and model.lower() in load_registry():
        return _resolve_spec(load_registry()[model.lower()], models_dir)
    path = Path(model).expanduser()
    if path.is_dir():
        return ResolvedModel(ModelSpec(name=path.resolve().name, family=detect_family(path).name), path)
    if path.suffix in SINGLE_FILE_SUFFIXES and path.is_file():
        return ResolvedModel(ModelSpec(name=path.stem), path)
    if isinstance(model, Path) or path.parent != Path():
        raise ModelNotFound(f"There is no model folder at {path}.", path=str(path))
    return _resolve_spec(find_spec(str(model)), models_dir)


def resolve_client_model(name: str, models_dir: Path, *, follow_links: bool = True) -> ResolvedModel:
    """Find a model named by a client: in the registry or as a folder in `models_dir`, never a path.

    `follow_links`: a folder may be a link out of `models_dir`. Raises what `resolve_model` raises, and ModelIncomplete
    for a folder that lacks files.
    """
    if name.lower() in load_registry():
        try:
            return _resolve_spec(load_registry()[name.lower()], models_dir)
        except ModelNotDownloaded as error:
            # Strip local paths from the error.
            raise ModelNotDownloaded(
                f"{name.lower()} is not on this machine: it must be downloaded first.", **error.details
            ) from None
    folder = _find_model_folder(name, models_dir, follow_links=follow_links)
    if folder is None:
        raise _not_found(name)
    spec = _make_folder_spec(folder)
    missing = FAMILIES[spec.family].find_missing(folder, ())
    if missing:
        raise ModelIncomplete(
            f"{spec.name} is not complete here: missing or cut off are {', '.join(missing[:SHOWN])}. "
            "Copy its folder again.",
            model=spec.name,
            missing=missing,
        )
    return ResolvedModel(spec, folder)


def find_unregistered_models(models_dir: Path, *, follow_links: bool = True) -> Iterator[ModelSpec]:
    """Yield the checkpoints in `models_dir` that are not in the registry. Each is named after its folder.

    Folders that lack files are skipped, and logged once.
    """
    for folder in _list_model_folders(models_dir, follow_links=follow_links):
        spec = _make_folder_spec(folder)
        missing = FAMILIES[spec.family].find_missing(folder, ())
        if not missing:
            yield spec
        elif (folder, tuple(missing)) not in _reported_folders:
            _reported_folders.add((folder, tuple(missing)))
            logger.warning("%s is no model yet: missing or cut off are %s.", folder, ", ".join(missing[:SHOWN]))


_reported_folders: set[tuple[Path, tuple[str, ...]]] = set()


def _make_folder_spec(folder: Path) -> ModelSpec:
    name, family = unicodedata.normalize("NFC", folder.name), detect_family(folder).name
    return ModelSpec(name=name, label=name, family=family, folder=folder.name, description="A folder of your own")


def _list_model_folders(models_dir: Path, *, follow_links: bool) -> list[Path]:
    """Return the folders with files of a model, whatever their names: blanks and accents are as good as others."""
    return [
        path
        for path in list_entries(models_dir, models_dir, follow_links=follow_links)
        if _is_model_name(path.name) and path.is_dir() and is_whole_model(path)
    ]


def _is_model_name(name: str) -> bool:
    return name.isprintable() and len(name) <= LONGEST_NAME and name.lower() not in _list_taken_names()


def _find_model_folder(name: str, models_dir: Path, *, follow_links: bool) -> Path | None:
    """Find a folder among those that are there, so that no path made up by a client reaches the file system."""
    if not _is_model_name(name):
        return None
    folders = _list_model_folders(models_dir, follow_links=follow_links)
    for change in (lambda text: unicodedata.normalize("NFC", text), normalise_name):
        for folder in folders:
            if change(folder.name) == change(name):
                return folder
    return None


@functools.cache
def _list_taken_names() -> frozenset[str]:
    return frozenset(name for spec in load_registry().values() for name in (spec.name, spec.folder.lower()))


def is_downloaded(spec: ModelSpec, models_dir: Path) -> bool:
    """Return whether the model's files are on this machine."""
    try:
        _find_folder(spec, models_dir)
    except ModelNotDownloaded:
        return False
    return True


def _resolve_spec(spec: ModelSpec, models_dir: Path) -> ResolvedModel:
    if spec.unavailable:
        raise ModelUnsupported(spec.unavailable, model=spec.name)
    return ResolvedModel(spec, _find_folder(spec, models_dir))


def _find_folder(spec: ModelSpec, models_dir: Path) -> Path:
    for parent in (models_dir, EMBEDDED_MODELS_DIR):
        if not find_missing_files(spec, parent / spec.folder):
            return parent / spec.folder
    snapshot = find_snapshot(spec)
    if snapshot is None or find_missing_files(spec, snapshot):
        raise ModelNotDownloaded(
            f"{spec.name} is not on this machine. Download it: {_format_download_command(spec, models_dir)}",
            model=spec.name,
            repository=spec.repository,
        )
    return snapshot


def _format_download_command(spec: ModelSpec, models_dir: Path) -> str:
    wanted = " ".join([str(spec.repository), *spec.files])
    command = f"hf download {wanted} --local-dir {models_dir / spec.folder}"
    if spec.rest:
        others = " ".join(f"--include '{pattern}'" for pattern in COMPANION_FILES)
        command += f" and hf download {find_spec(spec.rest).repository} {others} --local-dir {models_dir / spec.folder}"
    if not spec.gated:
        return command
    return (
        f"accept its licence on {spec.url}, set HF_TOKEN to its token, then "
        f"{command if spec.files else command + WITHOUT_REPEATS}"
    )


def find_missing_files(spec: ModelSpec, folder: Path) -> list[str]:
    """Return the files and components of a model that are missing in a folder, or cut off."""
    if not folder.is_dir():
        return [*spec.files, *WEIGHT_COMPONENTS]
    return FAMILIES[spec.family].find_missing(folder, spec.files)


def find_snapshot(spec: ModelSpec) -> Path | None:
    """Return the repository's folder in the Hugging Face cache, None if it is not there. Never uses the network."""
    cache = _find_hub_cache()
    if spec.repository is None or not (cache / f"models--{spec.repository.replace('/', '--')}").is_dir():
        return None
    # Imported late: it takes 25 MiB, and is needed only for models in the cache.
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(spec.repository, revision=spec.revision, cache_dir=cache, local_files_only=True))
    except (LocalEntryNotFoundError, HfHubHTTPError):
        return None


def _find_hub_cache() -> Path:
    """Return the Hugging Face cache's folder (huggingface.co/docs/huggingface_hub, "Environment variables")."""
    read = os.environ.get
    home = read("HF_HOME") or f"{read('XDG_CACHE_HOME') or '~/.cache'}/huggingface"
    cache = read("HF_HUB_CACHE") or read("HUGGINGFACE_HUB_CACHE") or f"{home}/hub"
    return Path(os.path.expandvars(cache)).expanduser()
