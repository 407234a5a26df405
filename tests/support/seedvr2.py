"""Tiny random SeedVR2 folders with the published file and tensor names, and pictures made with them."""

from pathlib import Path
from typing import Any

import mlx.core as mx
import numpy as np
from mflux.models.common.weights.mapping.weight_mapper import WeightMapper
from mflux.models.seedvr2.model.seedvr2_transformer.transformer import SeedVR2Transformer
from mflux.models.seedvr2.model.seedvr2_vae.vae import SeedVR2VAE
from mflux.models.seedvr2.weights.seedvr2_weight_mapping import SeedVR2WeightMapping
from mlx import nn
from mlx.utils import tree_flatten
from PIL import Image

from mflux_api.checkpoints.seedvr2 import TRANSFORMERS, VAE_FILE
from mflux_api.engine.precision import choose_precision
from mflux_api.engine.seedvr2.upscaler import Upscaler
from mflux_api.ipc.messages import Picture
from mflux_api.request import GenerateRequest, round_up_size

FLOAT32 = choose_precision("float32")
WIDTHS = (32, 32, 64, 64)
# Arguments of mflux's SeedVR2Transformer: one like the 3B model, one like the 7B model.
TINY_3B: dict[str, Any] = {
    "vid_dim": 64,
    "heads": 2,
    "head_dim": 32,
    "rope_dim": 24,
    "num_layers": 3,
    "mm_layers": 1,
}
TINY_7B: dict[str, Any] = {
    **TINY_3B,
    "num_layers": 2,
    "mm_layers": 2,
    "mlp_type": "normal",
    "rope_freqs_for": "pixel",
    "rope_on_text": False,
    "use_output_ada": False,
    "last_layer_vid_only": False,
}
KINDS = {TRANSFORMERS[0]: TINY_3B, TRANSFORMERS[1]: TINY_7B}


def write_upscaler(
    folder: Path, name: str = TRANSFORMERS[0], *, widths: tuple[int, ...] = WIDTHS, **sizes: Any
) -> Path:
    """Write transformer and VAE in float16. `sizes` change arguments of the transformer."""
    folder.mkdir(parents=True, exist_ok=True)
    arguments = KINDS[name] | sizes
    transformer = SeedVR2Transformer(**arguments)
    names = WeightMapper._build_flat_mapping(
        SeedVR2WeightMapping.get_transformer_mapping(arguments["num_layers"], arguments.get("use_output_ada", True)),
        arguments["num_layers"],
    )
    names = {name: targets for name, targets in names.items() if _is_published(name, arguments["mm_layers"])}
    _write(folder / name, transformer, names, seed=1)
    vae = SeedVR2VAE(block_out_channels=widths)
    _write(folder / VAE_FILE, vae, WeightMapper._build_flat_mapping(SeedVR2WeightMapping.get_vae_mapping()), seed=2)
    return folder


def _is_published(name: str, shared_from: int) -> bool:
    """Return whether the published file has this tensor.

    Text and picture have separate attention weights before layer `shared_from`, and shared ones from there on.
    """
    if not name.startswith("blocks.") or ".rope." in name:
        return True
    return (".all." in name) == (int(name.split(".")[1]) >= shared_from)


def _write(path: Path, module: nn.Module, names: dict[str, Any], seed: int) -> None:
    parameters = dict(tree_flatten(module.parameters()))
    random = np.random.default_rng(seed)
    tensors, filled = {}, set()
    for published, targets in names.items():
        inside = [target for target, _ in targets if target in parameters]
        filled.update(inside)
        if inside:
            tensors[published] = mx.array(_values(random, published, parameters[inside[0]])).astype(mx.float16)
    assert filled == parameters.keys(), parameters.keys() - filled
    mx.save_safetensors(str(path), tensors)


def _values(random: np.random.Generator, name: str, like: mx.array) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Return random values, scaled so that activations neither vanish nor explode, in torch's axis order."""
    if name.endswith("freqs"):
        return np.array(like)
    noise = random.standard_normal(like.shape).astype(np.float32)
    if like.ndim == 1:
        centre = 1.0 if name.endswith("scale") or ("norm" in name and name.endswith("weight")) else 0.0
        return centre + 0.3 * noise
    scaled = noise / np.float32(np.sqrt(np.prod(like.shape[1:])))
    return scaled.transpose(0, 4, 1, 2, 3) if like.ndim == 5 else scaled


def draw_scene(width: int, height: int) -> Image.Image:
    """Draw gradients and an edge."""
    rows, columns = np.mgrid[0:height, 0:width]
    pixels = np.stack([rows * 3, columns * 3, 200 * (rows > columns)], axis=-1)
    return Image.fromarray((pixels % 256).astype(np.uint8))


def make_request(width: int = 64, height: int = 64, **changes: Any) -> GenerateRequest:
    canvas = round_up_size(width, height)
    return GenerateRequest(
        **{
            "prompt": "",
            "negative_prompt": "",
            "width": canvas[0],
            "height": canvas[1],
            "crop": (width, height),
            "steps": 4,
            "guidance": 1.0,
            "seeds": (3,),
            "source": draw_scene(32, 32),
            **changes,
        }
    )


def upscale(upscaler: Upscaler, *size: int, **changes: Any) -> Picture:
    last = list(upscaler.paint(make_request(*size, **changes)))[-1]
    assert isinstance(last, Picture)
    return last
