"""The sizes of a model's three networks, read from its own config files, or from its tensors where it has none."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mflux_api.checkpoints import components
from mflux_api.checkpoints.inferred_config import is_guided, tensors_of, transformer_config
from mflux_api.checkpoints.safetensors import Config, read_json, read_json_if_present
from mflux_api.errors import ModelIncomplete, ModelNotFound, ModelUnsupported

DEV_REPOSITORY = "black-forest-labs/FLUX.2-dev"
DEV_PIPELINE = "Flux2Pipeline"
PIPELINES = {
    "Flux2KleinPipeline": False,
    "Flux2KleinInpaintPipeline": False,
    "Flux2KleinKVPipeline": True,
    DEV_PIPELINE: False,
}
REFERENCE_LAYERS = (9, 18, 27)
DEV_LAYERS = (10, 20, 30)
# Whose text encoder, tokenizer and VAE belong to a transformer of so many hidden units.
REPOSITORIES = {
    3072: "black-forest-labs/FLUX.2-klein-4B",
    4096: "black-forest-labs/FLUX.2-klein-9B",
    6144: DEV_REPOSITORY,
}
REFERENCE_TEXT_LENGTH = 512
# Options of diffusers' schedulers that no FLUX.2 has.
OTHER_SCHEDULES = (
    "use_karras_sigmas",
    "use_exponential_sigmas",
    "use_beta_sigmas",
    "use_flow_sigmas",
    "invert_sigmas",
    "stochastic_sampling",
)


@dataclass(frozen=True)
class Layout:
    """What a checkpoint folder says of itself, weights aside.

    `file`: the transformer's, where it was named instead of the folder.
    `distilled`: guidance is fixed at 1 (`says_distilled`: the folder itself tells); `cached_references`: references
    are seen once (9b-kv); `guided`: guidance is an input of the transformer (dev); `layers`: the text encoder's hidden
    states that are stacked; `text_length`: tokens a prompt is padded to;
    `language_model`: the text encoder can write, as published ones can;
    `scheduler`: its config.json; `transformer`, `text_encoder`, `vae`: theirs, empty where the
    folder has none (mflux-save).
    """

    folder: Path
    file: Path | None
    distilled: bool
    says_distilled: bool
    cached_references: bool
    guided: bool
    layers: tuple[int, ...]
    text_length: int
    language_model: bool
    scheduler: Config
    transformer: Config
    text_encoder: Config
    vae: Config


def read_layout(path: Path) -> Layout:
    """Read a folder's own description, or that of the folder around a transformer's file.

    Raises ModelNotFound, ModelIncomplete, ModelCorrupt or ModelUnsupported.
    """
    folder, file = components.root(path)
    _check_folder(folder, file)
    index = read_json_if_present(folder / "model_index.json")
    alone = bool(components.loose(folder, "transformer", file))
    guided = _is_guided(folder, file, index)
    if guided or alone:
        _check_parts(folder, file, guided=guided)
    text_encoder = _text_encoder_config(folder, index)
    return Layout(
        folder=folder,
        file=file,
        distilled=bool(index.get("is_distilled", _is_distilled_by_default(index))),
        says_distilled="is_distilled" in index,
        cached_references=_cached_references(folder, index),
        guided=guided,
        layers=_named_layers(index, text_encoder, default=DEV_LAYERS if guided else REFERENCE_LAYERS),
        text_length=int(index.get("max_sequence_length", REFERENCE_TEXT_LENGTH)),
        language_model=bool(index.get("language_model", True)),
        scheduler=_scheduler_config(folder),
        # A file that came alone is described by its tensors.
        transformer=_component_config(folder, "transformer", {} if alone else index),
        text_encoder=text_encoder,
        vae=_component_config(folder, "vae", index),
    )


def overridden(layout: Layout, *, distilled: bool | None, cached_references: bool | None, insist: bool) -> Layout:
    """The layout with what the registry knows, where the folder is silent or the registry insists."""
    if distilled is not None and (insist or not layout.says_distilled):
        layout = replace(layout, distilled=distilled)
    if cached_references is not None:
        layout = replace(layout, cached_references=cached_references)
    return layout


def _check_folder(folder: Path, file: Path | None) -> None:
    if not folder.is_dir():
        raise ModelNotFound(f"There is no model folder at {folder}.", path=str(folder))
    described = (folder / "model_index.json").exists() or (folder / "transformer").is_dir()
    if not described and not components.loose(folder, "transformer", file):
        found = ", ".join(sorted(path.name for path in folder.iterdir())[:8]) or "nothing"
        raise ModelUnsupported(
            f"{folder} is not a FLUX.2 checkpoint: no model_index.json, no transformer (found: {found}).",
            path=str(folder),
        )


def _cached_references(folder: Path, index: Config) -> bool:
    name = index.get("_class_name", "Flux2KleinPipeline")
    if name not in PIPELINES:
        raise ModelUnsupported(
            f"{folder} holds a {name}; supported are {', '.join(PIPELINES)}.", path=str(folder), pipeline=name
        )
    return PIPELINES[name]


def _is_distilled_by_default(index: Config) -> bool:
    # diffusers' own defaults: the KV pipeline is distilled, the plain one is not. A folder without
    # an index (mflux-save) is taken for a distilled klein unless the registry says otherwise.
    return not index or index.get("_class_name") == "Flux2KleinKVPipeline"


def _is_guided(folder: Path, file: Path | None, index: Config) -> bool:
    """Whether it is a FLUX.2-dev: by its index, or without one by a guidance embedding among the tensors."""
    if index and file is None:
        return bool(index.get("_class_name") == DEV_PIPELINE)
    here = any((folder / "transformer").glob("*.safetensors")) or bool(components.loose(folder, "transformer", file))
    return here and is_guided(tensors_of(components.read(folder, "transformer", file)))


def _check_parts(folder: Path, file: Path | None, *, guided: bool) -> None:
    missing = components.missing(folder, file)
    if missing:
        wanted = " ".join(f"--include '{name}/*'" for name in missing)
        repository = DEV_REPOSITORY if guided else _repository(folder, file)
        raise ModelIncomplete(
            f"{folder} has no {' and no '.join(missing)} of FLUX.2. The rest is in {repository}, which may be "
            "gated: then accept its licence there, set HF_TOKEN to a token of that account, and "
            f"hf download {repository} {wanted} --local-dir {folder}",
            path=str(folder),
            missing=missing,
        )


def _repository(folder: Path, file: Path | None) -> str:
    """Where the other parts of a transformer's model are."""
    config = transformer_config(tensors_of(components.read(folder, "transformer", file)), None)
    hidden = int(config["num_attention_heads"]) * int(config["attention_head_dim"])
    return REPOSITORIES.get(hidden, "the repository of its model")


def _scheduler_config(folder: Path) -> Config:
    """Raises ModelUnsupported for noise levels of a kind that FLUX.2 does not use."""
    config = read_json_if_present(folder / "scheduler" / "scheduler_config.json")
    for name in OTHER_SCHEDULES:
        if config.get(name):
            raise ModelUnsupported(f"The scheduler option {name} is not supported.", option=name)
    return config


def _text_encoder_config(folder: Path, index: Config) -> Config:
    """What is written of it, or a GGUF file's own description."""
    if components.loose(folder, "text_encoder"):
        written = _component_config(folder, "text_encoder", {})
        return written or components.encoder_config(components.read(folder, "text_encoder"))
    return _component_config(folder, "text_encoder", index)


def _named_layers(*configs: Mapping[str, Any], default: tuple[int, ...]) -> tuple[int, ...]:
    for config in configs:
        if "text_encoder_out_layers" in config:
            return tuple(int(layer) for layer in config["text_encoder_out_layers"])
    return default


def _component_config(folder: Path, name: str, index: Config) -> Config:
    path = folder / name / "config.json"
    return read_json(path) if index else read_json_if_present(path)
