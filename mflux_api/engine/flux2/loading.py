"""Load a checkpoint's three networks, from diffusers' or mflux-save's layout, quantized or not."""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import mlx.core as mx
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
from mlx import nn

from mflux_api.checkpoints import tensor_names
from mflux_api.checkpoints.bit_packing import find_packed_bits
from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.components import Component
from mflux_api.checkpoints.language_model import LanguageModel, map_tail_name
from mflux_api.checkpoints.safetensors import Config
from mflux_api.checkpoints.tensor_names import is_single_file
from mflux_api.engine.flux2 import quantization
from mflux_api.engine.flux2.mistral import MistralEncoder
from mflux_api.engine.flux2.networks import (
    Encoder,
    LanguageModelTail,
    Qwen3Encoder,
    build_text_encoder,
    build_transformer,
    build_vae,
)
from mflux_api.engine.flux2.tensors import (
    Rename,
    TargetFormat,
    Weights,
    apply_weights,
    list_parameters,
    read_single_file,
    read_weights,
)
from mflux_api.engine.precision import Precision, use_dtype
from mflux_api.errors import ModelUnsupported


@dataclass(frozen=True)
class Network:
    """How to load a network from a component of a checkpoint.

    `rename`: maps the checkpoint's tensor names to the module's. `quantized`: whether its weights may be quantized.
    `convolutions`: whether it has torch convolutions to transpose.
    """

    component: Callable[[Checkpoint], Component]
    rename: Rename
    build: Callable[[Config, Checkpoint], nn.Module]
    quantized: bool
    convolutions: bool = field(default=False)
    # In a folder that mflux saved, the names are the module's own.
    rename_saved: Rename = field(default=tensor_names.keep_name)


TRANSFORMER = Network(
    component=lambda checkpoint: checkpoint.transformer,
    rename=tensor_names.map_transformer_name,
    build=lambda config, checkpoint: build_transformer(config),
    quantized=True,
)
TEXT_ENCODER = Network(
    component=lambda checkpoint: checkpoint.text_encoder,
    rename=tensor_names.map_text_encoder_name,
    build=lambda config, checkpoint: build_text_encoder(config, checkpoint.out_layers),
    quantized=True,
)
VAE = Network(
    component=lambda checkpoint: checkpoint.vae,
    rename=tensor_names.map_vae_name,
    build=lambda config, checkpoint: build_vae(config),
    # Never quantized: it has only 2 % of the weights but determines all colours.
    quantized=False,
    convolutions=True,
)


@dataclass(frozen=True)
class NetworkLoader:
    """Loads the networks of one checkpoint on request. `bits`: quantize while loading, unless stored quantized."""

    checkpoint: Checkpoint
    bits: int | None
    precision: Precision

    @property
    def resulting_bits(self) -> int | None:
        """Bits of the loaded transformer's weights: as stored, else as requested. None if not quantized."""
        _, component = self._read_component(TRANSFORMER)
        asked = component.stored_bits if component.stored_bits is not None else self.bits
        return asked if asked is not None else find_packed_bits(component.shards)

    def load_transformer(self) -> Flux2Transformer:
        return self._load_network(TRANSFORMER)

    def load_text_encoder(self) -> Encoder:
        module = self._load_network(TEXT_ENCODER)
        assert isinstance(module, (Qwen3Encoder, MistralEncoder))
        return module

    def load_language_model_tail(self, language: LanguageModel) -> LanguageModelTail:
        """Load the part of the language model that the text encoder lacks."""

        def rename(name: str) -> str | None:
            return map_tail_name(name, language.prompt_layers)

        network = replace(
            TEXT_ENCODER,
            rename=rename,
            rename_saved=rename,
            build=lambda config, _: LanguageModelTail(
                config, language.prompt_layers, tie_word_embeddings=language.tie_word_embeddings
            ),
        )
        module = self._load_network(network)
        assert isinstance(module, LanguageModelTail)
        return module

    def load_vae(self) -> Flux2VAE:
        return self._load_network(VAE)

    def read_configs(self) -> dict[str, Config]:
        """Return the configs of transformer and text encoder by component, from a file or inferred from tensors."""
        plans = (self._read_component(network) for network in (TRANSFORMER, TEXT_ENCODER))
        return {component.name: config for config, component in plans}

    def _read_component(self, network: Network) -> tuple[Config, Component]:
        """Return the network's config and component.

        Reads the checkpoint again on every call: networks that take turns are loaded many times, and files that have
        changed since must be checked again.
        """
        component = network.component(Checkpoint.read(self.checkpoint.path))
        return component.config, component

    def _build_network(self, network: Network, name: str, config: Config) -> nn.Module:
        try:
            with use_dtype(self.precision.dtype):
                return network.build(config, self.checkpoint)
        except (TypeError, ValueError, KeyError, ZeroDivisionError) as error:
            raise ModelUnsupported(
                f"The {name} cannot be built from its config.json: {error!r}.", component=name
            ) from error

    def _read_weights(self, network: Network, component: Component, wanted: set[str]) -> Weights:
        target = TargetFormat(self.precision.dtype, self.bits if network.quantized else None)
        if any(is_single_file(shard.tensors) for shard in component.shards):
            return read_single_file(component.shards, target)
        saved = component.is_saved_by_mflux
        rename = network.rename_saved if saved else network.rename
        return read_weights(component.shards, target, rename, wanted, transpose=network.convolutions and not saved)

    def _load_network(self, network: Network) -> nn.Module:
        config, component = self._read_component(network)
        module = self._build_network(network, component.name, config)
        tensors = self._read_weights(network, component, set(list_parameters(module)))
        quantization.apply_stored_format(module, tensors)
        apply_weights(module, tensors, component.name, self.precision.dtype)
        if self.bits is not None and component.stored_bits is None and network.quantized:
            quantization.quantize(module, self.bits)
        if self.precision.dequantize_first:
            quantization.dequantize_first(module)
        # Without this, the unquantized tensors would stay in memory until the last layer is evaluated.
        tensors.clear()
        _materialise(module)
        return module


def _materialise(module: nn.Module) -> None:
    # Evaluate now: a lazy tensor reads its file again on every use, and cannot be used from another thread.
    # Evaluate one by one, so that only one tensor at a time is in memory in its stored format.
    for tensor in list_parameters(module).values():
        mx.eval(tensor)
    mx.eval(module.parameters())
