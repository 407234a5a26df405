"""Apply LoRA adapters to a loaded transformer and remove them without any change to its weights.

A file is first fitted to a skeleton of the transformer whose weights are never evaluated. Only if every layer fits, the
fitted layers are moved to the real transformer, where they wrap its unchanged linear layers.

mflux's mapping knows all names of layers in the blocks, but only some of the layers outside them. Source of the names
here: diffusers' converters (`loaders/lora_conversion_utils.py`).
"""

import contextlib
import io
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import mlx.core as mx
from mflux.models.common.lora.layer.fused_linear_lora_layer import FusedLoRALinear
from mflux.models.common.lora.layer.linear_lokr_layer import LoKrLinear
from mflux.models.common.lora.layer.linear_lora_layer import LoRALinear
from mflux.models.common.lora.mapping.lora_loader import LoRALoader
from mflux.models.common.lora.mapping.peft_lora_metadata import PeftLoRAMetadata
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mflux.models.flux2.weights.flux2_lora_mapping import Flux2LoRAMapping
from mlx import nn

from mflux_api.checkpoints.safetensors import read_shard
from mflux_api.checkpoints.tensor_names import OUTER as PUBLISHED
from mflux_api.errors import LoraInvalid, LoraNotFound, ModelCorrupt
from mflux_api.ipc.messages import LoraReport
from mflux_api.request import LoraUse

# Names in LoRA files -> mflux's names: first Black Forest Labs' names, then diffusers'.
OUTER = {
    **PUBLISHED,
    "time_guidance_embed.timestep_embedder.linear_1": "time_guidance_embed.linear_1",
    "time_guidance_embed.timestep_embedder.linear_2": "time_guidance_embed.linear_2",
    "time_guidance_embed.guidance_embedder.linear_1": "time_guidance_embed.guidance_linear_1",
    "time_guidance_embed.guidance_embedder.linear_2": "time_guidance_embed.guidance_linear_2",
}
PREFIXES = ("", "transformer.", "diffusion_model.", "base_model.model.")
DOTTED = {f"{prefix}{theirs}": f"transformer.{ours}" for theirs, ours in OUTER.items() for prefix in PREFIXES}
KOHYA = {f"lora_unet_{theirs.replace('.', '_')}": f"transformer.{ours}" for theirs, ours in OUTER.items()}
KNOWN = DOTTED | KOHYA
FACTOR = re.compile(r"\.(lora_(A|B|up|down)(\.default)?(\.weight)?|alpha)$")


def map_lora_key(key: str) -> str:
    """Map a key of a LoRA file to the name in mflux's mapping. Removes PEFT's adapter name "default"."""
    factor = FACTOR.search(key)
    if factor is None:
        return key
    layer = key[: factor.start()]
    return KNOWN.get(layer, layer) + factor[0].replace(".default", "")


logger = logging.getLogger(__name__)
Wrapper: TypeAlias = LoRALinear | LoKrLinear | FusedLoRALinear
Stamp = tuple[str, int, int]


@dataclass(frozen=True)
class FittedLayer:
    """One adapter on one layer. `use_index`: its place in the uses. `unit_scale`: the layer's scale at a use of 1.0."""

    use_index: int
    layer: LoRALinear | LoKrLinear
    unit_scale: float


@dataclass(frozen=True)
class FittedAdapters:
    """Adapters fitted together.

    `stamps`: path, mtime and size of each file. `wrappers`: the wrapping layers by their path in the transformer.
    `layers`: every fitted layer. `reports`: one for each file.
    """

    stamps: tuple[Stamp, ...]
    wrappers: dict[str, Wrapper]
    layers: list[FittedLayer]
    reports: tuple[LoraReport, ...]


class AdapterSet:
    """The adapters that are applied to a transformer."""

    def __init__(self, transformer: Flux2Transformer, build_skeleton: Callable[[], Flux2Transformer]) -> None:
        self.transformer = transformer
        self.build_skeleton = build_skeleton
        self._applied: FittedAdapters | None = None
        self._originals: dict[str, nn.Module] = {}

    def apply(self, uses: tuple[LoraUse, ...]) -> tuple[LoraReport, ...]:
        """Apply exactly these adapters in place of the current ones.

        If the files are the same, only the scales are changed. A file that has changed on disk is read again. Raises
        LoraNotFound or LoraInvalid; after LoraInvalid no adapter is applied.
        """
        stamps = tuple(_stamp_file(use.path) for use in uses)
        if self._applied is None or self._applied.stamps != stamps:
            self.remove()
            if not uses:
                return ()
            self._attach(_fit_adapters(uses, stamps, self.build_skeleton()))
        return self._rescale(uses)

    def remove(self) -> None:
        """Restore the transformer's own layers."""
        for path, layer in self._originals.items():
            LoRALoader._replace_target_module(self.transformer, path, layer)
        self._originals, self._applied = {}, None

    def _attach(self, fitted: FittedAdapters) -> None:
        self._applied = fitted
        for path, wrapper in fitted.wrappers.items():
            layer = LoRALoader._get_target_module(self.transformer, path)
            self._originals[path] = layer
            _attach_base_layer(wrapper, layer)
            LoRALoader._replace_target_module(self.transformer, path, wrapper)

    def _rescale(self, uses: tuple[LoraUse, ...]) -> tuple[LoraReport, ...]:
        assert self._applied is not None
        for fit in self._applied.layers:
            fit.layer.scale = fit.unit_scale * uses[fit.use_index].scale
        return tuple(
            replace(report, path=use.path, scale=use.scale)
            for report, use in zip(self._applied.reports, uses, strict=True)
        )


def _stamp_file(path: str) -> Stamp:
    try:
        status = Path(path).stat()
    except OSError:
        raise LoraNotFound(f"There is no LoRA file at {path}.", path=path) from None
    return path, status.st_mtime_ns, status.st_size


def _fit_adapters(uses: tuple[LoraUse, ...], stamps: tuple[Stamp, ...], skeleton: Flux2Transformer) -> FittedAdapters:
    seen: set[int] = set()
    fits: list[FittedLayer] = []
    reports = []
    for number, use in enumerate(uses):
        tensors, metadata = _read_adapter(use.path)
        keys = _fit_adapter(skeleton, tensors, metadata, use.path)
        fresh = [
            layer
            for _, wrapper in _find_wrappers(skeleton)
            for layer in _list_lora_layers(wrapper)
            if id(layer) not in seen
        ]
        seen.update(map(id, fresh))
        if not fresh:
            raise LoraInvalid(_format_no_match(use.path, tensors), path=use.path)
        fits += [FittedLayer(number, layer, float(layer.scale)) for layer in fresh]
        reports.append(
            LoraReport(path=use.path, scale=use.scale, layers=len(fresh), keys=keys, total_keys=len(tensors))
        )
    wrappers = dict(_find_wrappers(skeleton))
    _check_wrappers(wrappers, uses)
    mx.eval([_factors(fit.layer) for fit in fits])
    return FittedAdapters(stamps, wrappers, fits, tuple(reports))


def _read_adapter(path: str) -> tuple[dict[str, mx.array], dict[str, str]]:
    if Path(path).suffix != ".safetensors":
        raise LoraInvalid(f"{path} is not a .safetensors file; other formats can run code.", path=path)
    try:
        shard = read_shard(Path(path))
    except ModelCorrupt as error:
        raise LoraInvalid(error.message, path=path) from error
    tensors = mx.load(path)
    assert isinstance(tensors, dict)
    broken = [name for name, tensor in tensors.items() if not mx.isfinite(tensor).all().item()]
    if broken:
        raise LoraInvalid(f"{path} holds values that are not finite, in {broken[0]}.", path=path)
    return {map_lora_key(name): tensor for name, tensor in tensors.items()}, shard.metadata


def _fit_adapter(skeleton: Flux2Transformer, tensors: dict[str, mx.array], metadata: dict[str, str], path: str) -> int:
    """Fit one file to the skeleton at scale 1. Returns the number of its keys that were used."""
    output = io.StringIO()
    try:
        with contextlib.redirect_stdout(output):
            _, keys, failed = LoRALoader._apply_lora_with_mapping(
                skeleton,
                tensors,
                1.0,
                LoRALoader._build_pattern_mappings(Flux2LoRAMapping.get_mapping()),
                role=None,
                bake_lora=False,
                adapter_configs=PeftLoRAMetadata.configs(metadata),
            )
    except (ValueError, IndexError, TypeError) as error:
        raise LoraInvalid(f"{path} cannot be used: {error}", path=path) from error
    finally:
        logger.debug("%s: %s", path, output.getvalue())
    if failed:
        raise LoraInvalid(
            f"{path} was made for another model: {len(failed)} of its layers do not fit, {failed[0]} among them.",
            path=path,
        )
    return len(keys)


def _find_wrappers(transformer: Flux2Transformer) -> Iterator[tuple[str, Wrapper]]:
    inside: tuple[str, ...] = ()
    for path, module in sorted(transformer.named_modules()):
        if isinstance(module, (LoRALinear, LoKrLinear, FusedLoRALinear)) and not path.startswith(inside):
            inside = (*inside, f"{path}.")
            yield path, module


def _list_lora_layers(wrapper: Wrapper) -> list[LoRALinear | LoKrLinear]:
    return wrapper.loras if isinstance(wrapper, FusedLoRALinear) else [wrapper]


def _factors(part: LoRALinear | LoKrLinear) -> dict[str, mx.array]:
    return {name: value for name, value in part.parameters().items() if name != "linear"}


def _attach_base_layer(wrapper: Wrapper, layer: nn.Module) -> None:
    """Make a fitted layer wrap the transformer's own layer."""
    if isinstance(wrapper, FusedLoRALinear):
        wrapper.base_linear = layer
    for part in _list_lora_layers(wrapper):
        part.linear = layer


def _check_wrappers(wrappers: dict[str, Wrapper], uses: tuple[LoraUse, ...]) -> None:
    names = ", ".join(use.path for use in uses)
    for path, wrapper in wrappers.items():
        for part in _list_lora_layers(wrapper):
            if isinstance(part, LoRALinear):
                _check_shapes(path, part, names)


def _check_shapes(path: str, part: LoRALinear, names: str) -> None:
    rows, columns = part.linear.weight.shape
    down, up = part.lora_A.shape, part.lora_B.shape
    if (down[0], up[-1]) != (columns, rows) or down[-1] != up[0]:
        raise LoraInvalid(
            f"{names}: {path} is {columns}x{rows} in this model, the adapter's factors are {down} and {up}.",
            layer=path,
        )


def _format_no_match(path: str, tensors: dict[str, mx.array]) -> str:
    shown = ", ".join(sorted(tensors)[:3])
    return f"No layer of {path} belongs to FLUX.2 (its keys are like {shown})."
