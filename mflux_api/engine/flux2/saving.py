"""Save a loaded model in mflux's layout, with the config files needed to load it again."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import mflux.utils.version_util
import mlx.core as mx
from mlx import nn

from mflux_api.engine.flux2.tensors import Weights, list_parameters
from mflux_api.errors import InvalidRequest

if TYPE_CHECKING:
    from mflux_api.engine.flux2.pipeline import Pipeline

LARGEST_SHARD = 2 * 1024**3
CONFIG_FILES = (
    "model_index.json",
    "tokenizer",
    "scheduler",
    "transformer/config.json",
    "text_encoder/config.json",
    "vae/config.json",
    "vae/latent_rgb.json",
)


def save(pipeline: "Pipeline", folder: Path) -> None:
    """Write every component to `folder` atomically, without adapters. Raises InvalidRequest if it is not empty."""
    pipeline.adapters.remove()
    if folder.exists() and any(folder.iterdir()):
        raise InvalidRequest(f"{folder} is not empty; choose another folder to save to.", path=str(folder))
    folder.parent.mkdir(parents=True, exist_ok=True)
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    _write_components(pipeline, partial)
    if folder.exists():
        folder.rmdir()
    partial.rename(folder)


def _write_components(pipeline: "Pipeline", folder: Path) -> None:
    metadata = {
        "quantization_level": str(pipeline.bits),
        "mflux_version": mflux.utils.version_util.VersionUtil.get_mflux_version(),
    }
    _save_component(pipeline.transformer, folder / "transformer", metadata)
    _save_component(pipeline.autoencoder.vae, folder / "vae", metadata)
    # Save the text encoder last: if the networks take turns, loading it unloads the transformer.
    _save_component(pipeline.text_encoder, folder / "text_encoder", metadata)
    for name in CONFIG_FILES:
        _copy(pipeline.checkpoint.folder / name, folder / name)
    # A single file has no config. It was inferred from its tensors, which are stored differently in the new folder.
    for name, config in pipeline.loader.read_configs().items():
        path = folder / name / "config.json"
        if not path.exists():
            path.write_text(json.dumps(config, indent=2), encoding="utf-8")


def _save_component(module: nn.Module, folder: Path, metadata: dict[str, str]) -> None:
    folder.mkdir(parents=True)
    places: dict[str, str] = {}
    for number, shard in enumerate(_shards(list_parameters(module))):
        mx.save_safetensors(str(folder / f"{number}.safetensors"), shard, metadata)
        places.update(dict.fromkeys(shard, f"{number}.safetensors"))
    index = {"metadata": metadata, "weight_map": places}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2), encoding="utf-8")


def _shards(tensors: Weights) -> Iterator[Weights]:
    shard: Weights = {}
    size = 0
    for name, tensor in tensors.items():
        if shard and size + tensor.nbytes > LARGEST_SHARD:
            yield shard
            shard, size = {}, 0
        shard[name] = tensor
        size += tensor.nbytes
    yield shard


def _copy(source: Path, target: Path) -> None:
    if source.is_dir():
        shutil.copytree(source, target)
    elif source.exists():
        shutil.copy2(source, target)
