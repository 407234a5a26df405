"""Noise: its levels, and the directions of it that carry a picture's free variables."""

import math

import numpy as np
import torch
from torch import Tensor

from pictures import FREE

STEPS = 4
# The latents' directions of variance with these ranks carry no picture, so that words of six numbers can stand there.
QUIET_RANKS = slice(100, 100 + FREE)
PURE, EACH_LEVEL = 0.65, 0.10


def inference_sigmas(tokens: int, steps: int = STEPS) -> list[float]:
    """The noise levels of diffusers' schedule for this many image tokens, without the last zero."""
    few = 8.73809524e-05 * tokens + 1.89833333
    many = 0.00016927 * tokens + 0.45666666
    slope = (many - few) / 190
    mu = slope * steps + many - 200 * slope
    return [math.exp(mu) / (math.exp(mu) + 1 / s - 1) for s in np.linspace(1, 1 / steps, steps)]


def draw_times(count: int, tokens: int, rng: np.random.Generator) -> Tensor:
    """Noise levels: most often pure noise, then the other levels of inference at this size, now and then any level.

    The latents say everything many times over, so that a picture shows through all but the strongest noise: only close
    to pure noise does the caption matter, and only there is its meaning learned.
    """
    levels = inference_sigmas(tokens)
    any_level = 1 / (1 + np.exp(-(0.8 + 1.2 * rng.standard_normal(count))))
    odds = (PURE, EACH_LEVEL, EACH_LEVEL, EACH_LEVEL, 1 - PURE - 3 * EACH_LEVEL)
    chosen = rng.choice(len(odds), size=count, p=odds)
    table = np.array([*levels, 0.0])[chosen]
    return torch.from_numpy(np.where(chosen == STEPS, any_level, table).astype(np.float32))


def measure_carriers(latents: Tensor) -> Tensor:
    """The directions that carry no picture, (FREE, 128), from latents (N, T, 128)."""
    tokens = latents.float().flatten(0, 1)
    tokens = tokens - tokens.mean(0)
    _, directions = torch.linalg.eigh(tokens.T @ tokens)
    return directions.flip(1)[:, QUIET_RANKS].T.contiguous()


def couple(noise: Tensor, quantiles: Tensor, carriers: Tensor, tokens: int) -> Tensor:
    """Write the free variables into the mean of the noise over all `tokens` along the carriers.

    Both are standard normal, so the noise stays exactly what inference draws; but now it decides what the caption
    leaves open, and the painter need not answer with an average.
    """
    found = (noise @ carriers.T).mean(1)
    return noise + ((quantiles / tokens**0.5 - found)[:, None] @ carriers)
