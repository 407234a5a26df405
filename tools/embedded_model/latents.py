"""Pictures and latents: pools of drawn scenes, patches of 2x2, and the batch norm's scaling, as diffusers does them."""

from collections.abc import Sequence

import numpy as np
import torch
from diffusers import AutoencoderKLFlux2
from numpy.typing import NDArray
from torch import Tensor

from pictures import draw, random_jitter
from scenes import draw_lot


def draw_pool(count: int, sizes: Sequence[tuple[int, int]], seed: int) -> list[NDArray[np.uint8]]:
    """Scenes of the training grammar, their sizes (width, height) in turn."""
    rng = np.random.default_rng(seed)
    return [draw(draw_lot(rng), *sizes[i % len(sizes)], random_jitter(rng)) for i in range(count)]


def to_tensor(picture: NDArray[np.uint8]) -> Tensor:
    """Channels first, still eight bits."""
    return torch.from_numpy(picture.transpose(2, 0, 1).copy())


def patchify(latents: Tensor) -> Tensor:
    """(B, 32, H, W) to (B, 128, H/2, W/2)."""
    b, c, h, w = latents.shape
    return latents.view(b, c, h // 2, 2, w // 2, 2).permute(0, 1, 3, 5, 2, 4).reshape(b, c * 4, h // 2, w // 2)


def unpatchify(latents: Tensor) -> Tensor:
    """(B, 128, H, W) to (B, 32, 2H, 2W)."""
    b, c, h, w = latents.shape
    return latents.reshape(b, c // 4, 2, 2, h, w).permute(0, 1, 4, 2, 5, 3).reshape(b, c // 4, h * 2, w * 2)


def _statistics(vae: AutoencoderKLFlux2) -> tuple[Tensor, Tensor]:
    mean = vae.bn.running_mean.view(1, -1, 1, 1)
    return mean, torch.sqrt(vae.bn.running_var.view(1, -1, 1, 1) + vae.config.batch_norm_eps)


def normalise(vae: AutoencoderKLFlux2, latents: Tensor) -> Tensor:
    """The encoder's latents to what the transformer sees, (B, 128, H/2, W/2)."""
    mean, spread = _statistics(vae)
    return (patchify(latents) - mean) / spread


def denormalise(vae: AutoencoderKLFlux2, latents: Tensor) -> Tensor:
    """Back from what the transformer sees to what the decoder takes."""
    mean, spread = _statistics(vae)
    return unpatchify(latents * spread + mean)
