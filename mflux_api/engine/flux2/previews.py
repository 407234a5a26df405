"""Latents to a small picture by a linear map: no decode, next to no time."""

from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from PIL import Image

from mflux_api.checkpoints.safetensors import Config, read_json
from mflux_api.engine.flux2.latents import unpatchify
from mflux_api.engine.flux2.pictures import to_image
from mflux_api.errors import ModelCorrupt

PUBLISHED = Path(__file__).with_name("latent_rgb.json")


@dataclass(frozen=True)
class PreviewMap:
    """RGB in 0..1 = normalised latents (32 channels) @ `factors` (32, 3) + `bias` (3)."""

    factors: mx.array
    bias: mx.array

    @classmethod
    def load(cls, vae_folder: Path) -> "PreviewMap":
        """The map fitted to this checkpoint (`vae/latent_rgb.json`), else the one published for FLUX.2's own VAE."""
        fitted = vae_folder / "latent_rgb.json"
        path = fitted if fitted.exists() else PUBLISHED
        return cls._parse(read_json(path), path)

    @classmethod
    def _parse(cls, config: Config, path: Path) -> "PreviewMap":
        factors, bias = np.array(config.get("factors"), np.float32), np.array(config.get("bias"), np.float32)
        if factors.ndim != 2 or factors.shape[1] != 3 or bias.shape != (3,):
            raise ModelCorrupt(f"{path} must hold factors (channels, 3) and bias (3).", path=str(path))
        return cls(mx.array(factors), mx.array(bias))

    def render(self, patches: mx.array) -> Image.Image | None:
        """Normalised patches (1, 128, H/16, W/16) as a picture of H/8 x W/8; None for a VAE of other channels."""
        plain = unpatchify(patches)[0].transpose(1, 2, 0)
        if plain.shape[-1] != self.factors.shape[0]:
            return None
        return to_image(np.array(mx.clip(plain @ self.factors + self.bias, 0, 1)))
