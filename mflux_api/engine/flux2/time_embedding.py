"""The embedding of noise level and guidance, in float32 as torch computes it.

mflux takes its frequencies from MLX's exponential, a few units in the last place off. A guidance of 4 is the angle 4000
here, and those units are then 2e-4 radians: the picture of a dev checkpoint is 5e-5 away from diffusers', with exact
frequencies 1.5e-5.
"""

import math

import mlx.core as mx
import numpy as np
from mflux.models.flux2.model.flux2_transformer.timestep_guidance_embeddings import Flux2TimestepGuidanceEmbeddings
from mlx import nn

LONGEST_PERIOD = 10_000.0


class TimeGuidanceEmbeddings(Flux2TimestepGuidanceEmbeddings):  # type: ignore[misc]
    """mflux's module with the frequencies rounded as torch rounds them."""

    def __call__(self, timestep: mx.array, guidance: mx.array | None) -> mx.array:
        """Level and guidance times 1000, (batch,) each -> (batch, hidden)."""
        embedded: mx.array = self.linear_2(nn.silu(self.linear_1(waves(timestep, self.in_channels))))
        if guidance is None or self.guidance_linear_1 is None:
            return embedded
        inner = nn.silu(self.guidance_linear_1(waves(guidance, self.in_channels)))
        guided: mx.array = self.guidance_linear_2(inner)
        return embedded + guided


def waves(values: mx.array, width: int) -> mx.array:
    """Cosines, then sines, of values times frequencies from 1 down to 1 / 10000: float32 (batch, width).

    Source: diffusers' `get_timestep_embedding` with flip_sin_to_cos and without a shift. An odd width ends in 0.
    """
    half = width // 2
    exponents = np.float32(-math.log(LONGEST_PERIOD)) * np.arange(half, dtype=np.float32) / np.float32(half)
    frequencies = mx.array(np.exp(exponents.astype(np.float64)).astype(np.float32))
    angles = values.astype(mx.float32)[:, None] * frequencies
    return mx.concatenate([mx.cos(angles), mx.sin(angles), mx.zeros((len(values), width % 2))], axis=-1)
