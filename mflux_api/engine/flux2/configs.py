"""The sizes of a model's three networks, read from its own config files, or from its tensors where it has none."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from mflux_api.engine.flux2.files import Config, read_json, read_json_if_present, read_shards
from mflux_api.engine.flux2.schedule import Schedule
from mflux_api.engine.flux2.shapes import is_guided, tensors_of
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
PARTS = ("transformer", "text_encoder", "tokenizer", "vae")
REFERENCE_TEXT_LENGTH = 512


@dataclass(frozen=True)
class Layout:
    """What a checkpoint folder says of itself, weights aside.

    `distilled`: guidance is fixed at 1 (`says_distilled`: the folder itself tells); `cached_references`: references
    are seen once (9b-kv); `guided`: guidance is an input of the transformer (dev); `layers`: the text encoder's hidden
    states that are stacked; `text_length`: tokens a prompt is padded to;
    `transformer`, `text_encoder`, `vae`: their config.json, empty where the folder has none (mflux-save).
    """

    folder: Path
    distilled: bool
    says_distilled: bool
    cached_references: bool
    guided: bool
    layers: tuple[int, ...]
    text_length: int
    schedule: Schedule
    transformer: Config
    text_encoder: Config
    vae: Config


def read_layout(folder: Path) -> Layout:
    """Read the folder's own description. Raises ModelNotFound, ModelIncomplete, ModelCorrupt or ModelUnsupported."""
    _check_folder(folder)
    index = read_json_if_present(folder / "model_index.json")
    guided = _is_guided(folder, index)
    if guided:
        _check_parts(folder)
    text_encoder = read_json_if_present(folder / "text_encoder" / "config.json")
    return Layout(
        folder=folder,
        distilled=bool(index.get("is_distilled", _is_distilled_by_default(index))),
        says_distilled="is_distilled" in index,
        cached_references=_cached_references(folder, index),
        guided=guided,
        layers=_named_layers(index, text_encoder, default=DEV_LAYERS if guided else REFERENCE_LAYERS),
        text_length=int(index.get("max_sequence_length", REFERENCE_TEXT_LENGTH)),
        schedule=Schedule.from_config(read_json_if_present(folder / "scheduler" / "scheduler_config.json")),
        transformer=_component_config(folder, "transformer", index),
        text_encoder=text_encoder if not index else _component_config(folder, "text_encoder", index),
        vae=_component_config(folder, "vae", index),
    )


def overridden(layout: Layout, *, distilled: bool | None, cached_references: bool | None, insist: bool) -> Layout:
    """The layout with what the registry knows, where the folder is silent or the registry insists."""
    if distilled is not None and (insist or not layout.says_distilled):
        layout = replace(layout, distilled=distilled)
    if cached_references is not None:
        layout = replace(layout, cached_references=cached_references)
    return layout


def _check_folder(folder: Path) -> None:
    if not folder.is_dir():
        raise ModelNotFound(f"There is no model folder at {folder}.", path=str(folder))
    if not (folder / "model_index.json").exists() and not (folder / "transformer").is_dir():
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


def _is_guided(folder: Path, index: Config) -> bool:
    """Whether it is a FLUX.2-dev: by its index, or without one by a guidance embedding among the tensors."""
    if index:
        return bool(index.get("_class_name") == DEV_PIPELINE)
    transformer = folder / "transformer"
    return any(transformer.glob("*.safetensors")) and is_guided(tensors_of(read_shards(transformer)))


def _check_parts(folder: Path) -> None:
    missing = [name for name in PARTS if not _has_part(folder / name)]
    if missing:
        wanted = " ".join(f"--include '{name}/*'" for name in missing)
        raise ModelIncomplete(
            f"{folder} has no {' and no '.join(missing)} of FLUX.2-dev. The rest is in {DEV_REPOSITORY}, which is "
            "gated: accept its licence there, set HF_TOKEN to a token of that account, and "
            f"hf download {DEV_REPOSITORY} {wanted} --local-dir {folder}",
            path=str(folder),
            missing=missing,
        )


def _has_part(folder: Path) -> bool:
    wanted = "tokenizer*" if folder.name == "tokenizer" else "*.safetensors"
    return any(folder.glob(wanted))


def _named_layers(*configs: Mapping[str, Any], default: tuple[int, ...]) -> tuple[int, ...]:
    for config in configs:
        if "text_encoder_out_layers" in config:
            return tuple(int(layer) for layer in config["text_encoder_out_layers"])
    return default


def _component_config(folder: Path, name: str, index: Config) -> Config:
    path = folder / name / "config.json"
    return read_json(path) if index else read_json_if_present(path)
