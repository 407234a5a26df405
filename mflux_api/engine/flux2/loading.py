"""From a checkpoint folder to three networks in memory: diffusers' layout or mflux-save's, quantized or not."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import mlx.core as mx
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
from mlx import nn

from mflux_api.checkpoints import components, inferred_config, tensor_names
from mflux_api.checkpoints.bit_packing import packed_bits
from mflux_api.checkpoints.checkpoint import Layout
from mflux_api.checkpoints.language_model import Language, rest_name
from mflux_api.checkpoints.safetensors import Config, Shard, saved_by_mflux, stored_bits
from mflux_api.checkpoints.tensor_names import is_single_file
from mflux_api.engine.flux2 import quantization
from mflux_api.engine.flux2 import tensors as weights
from mflux_api.engine.flux2.mistral import MistralEncoder
from mflux_api.engine.flux2.networks import Encoder, Rest, TextEncoder, build_text_encoder, build_transformer, build_vae
from mflux_api.engine.flux2.tensors import Wish
from mflux_api.engine.precision import Precision, computing_in
from mflux_api.errors import ModelUnsupported


@dataclass(frozen=True)
class Component:
    """How one network is found on disk and built."""

    name: str
    rename: weights.Rename
    infer: Callable[[inferred_config.Shapes, int | None], Config]
    build: Callable[[Config, Layout], nn.Module]
    quantized: bool
    convolutions: bool = field(default=False)
    # The names of a folder that mflux saved are the modules' own.
    rename_saved: weights.Rename = field(default=tensor_names.same_name)


TRANSFORMER = Component(
    name="transformer",
    rename=tensor_names.transformer_name,
    infer=inferred_config.transformer_config,
    build=lambda config, layout: build_transformer(config),
    quantized=True,
)
TEXT_ENCODER = Component(
    name="text_encoder",
    rename=tensor_names.text_encoder_name,
    infer=inferred_config.text_encoder_config,
    build=lambda config, layout: build_text_encoder(config, layout.layers),
    quantized=True,
)
VAE = Component(
    name="vae",
    rename=tensor_names.vae_name,
    infer=inferred_config.vae_config,
    build=lambda config, layout: build_vae(config),
    # It is 2 % of the weights and all of the colours.
    quantized=False,
    convolutions=True,
)


@dataclass(frozen=True)
class Loader:
    """Loads the networks of one checkpoint, each when asked for. `bits`: quantize at load, unless stored quantized."""

    layout: Layout
    bits: int | None
    precision: Precision

    @property
    def width(self) -> int | None:
        """The bits the transformer's weights end up with: as stored, else as asked; None: not quantized."""
        _, shards, stored = self._plan(TRANSFORMER)
        asked = stored if stored is not None else self.bits
        return asked if asked is not None else packed_bits(shards)

    def transformer(self) -> Flux2Transformer:
        return self._load(TRANSFORMER)

    def text_encoder(self) -> Encoder:
        module = self._load(TEXT_ENCODER)
        assert isinstance(module, (TextEncoder, MistralEncoder))
        return module

    def rest(self, language: Language) -> Rest:
        """What makes the text encoder a language model."""

        def rename(name: str) -> str | None:
            return rest_name(name, language.read)

        component = replace(
            TEXT_ENCODER,
            rename=rename,
            rename_saved=rename,
            build=lambda config, _: Rest(config, language.read, tied=language.tied),
        )
        module = self._load(component)
        assert isinstance(module, Rest)
        return module

    def vae(self) -> Flux2VAE:
        return self._load(VAE)

    def skeleton(self) -> Flux2Transformer:
        """A transformer of the same shape whose weights are never computed, to try adapters on."""
        config, _, _ = self._plan(TRANSFORMER)
        return build_transformer(config)

    def configs(self) -> dict[str, Config]:
        """What the quantized networks are built from, as written or as told by their tensors."""
        return {component.name: self._plan(component)[0] for component in (TRANSFORMER, TEXT_ENCODER)}

    def _plan(self, component: Component) -> tuple[Config, list[Shard], int | None]:
        shards = components.read(self.layout.folder, component.name, self.layout.file)
        stored = stored_bits(self.layout.folder / component.name, shards)
        config: Config = getattr(self.layout, component.name)
        return config or component.infer(inferred_config.tensors_of(shards), stored), shards, stored

    def _build(self, component: Component, config: Config) -> nn.Module:
        try:
            with computing_in(self.precision.dtype):
                return component.build(config, self.layout)
        except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
            raise ModelUnsupported(
                f"The {component.name} cannot be built from its config.json: {error!r}.", component=component.name
            ) from error

    def _read(self, component: Component, shards: list[Shard], wanted: set[str], *, saved: bool) -> weights.Weights:
        wish = Wish(self.precision.dtype, self.bits if component.quantized else None)
        if any(is_single_file(shard.tensors) for shard in shards):
            return weights.read_single_file(shards, wish)
        rename = component.rename_saved if saved else component.rename
        return weights.read_weights(shards, wish, rename, wanted, transpose=component.convolutions and not saved)

    def _load(self, component: Component) -> nn.Module:
        config, shards, stored = self._plan(component)
        saved = saved_by_mflux(shards, self.layout.folder / component.name)
        module = self._build(component, config)
        tensors = self._read(component, shards, set(weights.parameters(module)), saved=saved)
        quantization.restore(module, tensors)
        weights.apply_weights(module, tensors, component.name, self.precision.dtype)
        if self.bits is not None and stored is None and component.quantized:
            quantization.quantize(module, self.bits)
        if self.precision.dequantize_first:
            quantization.dequantize_first(module)
        # Whatever is held here besides by the module would stay in memory unquantized until the last layer is done.
        tensors.clear()
        _materialise(module)
        return module


def _materialise(module: nn.Module) -> None:
    # Now: what stays lazy reads its files again on every use, and cannot be used from another thread.
    # One by one: each is read, cast and quantized, and only one is in memory as it was stored.
    for tensor in weights.parameters(module).values():
        mx.eval(tensor)
    mx.eval(module.parameters())
