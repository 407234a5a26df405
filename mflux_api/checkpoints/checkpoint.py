"""A FLUX.2 checkpoint on disk: its components, their configs and headers. Cached until a file changes."""

import functools
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

from mflux_api.checkpoints.components import COMPONENTS, Component, read_any_header
from mflux_api.checkpoints.file_kinds import list_files
from mflux_api.checkpoints.inferred_config import collect_tensors, has_guidance_embeds, infer_transformer_config
from mflux_api.checkpoints.safetensors import Config, read_json_if_present
from mflux_api.errors import ModelIncomplete, ModelNotFound, ModelUnsupported

DEV_REPOSITORY = "black-forest-labs/FLUX.2-dev"
DEV_PIPELINE = "Flux2Pipeline"
PIPELINES = {
    "Flux2KleinPipeline": False,
    "Flux2KleinInpaintPipeline": False,
    "Flux2KleinKVPipeline": True,
    DEV_PIPELINE: False,
}
KLEIN_OUT_LAYERS = (9, 18, 27)
DEV_LAYERS = (10, 20, 30)
# The repository with the text encoder, tokenizer and VAE of a transformer, by the transformer's hidden units.
REPOSITORIES = {
    3072: "black-forest-labs/FLUX.2-klein-4B",
    4096: "black-forest-labs/FLUX.2-klein-9B",
    6144: DEV_REPOSITORY,
}
DEFAULT_MAX_SEQUENCE_LENGTH = 512
# Options of diffusers' schedulers that no FLUX.2 model uses.
UNSUPPORTED_SCHEDULER_OPTIONS = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_flow_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
)


# Subfolders whose files belong to a checkpoint.
FOLDERS = (*COMPONENTS, "scheduler")
Stamp: TypeAlias = tuple[tuple[str, int, int, int], ...]


@dataclass(frozen=True, eq=False)
class Checkpoint:
    """The contents of a model's folder. The headers of a component are read on first use.

    `path`: the folder, or the transformer's file if that was named. `distilled`: guidance is fixed at 1;
    `declares_distilled`: the folder itself sets this. `cached_references`: references are processed once (9b-kv).
    `guidance_embeds`: guidance is an input of the transformer (dev). `out_layers`: the text encoder's hidden states
    that are stacked. `max_sequence_length`: tokens that a prompt is padded to. `has_language_model`: the text encoder
    can generate text, as published ones can. `scheduler`: its config. `tokenizer`: its folder.
    """

    path: Path
    folder: Path
    distilled: bool
    declares_distilled: bool
    cached_references: bool
    guidance_embeds: bool
    out_layers: tuple[int, ...]
    max_sequence_length: int
    has_language_model: bool
    scheduler: Config
    tokenizer: Path
    transformer: Component
    text_encoder: Component
    vae: Component

    @classmethod
    def read(cls, path: Path) -> "Checkpoint":
        """Read a folder, or the folder around a transformer's file. Cached until a file changes.

        Raises ModelNotFound, ModelIncomplete, ModelCorrupt or ModelUnsupported.
        """
        return _read(path, _stamp_files(path))

    @property
    def components(self) -> tuple[Component, Component, Component]:
        """Transformer, text encoder and VAE."""
        return self.transformer, self.text_encoder, self.vae

    def with_overrides(
        self, *, distilled: bool | None, cached_references: bool | None, override_folder: bool
    ) -> "Checkpoint":
        """Return a copy with the registry's values.

        `distilled` is used if the folder does not declare it, or with `override_folder`. None changes nothing.
        """
        changed = self
        if distilled is not None and (override_folder or not self.declares_distilled):
            changed = replace(changed, distilled=distilled)
        if cached_references is not None:
            changed = replace(changed, cached_references=cached_references)
        return changed


def _stamp_files(path: Path) -> Stamp:
    """Return a value that changes when any file of a checkpoint changes."""
    around, _ = _split_path(path)
    folders = (around, *(around / name for name in FOLDERS))
    return tuple(
        _stamp_entry(entry)
        for folder in folders
        if folder.is_dir()
        for entry in sorted(os.scandir(folder), key=lambda entry: entry.name)
    )


def _stamp_entry(entry: os.DirEntry[str]) -> tuple[str, int, int, int]:
    try:
        stat = entry.stat()
    except OSError:
        # A broken link, or a file deleted since it was listed.
        return entry.name, 0, 0, 0
    return entry.name, stat.st_mtime_ns, stat.st_size, stat.st_ino


@functools.lru_cache(maxsize=32)
def _read(path: Path, stamp: Stamp) -> Checkpoint:
    """Read a checkpoint. Cached until a file changes (`stamp`): a text encoder's GGUF header lists 150,000 tokens."""
    folder, file = _split_path(path)
    index = read_json_if_present(folder / "model_index.json")
    transformer, text_encoder, vae = _make_components(folder, file, index)
    _check_folder(folder, transformer)
    guidance_embeds = _has_guidance_embeds(transformer, index)
    if guidance_embeds or transformer.single_files:
        _check_complete(folder, [transformer, text_encoder, vae], guidance_embeds=guidance_embeds)
    text_encoder.check_config()
    checkpoint = Checkpoint(
        path=path,
        folder=folder,
        distilled=bool(index.get("is_distilled", _is_distilled_by_default(index))),
        declares_distilled="is_distilled" in index,
        cached_references=_has_cached_references(folder, index),
        guidance_embeds=guidance_embeds,
        out_layers=_find_out_layers(
            index, text_encoder.written_config, default=DEV_LAYERS if guidance_embeds else KLEIN_OUT_LAYERS
        ),
        max_sequence_length=int(index.get("max_sequence_length", DEFAULT_MAX_SEQUENCE_LENGTH)),
        has_language_model=bool(index.get("language_model", True)),
        scheduler=_read_scheduler_config(folder),
        tokenizer=folder / "tokenizer",
        transformer=transformer,
        text_encoder=text_encoder,
        vae=vae,
    )
    transformer.check_config()
    vae.check_config()
    return checkpoint


def _split_path(path: Path) -> tuple[Path, Path | None]:
    """Return the model's folder, and the transformer's file if `path` is that file."""
    if not path.is_file():
        return path, None
    parent = path.absolute().parent
    return (parent.parent if parent.name == "transformer" else parent), path


def _make_components(folder: Path, file: Path | None, index: Config) -> tuple[Component, Component, Component]:
    # Cached, because files beside the folders are tested for both the transformer and the text encoder.
    read_header = functools.cache(read_any_header)

    def component(name: str, file: Path | None = None) -> Component:
        return Component(name=name, folder=folder / name, file=file, indexed=bool(index), read_header=read_header)

    return component("transformer", file), component("text_encoder"), component("vae")


def _check_folder(folder: Path, transformer: Component) -> None:
    if not folder.is_dir():
        raise ModelNotFound(f"There is no model folder at {folder}.", path=str(folder))
    described = (folder / "model_index.json").exists() or transformer.folder.is_dir()
    if not described and not transformer.single_files:
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise ModelUnsupported(
            f"{folder} is not a FLUX.2 checkpoint: no model_index.json, no transformer (found: {found}).",
            path=str(folder),
        )


def _has_cached_references(folder: Path, index: Config) -> bool:
    name = index.get("_class_name", "Flux2KleinPipeline")
    if name not in PIPELINES:
        raise ModelUnsupported(
            f"{folder} holds a {name}; supported are {', '.join(PIPELINES)}.", path=str(folder), pipeline=name
        )
    return PIPELINES[name]


def _is_distilled_by_default(index: Config) -> bool:
    # diffusers' own defaults: the KV pipeline is distilled, the plain one is not. A folder without an index
    # (mflux-save) counts as a distilled klein unless the registry sets another value.
    return not index or index.get("_class_name") == "Flux2KleinKVPipeline"


def _has_guidance_embeds(transformer: Component, index: Config) -> bool:
    """Return whether it is a FLUX.2-dev: by its index or, without one, by the tensors of a guidance embedding."""
    if index and transformer.file is None:
        return bool(index.get("_class_name") == DEV_PIPELINE)
    return transformer.is_present and has_guidance_embeds(collect_tensors(transformer.shards))


def _check_complete(folder: Path, components: Sequence[Component], *, guidance_embeds: bool) -> None:
    transformer, text_encoder, vae = (component.is_present for component in components)
    tokenizer = bool(list_files(folder / "tokenizer", "tokenizer*"))
    present = {"transformer": transformer, "text_encoder": text_encoder, "tokenizer": tokenizer, "vae": vae}
    missing = [name for name, is_present in present.items() if not is_present]
    if missing:
        wanted = " ".join(f"--include '{name}/*'" for name in missing)
        repository = DEV_REPOSITORY if guidance_embeds else _find_repository(components[0])
        raise ModelIncomplete(
            f"{folder} has no {' and no '.join(missing)} of FLUX.2. The rest is in {repository}, which may be "
            "gated: then accept its licence there, set HF_TOKEN to a token of that account, and "
            f"hf download {repository} {wanted} --local-dir {folder}",
            path=str(folder),
            missing=missing,
        )


def _find_repository(transformer: Component) -> str:
    """Return the repository with the other components for a transformer."""
    config = infer_transformer_config(collect_tensors(transformer.shards), None)
    hidden = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    return REPOSITORIES.get(hidden, "the repository of its model")


def _read_scheduler_config(folder: Path) -> Config:
    """Read the scheduler's config. Raises ModelUnsupported for options that FLUX.2 does not use."""
    config = read_json_if_present(folder / "scheduler" / "scheduler_config.json")
    for name in UNSUPPORTED_SCHEDULER_OPTIONS:
        if config.get(name):
            raise ModelUnsupported(f"The scheduler option {name} is not supported.", option=name)
    return config


def _find_out_layers(*configs: Mapping[str, Any], default: tuple[int, ...]) -> tuple[int, ...]:
    for config in configs:
        if "text_encoder_out_layers" in config:
            return tuple(int(layer) for layer in config["text_encoder_out_layers"])
    return default
