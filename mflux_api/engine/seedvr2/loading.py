"""Load mflux's SeedVR2 networks from the two published files.

Convolutions over time become flat ones. For a video of one frame this needs a third of the work and of the weights.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import mlx.core as mx
from mflux.models.seedvr2.model.seedvr2_transformer.transformer import SeedVR2Transformer
from mflux.models.seedvr2.model.seedvr2_vae.common.conv3d import CausalConv3d
from mflux.models.seedvr2.model.seedvr2_vae.vae import SeedVR2VAE
from mlx import nn
from mlx.utils import tree_map

from mflux_api.checkpoints.safetensors import Shard
from mflux_api.checkpoints.seedvr2 import SeedVR2Checkpoint, missing_tensors_error
from mflux_api.engine.flux2 import quantization
from mflux_api.engine.flux2.tensors import list_parameters
from mflux_api.engine.precision import Precision, use_dtype
from mflux_api.errors import ModelUnsupported


@contextmanager
def allow_empty_cumsum() -> Iterator[None]:
    """Make mx.cumsum return an empty array unchanged. MLX's CPU backend (0.32.2) kills the process there (SIGFPE)."""
    before = mx.cumsum

    def sum_unless_empty(values: mx.array, *arguments: Any, **keywords: Any) -> mx.array:
        return before(values, *arguments, **keywords) if values.size else values

    mx.cumsum = sum_unless_empty
    try:
        yield
    finally:
        mx.cumsum = before


class FrameConv(nn.Module):
    """A causal convolution of one frame. Maps (B, C, 1, H, W) as CausalConv3d does.

    The frame is repeated in place of the frames before it, so the weights of all times add up to one flat kernel.
    """

    def __init__(self, conv: CausalConv3d) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.weight = conv.weight.astype(mx.float32).sum(axis=1).astype(conv.weight.dtype)
        self.bias = conv.bias
        self.stride = conv.stride[1:]
        self.padding = conv.padding[1:]

    def __call__(self, x: mx.array) -> mx.array:
        flat: mx.array = mx.conv2d(x[:, :, 0].transpose(0, 2, 3, 1), self.weight, self.stride, self.padding) + self.bias
        return flat.transpose(0, 3, 1, 2)[:, :, None]


def flatten_convolutions(module: nn.Module) -> None:
    """Replace every convolution over time with a flat one, in place."""

    def flat(layer: nn.Module) -> nn.Module:
        return FrameConv(layer) if isinstance(layer, CausalConv3d) else layer

    module.update_modules(tree_map(flat, module.leaf_modules(), is_leaf=nn.Module.is_module))


NameMap = Callable[[str], str]


def load_transformer(layout: SeedVR2Checkpoint, bits: int | None, precision: Precision) -> SeedVR2Transformer:
    """Load the transformer in `precision`, its linear layers quantized to `bits` if given. Raises ModelUnsupported."""
    sizes = layout.transformer_config
    module = _build_network(SeedVR2Transformer, layout.transformer, sizes, precision)
    _load_weights(
        module, layout.transformer, lambda name: map_to_published_name(name, sizes["mm_layers"]), precision.dtype
    )
    if bits is not None:
        quantization.quantize(module, bits)
        _share_projections(module)
    if precision.dequantize_first:
        quantization.dequantize_first(module)
    _materialise(module)
    return module


def load_vae(layout: SeedVR2Checkpoint, precision: Precision) -> SeedVR2VAE:
    """Load the VAE in `precision`, never quantized, for single pictures only. Raises ModelUnsupported."""
    module = _build_network(SeedVR2VAE, layout.vae, layout.vae_config, precision)
    _load_weights(module, layout.vae, lambda name: name, precision.dtype)
    flatten_convolutions(module)
    _materialise(module)
    return module


def map_to_published_name(name: str, shared_from: int) -> str:
    """Return the published name of a parameter of mflux's SeedVR2Transformer.

    From layer `shared_from` on, text and picture share their weights. Source: the inverse of mflux's
    SeedVR2WeightMapping.
    """
    layer = re.match(r"blocks\.(\d+)\.", name)
    if layer is None:
        return re.sub(r"^out_(shift|scale)$", r"vid_out_ada.out_\1", name)
    name = name.replace(".rope.", ".rope.rope.").replace(".ada.params_", ".ada.")
    kind = "all" if int(layer[1]) >= shared_from else r"\2"
    return re.sub(r"(\.attn\.\w+)_(vid|txt)\.", rf"\1.{kind}.", name)


def _build_network(
    kind: Callable[..., nn.Module], shard: Shard, sizes: dict[str, object], precision: Precision
) -> nn.Module:
    try:
        with use_dtype(precision.dtype):
            return kind(**sizes)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise ModelUnsupported(
            f"{shard.path} has sizes that make no SeedVR2: {error!r}.", path=str(shard.path)
        ) from error


def _load_weights(module: nn.Module, shard: Shard, map_name: NameMap, dtype: mx.Dtype) -> None:
    """Load every parameter from the file. Raises ModelUnsupported if one is missing or has a wrong shape."""
    wanted = {name: map_name(name) for name in list_parameters(module)}
    missing = sorted({published for published in wanted.values() if published not in shard.tensors})
    if missing:
        raise missing_tensors_error(shard, missing)
    stored = mx.load(str(shard.path))
    assert isinstance(stored, dict)
    fitting = {name: _to_mlx_layout(stored[published]) for name, published in wanted.items()}
    for name, value in list_parameters(module).items():
        if fitting[name].shape != value.shape:
            raise ModelUnsupported(
                f"{wanted[name]} of {shard.path} has the shape {fitting[name].shape} and not {value.shape}.",
                path=str(shard.path),
                tensor=wanted[name],
            )
    module.load_weights([(name, _cast(name, value, dtype)) for name, value in fitting.items()], strict=False)


def _to_mlx_layout(tensor: mx.array) -> mx.array:
    """Transpose a torch convolution (O, I, T, H, W) to MLX's (O, T, H, W, I)."""
    return tensor.transpose(0, 2, 3, 4, 1) if tensor.ndim == 5 else tensor


def _cast(name: str, value: mx.array, dtype: mx.Dtype) -> mx.array:
    # Keep rotary frequencies in float32: positions reach 128 turns, which is too imprecise in 16 bits.
    return value.astype(mx.float32 if name.endswith(".freqs") else dtype)


def _share_projections(module: SeedVR2Transformer) -> None:
    """Share layers of text and picture again. Quantizing has made two copies of each."""
    for block in module.blocks:
        if block.shared_weights:
            block.attn.proj_qkv_txt = block.attn.proj_qkv_vid
            block.attn.proj_out_txt = block.attn.proj_out_vid


def _materialise(module: nn.Module) -> None:
    # Evaluate the tensors now, one by one: a lazy tensor reads its file again on every use.
    for tensor in list_parameters(module).values():
        mx.eval(tensor)
