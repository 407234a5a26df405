"""Convert latents between patches and tokens, and make noise and token positions.

A picture of H x W pixels is (1, 32, H/8, W/8) after the VAE, (1, 128, H/16, W/16) as 2x2 patches, and
(1, H/16 * W/16, 128) as the transformer's tokens. Positions are int32 (tokens, 4): time, row, column, word.
"""

import mlx.core as mx
import numpy as np
from PIL import Image

PATCH = 2
REFERENCE_TIME_STEP = 10


def make_noise(seed: int, channels: int, rows: int, columns: int) -> mx.array:
    """Make standard normal noise, float32 (1, channels, rows, columns). A seed gives the same noise on every device."""
    return mx.random.normal((1, channels, rows, columns), key=mx.random.key(seed))


def slerp(first: mx.array, second: mx.array, share: float) -> mx.array:
    """Interpolate noise on the great circle from `first` (share 0) to `second` (share 1). Both have the same shape.

    Source: Shoemake 1985, as SD-WebUI mixes the noise of a variation seed.
    """
    flat = [noise.reshape(-1) for noise in (first, second)]
    lengths = mx.linalg.norm(flat[0]) * mx.linalg.norm(flat[1])
    angle = mx.arccos(mx.clip((flat[0] * flat[1]).sum() / lengths, -1.0, 1.0))
    weights = mx.sin(mx.array([1 - share, share]) * angle) / mx.sin(angle)
    # Equal noises have an angle of 0, and the formula would divide by 0.
    return mx.where(angle < 1e-3, first, weights[0] * first + weights[1] * second)


def resize_latents(patches: mx.array, rows: int, columns: int, method: str) -> mx.array:
    """Resize patches (1, 4C, h, w) to float32 (1, 4C, rows, columns), each channel on its own.

    `method`: "nearest", "bilinear" or "bicubic", the interpolations of SD-WebUI's latent upscalers.
    """
    plain = np.array(unpatchify(patches))[0]
    size = (columns * PATCH, rows * PATCH)
    filters = Image.Resampling[method.upper()]
    resized = [np.asarray(Image.fromarray(channel).resize(size, filters)) for channel in plain]
    return patchify(mx.array(np.stack(resized)[None]))


def patchify(latents: mx.array) -> mx.array:
    """(B, C, H, W) -> (B, 4C, H/2, W/2)."""
    batch, channels, height, width = latents.shape
    split = latents.reshape(batch, channels, height // PATCH, PATCH, width // PATCH, PATCH)
    return split.transpose(0, 1, 3, 5, 2, 4).reshape(batch, channels * PATCH**2, height // PATCH, width // PATCH)


def unpatchify(patches: mx.array) -> mx.array:
    """(B, 4C, H, W) -> (B, C, 2H, 2W)."""
    batch, channels, height, width = patches.shape
    split = patches.reshape(batch, channels // PATCH**2, PATCH, PATCH, height, width)
    return split.transpose(0, 1, 4, 2, 5, 3).reshape(batch, channels // PATCH**2, height * PATCH, width * PATCH)


def pack(patches: mx.array) -> mx.array:
    """(B, C, H, W) -> (B, H*W, C)."""
    batch, channels, height, width = patches.shape
    return patches.reshape(batch, channels, height * width).transpose(0, 2, 1)


def unpack(tokens: mx.array, rows: int, columns: int) -> mx.array:
    """(B, rows*columns, C) -> (B, C, rows, columns)."""
    batch, _, channels = tokens.shape
    return tokens.reshape(batch, rows, columns, channels).transpose(0, 3, 1, 2)


def make_grid_positions(rows: int, columns: int, time: int) -> mx.array:
    """Return the positions of a picture's tokens. The painted picture has time 0, references have 10, 20, ..."""
    row = mx.repeat(mx.arange(rows), columns)
    column = mx.tile(mx.arange(columns), rows)
    return mx.stack([mx.full(row.shape, time, dtype=row.dtype), row, column, mx.zeros_like(row)], axis=1)


def make_text_positions(length: int) -> mx.array:
    """Return the positions of the prompt's tokens."""
    word = mx.arange(length)
    zero = mx.zeros_like(word)
    return mx.stack([zero, zero, zero, word], axis=1)


def add_noise(clean: mx.array, noise: mx.array, sigma: float) -> mx.array:
    """Return the point at `sigma` on the straight path from picture to noise: (1 - sigma) * clean + sigma * noise."""
    return (1 - sigma) * clean + sigma * noise
