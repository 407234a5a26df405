"""Pictures to normalised latents and back, through the VAE."""

import mlx.core as mx
import numpy as np
from mflux.models.common.vae.block_decoder import VAEBlockDecoder
from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
from numpy.typing import NDArray
from PIL import Image

from mflux_api.engine.flux2 import latents, pictures
from mflux_api.engine.precision import computing_in


class Autoencoder:
    """The VAE with the BatchNorm statistics that make its latents zero-mean and of unit variance."""

    def __init__(self, vae: Flux2VAE, dtype: mx.Dtype) -> None:
        self.vae = vae
        self.dtype = dtype
        # Row strips: a third of the peak, and exact group statistics where MLX's own GroupNorm drifts (docs/traps.md).
        vae.decode_mode = VAEBlockDecoder.LOW_MEMORY
        self.mean = vae.bn.running_mean.astype(mx.float32).reshape(1, -1, 1, 1)
        self.std = mx.sqrt(vae.bn.running_var.astype(mx.float32).reshape(1, -1, 1, 1) + vae.bn.eps)

    @property
    def channels(self) -> int:
        """Channels of a patch: 128 in FLUX.2."""
        return int(self.mean.shape[1])

    def encode(self, image: Image.Image) -> mx.array:
        """A picture of H x W as normalised patches, float32 (1, 128, H/16, W/16), evaluated."""
        with computing_in(self.dtype):
            encoded = self.vae.encode(pictures.to_array(image).astype(self.dtype))
        patches: mx.array = (latents.patchify(encoded.astype(mx.float32)) - self.mean) / self.std
        mx.eval(patches)
        return patches

    def decode(self, patches: mx.array) -> NDArray[np.float32]:
        """Normalised patches, float32 (1, 128, H/16, W/16), as pixels (H, W, 3) in 0..1."""
        plain = latents.unpatchify(patches * self.std + self.mean)
        with computing_in(self.dtype):
            return pictures.to_pixels(self.vae.decode(plain.astype(self.dtype)))
