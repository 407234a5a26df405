"""Encode pictures to normalised latents and decode them with the VAE; render previews by a linear map without it."""

import math
from dataclasses import dataclass
from pathlib import Path

import mlx.core as mx
import numpy as np
from mflux.models.common.vae.block_decoder import VAEBlockDecoder
from mflux.models.flux2.model.flux2_vae.vae import Flux2VAE
from numpy.typing import NDArray
from PIL import Image

from mflux_api.checkpoints.safetensors import Config, read_json
from mflux_api.engine.flux2 import latents
from mflux_api.engine.flux2.latents import unpatchify
from mflux_api.engine.precision import use_dtype
from mflux_api.errors import InvalidImage, ModelCorrupt

REFERENCE_AREA = 1024 * 1024
SIDE_STEP = 16
LANCZOS = Image.Resampling.LANCZOS


def image_to_array(image: Image.Image) -> mx.array:
    """Convert a picture to RGB, float32 (1, 3, H, W) in -1..1."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    return mx.array(2.0 * pixels - 1.0).transpose(2, 0, 1)[None]


def decoded_to_pixels(decoded: mx.array) -> NDArray[np.float32]:
    """Convert the decoder's output, (1, 3, H, W) in -1..1, to float32 (H, W, 3) in 0..1."""
    pixels = mx.clip(decoded[0].astype(mx.float32) / 2 + 0.5, 0, 1).transpose(1, 2, 0)
    return np.array(pixels)


def pixels_to_image(pixels: NDArray[np.float32]) -> Image.Image:
    """Convert float32 (H, W, 3) in 0..1 to an 8-bit RGB picture, rounded to nearest."""
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def fit_reference(image: Image.Image) -> Image.Image:
    """Fit a reference at its own aspect ratio: at most 1024 * 1024 pixels, cropped at the centre to multiples of 16.

    Raises InvalidImage if a side is shorter than 16 pixels.

    Source: diffusers' Flux2KleinPipeline and Flux2ImageProcessor (`_resize_to_target_area`, `_resize_and_crop`).
    """
    image = image.convert("RGB")
    width, height = image.size
    if width * height > REFERENCE_AREA:
        scale = math.sqrt(REFERENCE_AREA / (width * height))
        image = image.resize((int(width * scale), int(height * scale)), LANCZOS)
        width, height = image.size
    to_width, to_height = width // SIDE_STEP * SIDE_STEP, height // SIDE_STEP * SIDE_STEP
    if to_width == 0 or to_height == 0:
        raise InvalidImage(f"A reference must be at least {SIDE_STEP} pixels on each side, not {width}x{height}.")
    left, top = (width - to_width) // 2, (height - to_height) // 2
    return image.crop((left, top, left + to_width, top + to_height))


def fit_latents(image: Image.Image) -> Image.Image:
    """Resize a picture to about its own size, at most about 1024 * 1024 pixels, with sides that are multiples of 16."""
    scale = min(1.0, math.sqrt(REFERENCE_AREA / (image.width * image.height)))
    width, height = (max(SIDE_STEP, round(side * scale / SIDE_STEP) * SIDE_STEP) for side in image.size)
    return fit_source(image, width, height)


def fit_source(image: Image.Image, width: int, height: int) -> Image.Image:
    """Resize the picture to repaint to the size of the result, in RGB."""
    return image.convert("RGB").resize((width, height), LANCZOS)


def fit_mask(mask: Image.Image, width: int, height: int) -> NDArray[np.float32]:
    """Resize the mask to the size of the result. float32 (H, W): 1 repaints, 0 keeps."""
    return np.asarray(mask.convert("L").resize((width, height), LANCZOS), dtype=np.float32) / 255.0


def mask_to_tokens(mask: NDArray[np.float32]) -> mx.array:
    """Convert a pixel mask to tokens, float32 (1, H/16 * W/16, 1) in 0..1.

    Source: `prepare_mask_latents` of diffusers' Flux2KleinInpaintPipeline. It thresholds the mask at one half, then
    resizes it bilinearly without antialiasing, which at a factor of 16 is the mean of the four pixels at a cell's
    centre.
    """
    hard = (mask >= 0.5).astype(np.float32)
    rows, columns = hard.shape[0] // SIDE_STEP, hard.shape[1] // SIDE_STEP
    cells = hard.reshape(rows, SIDE_STEP, columns, SIDE_STEP)
    middle = slice(SIDE_STEP // 2 - 1, SIDE_STEP // 2 + 1)
    return mx.array(cells[:, middle, :, middle].mean(axis=(1, 3)).reshape(1, rows * columns, 1))


def blend_unmasked(pixels: NDArray[np.float32], source: Image.Image, mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """Blend by the mask: repainted pixels where it is white, the source's where it is black. float32 (H, W, 3)."""
    original = np.asarray(source, dtype=np.float32) / 255.0
    alpha = mask[..., None]
    return alpha * pixels + (1 - alpha) * original


PUBLISHED = Path(__file__).with_name("latent_rgb.json")


@dataclass(frozen=True)
class PreviewMap:
    """A linear map for previews: RGB in 0..1 = normalised latents (32 channels) @ `factors` (32, 3) + `bias` (3)."""

    factors: mx.array
    bias: mx.array

    @classmethod
    def load(cls, vae_folder: Path) -> "PreviewMap":
        """Load the map fitted to this checkpoint (`vae/latent_rgb.json`), else the one published for FLUX.2's VAE."""
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
        """Render normalised patches (1, 128, H/16, W/16) as a picture of H/8 x W/8.

        Returns None if the VAE has another number of channels than the map.
        """
        plain = unpatchify(patches)[0].transpose(1, 2, 0)
        if plain.shape[-1] != self.factors.shape[0]:
            return None
        return pixels_to_image(np.array(mx.clip(plain @ self.factors + self.bias, 0, 1)))


class Autoencoder:
    """The VAE with the BatchNorm statistics that normalise its latents to zero mean and unit variance."""

    def __init__(self, vae: Flux2VAE, dtype: mx.Dtype) -> None:
        self.vae = vae
        self.dtype = dtype
        # Decode in row strips: a third of the peak memory, and exact group statistics, in which MLX's own GroupNorm
        # drifts (docs/traps.md).
        vae.decode_mode = VAEBlockDecoder.LOW_MEMORY
        self.mean = vae.bn.running_mean.astype(mx.float32).reshape(1, -1, 1, 1)
        self.std = mx.sqrt(vae.bn.running_var.astype(mx.float32).reshape(1, -1, 1, 1) + vae.bn.eps)

    @property
    def channels(self) -> int:
        """Channels of a patch: 128 in FLUX.2."""
        return int(self.mean.shape[1])

    def encode(self, image: Image.Image) -> mx.array:
        """Encode a picture of H x W to normalised patches, float32 (1, 128, H/16, W/16), evaluated."""
        with use_dtype(self.dtype):
            encoded = self.vae.encode(image_to_array(image).astype(self.dtype))
        patches: mx.array = (latents.patchify(encoded.astype(mx.float32)) - self.mean) / self.std
        mx.eval(patches)
        return patches

    def decode(self, patches: mx.array) -> NDArray[np.float32]:
        """Decode normalised patches, float32 (1, 128, H/16, W/16), to pixels, float32 (H, W, 3) in 0..1."""
        plain = latents.unpatchify(patches * self.std + self.mean)
        with use_dtype(self.dtype):
            return decoded_to_pixels(self.vae.decode(plain.astype(self.dtype)))
