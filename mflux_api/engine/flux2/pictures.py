"""Pillow pictures to the arrays the VAE reads, and back."""

import math

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mflux_api.errors import InvalidImage

REFERENCE_AREA = 1024 * 1024
STEP = 16
LANCZOS = Image.Resampling.LANCZOS


def to_array(image: Image.Image) -> mx.array:
    """An RGB picture as float32 (1, 3, H, W) in -1..1."""
    pixels = np.asarray(image.convert("RGB"), dtype=np.float32) / 255.0
    return mx.array(2.0 * pixels - 1.0).transpose(2, 0, 1)[None]


def to_pixels(decoded: mx.array) -> NDArray[np.float32]:
    """The decoder's (1, 3, H, W) in -1..1 as float32 (H, W, 3) in 0..1."""
    pixels = mx.clip(decoded[0].astype(mx.float32) / 2 + 0.5, 0, 1).transpose(1, 2, 0)
    return np.array(pixels)


def to_image(pixels: NDArray[np.float32]) -> Image.Image:
    """Float32 (H, W, 3) in 0..1 as an 8-bit RGB picture, rounded to nearest."""
    return Image.fromarray((pixels * 255).round().astype(np.uint8))


def fit_reference(image: Image.Image) -> Image.Image:
    """A reference at its own aspect: at most one megapixel, cropped at the centre to sides that divide by 16.

    Source: diffusers' Flux2KleinPipeline and Flux2ImageProcessor (`_resize_to_target_area`, `_resize_and_crop`).
    """
    image = image.convert("RGB")
    width, height = image.size
    if width * height > REFERENCE_AREA:
        scale = math.sqrt(REFERENCE_AREA / (width * height))
        image = image.resize((int(width * scale), int(height * scale)), LANCZOS)
        width, height = image.size
    to_width, to_height = width // STEP * STEP, height // STEP * STEP
    if to_width == 0 or to_height == 0:
        raise InvalidImage(f"A reference must be at least {STEP} pixels on each side, not {width}x{height}.")
    left, top = (width - to_width) // 2, (height - to_height) // 2
    return image.crop((left, top, left + to_width, top + to_height))


def fit_latents(image: Image.Image) -> Image.Image:
    """A picture at about its own size, at most about one megapixel: all of it, in sides that divide by 16."""
    scale = min(1.0, math.sqrt(REFERENCE_AREA / (image.width * image.height)))
    width, height = (max(STEP, round(side * scale / STEP) * STEP) for side in image.size)
    return fit_source(image, width, height)


def fit_source(image: Image.Image, width: int, height: int) -> Image.Image:
    """The picture to repaint, in RGB, at the size of the result."""
    return image.convert("RGB").resize((width, height), LANCZOS)


def fit_mask(mask: Image.Image, width: int, height: int) -> NDArray[np.float32]:
    """The mask at the size of the result, float32 (H, W): 1 repaints, 0 keeps."""
    return np.asarray(mask.convert("L").resize((width, height), LANCZOS), dtype=np.float32) / 255.0


def mask_tokens(mask: NDArray[np.float32]) -> mx.array:
    """A pixel mask as float32 (1, H/16 * W/16, 1) in 0..1.

    Source: `prepare_mask_latents` of diffusers' Flux2KleinInpaintPipeline: made black and white at one half, then
    bilinear without antialiasing, which at a factor of 16 is the mean of the four pixels at a cell's centre.
    """
    hard = (mask >= 0.5).astype(np.float32)
    rows, columns = hard.shape[0] // STEP, hard.shape[1] // STEP
    cells = hard.reshape(rows, STEP, columns, STEP)
    middle = slice(STEP // 2 - 1, STEP // 2 + 1)
    return mx.array(cells[:, middle, :, middle].mean(axis=(1, 3)).reshape(1, rows * columns, 1))


def keep_unmasked(pixels: NDArray[np.float32], source: Image.Image, mask: NDArray[np.float32]) -> NDArray[np.float32]:
    """The repainted pixels where the mask is white, the source's own where it is black, blended between."""
    original = np.asarray(source, dtype=np.float32) / 255.0
    alpha = mask[..., None]
    return alpha * pixels + (1 - alpha) * original
