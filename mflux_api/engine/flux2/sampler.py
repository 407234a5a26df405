"""The sampler: noise levels by picture size, and the velocity of each step with guidance and references."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mflux.models.flux2.model.flux2_transformer.flux2_kv_cache import Flux2KVCache
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from numpy.typing import NDArray

from mflux_api.engine.flux2.latents import make_text_positions
from mflux_api.engine.precision import use_dtype
from mflux_api.request import count_repaint_steps


@dataclass(frozen=True)
class Tokens:
    """Picture tokens. `values`: (1, N, 128). `positions`: int32 (N, 4)."""

    values: mx.array
    positions: mx.array


class Denoiser:
    """Predicts the velocity (noise minus picture) of one picture, step after step.

    `prompt_embeddings`: the embedding of each step; the last one is used for all further steps. `negative_embedding`:
    the embedding of the negative prompt, None without classifier-free guidance. `cache_references`: compute the
    references in the first step only and cache their keys and values (9b-kv). `guidance_embeds`: guidance is an input
    of the transformer (dev).
    """

    def __init__(
        self,
        transformer: Flux2Transformer,
        *,
        prompt_embeddings: Sequence[mx.array],
        negative_embedding: mx.array | None,
        guidance: float,
        references: Tokens | None,
        cache_references: bool,
        guidance_embeds: bool,
        dtype: mx.Dtype,
    ) -> None:
        self.transformer = transformer
        self.prompt_embeddings = prompt_embeddings
        self.negative_embeddings = [] if negative_embedding is None else [negative_embedding]
        self.guidance = guidance
        self.references = references
        self.guidance_embeds = guidance_embeds
        self.dtype = dtype
        cached = cache_references and references is not None
        self.caches = [self._new_cache() if cached else None for _ in range(1 + len(self.negative_embeddings))]
        self.step = 0

    @property
    def is_first(self) -> bool:
        return self.step == 0

    def predict_velocity(self, latents: Tokens, sigma: float) -> mx.array:
        """Predict the velocity at noise level `sigma` in (0, 1]. float32, of the shape of `latents.values`."""
        prompt = self.prompt_embeddings[min(self.step, len(self.prompt_embeddings) - 1)]
        pairs = zip([prompt, *self.negative_embeddings], self.caches, strict=True)
        predictions = [self._predict(latents, sigma, *pair) for pair in pairs]
        self.step += 1
        if len(predictions) == 1:
            return predictions[0]
        # Classifier-free guidance (Ho & Salimans 2022), in the form of diffusers' Flux2KleinPipeline.
        positive, negative = predictions
        return negative + self.guidance * (positive - negative)

    def _predict(self, latents: Tokens, sigma: float, prompt: mx.array, cache: Flux2KVCache | None) -> mx.array:
        seen = self._with_references(latents, cached=cache is not None)
        if cache is not None and self.references is not None:
            mode = "extract" if self.is_first else "cached"
            cache.configure(mode=mode, num_ref_tokens=self.references.values.shape[1])
        with use_dtype(self.dtype):
            output: mx.array = self.transformer(
                hidden_states=seen.values.astype(self.dtype),
                encoder_hidden_states=prompt,
                # mflux multiplies a timestep of at most 1 by 1000.
                timestep=mx.array(sigma, dtype=mx.float32),
                guidance=scale_guidance(self.guidance) if self.guidance_embeds else None,
                img_ids=seen.positions,
                txt_ids=make_text_positions(prompt.shape[1]),
                kv_cache=cache,
            )
        return output[:, : latents.values.shape[1]].astype(mx.float32)

    def _with_references(self, latents: Tokens, *, cached: bool) -> Tokens:
        if self.references is None or (cached and not self.is_first):
            return latents
        return Tokens(
            mx.concatenate([latents.values, self.references.values], axis=1),
            mx.concatenate([latents.positions, self.references.positions], axis=0),
        )

    def _new_cache(self) -> Flux2KVCache:
        return Flux2KVCache(
            num_double_layers=len(self.transformer.transformer_blocks),
            num_single_layers=len(self.transformer.single_transformer_blocks),
        )


def scale_guidance(guidance: float) -> mx.array:
    """Scale the guidance so that the transformer embeds 1000 times its value, as diffusers does.

    mflux multiplies by 1000 only values of at most 1.
    """
    return mx.array(guidance if guidance <= 1 else guidance * 1000, dtype=mx.float32)


Sigmas = NDArray[np.float32]


def compute_empirical_mu(tokens: int, steps: int) -> float:
    """Return the shift for `tokens` image tokens and `steps` steps.

    Source: `compute_empirical_mu` of black-forest-labs/flux2 (sampling.py) and of diffusers' Flux2KleinPipeline.
    """
    slope_200, offset_200 = 0.00016927, 0.45666666
    if tokens > 4300:
        return slope_200 * tokens + offset_200
    mu_200 = slope_200 * tokens + offset_200
    mu_10 = 8.73809524e-05 * tokens + 1.89833333
    slope = (mu_200 - mu_10) / 190.0
    return slope * steps + mu_200 - 200.0 * slope


@dataclass(frozen=True)
class Schedule:
    """Noise levels of Euler steps on a rectified flow, as in diffusers' FlowMatchEulerDiscreteScheduler."""

    dynamic: bool
    shift: float
    shift_type: str
    terminal: float | None

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> "Schedule":
        """Make the schedule from a checkpoint's checked `scheduler/scheduler_config.json`."""
        return cls(
            dynamic=bool(config.get("use_dynamic_shifting", True)),
            shift=float(config.get("shift", 1.0)),  # type: ignore[arg-type]
            shift_type=str(config.get("time_shift_type", "exponential")),
            terminal=float(config["shift_terminal"]) if config.get("shift_terminal") else None,  # type: ignore[arg-type]
        )

    def make_sigmas(self, tokens: int, steps: int) -> Sigmas:
        """Return `steps` noise levels from 1 downwards and the final 0. float32 (steps + 1,)."""
        times = np.linspace(1.0, 1 / steps, steps).astype(np.float32)
        return np.append(self._shift(times, compute_empirical_mu(tokens, steps)), np.float32(0))

    def make_repaint_sigmas(self, tokens: int, steps: int, strength: float) -> Sigmas:
        """Return the noise levels of a repaint with `strength` in (0, 1]. It starts at time `strength` instead of 1.

        About `steps * strength` steps are run, as in SD-WebUI. They are spread evenly from the exact start, so that
        every strength gives another result even with the four steps of a distilled model. Strength 1 gives the levels
        of `make_sigmas`.
        """
        count = count_repaint_steps(steps, strength)
        times = (strength * np.linspace(1.0, 1 / count, count)).astype(np.float32)
        return np.append(self._shift(times, compute_empirical_mu(tokens, steps)), np.float32(0))

    def make_inpaint_sigmas(self, tokens: int, steps: int, strength: float) -> Sigmas:
        """Return the last levels of the full schedule, as diffusers' inpainting does (`get_timesteps`)."""
        start = int(max(steps - min(steps * strength, steps), 0))
        return self.make_sigmas(tokens, steps)[start:]

    def _shift(self, times: Sigmas, mu: float) -> Sigmas:
        if not self.dynamic:
            sigmas = self.shift * times / (1 + (self.shift - 1) * times)
        elif self.shift_type == "exponential":
            sigmas = math.exp(mu) / (math.exp(mu) + (1 / times - 1))
        else:
            sigmas = mu / (mu + (1 / times - 1))
        return self._stretch_to_terminal(sigmas.astype(np.float32))

    def _stretch_to_terminal(self, sigmas: Sigmas) -> Sigmas:
        if self.terminal is None:
            return sigmas
        rest = 1 - sigmas
        stretched: Sigmas = (1 - rest / (rest[-1] / (1 - self.terminal))).astype(np.float32)
        return stretched
