"""The transformer's part of a step: which way the latents move, with guidance and references."""

from collections.abc import Sequence
from dataclasses import dataclass

import mlx.core as mx
from mflux.models.flux2.model.flux2_transformer.flux2_kv_cache import Flux2KVCache
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer

from mflux_api.engine.flux2.latents import text_positions
from mflux_api.engine.precision import computing_in


@dataclass(frozen=True)
class Tokens:
    """Picture tokens, (1, N, 128), and where they are, int32 (N, 4)."""

    values: mx.array
    positions: mx.array


class Denoiser:
    """Predicts the velocity (noise minus picture) of one picture, step after step.

    `prompts`: the embedding of each step, the last one also for any further. `negative` is the embedding guided away
    from, None for a model or a guidance that does not. With `cache_references` the references are seen in the first
    step only and their keys and values kept (9b-kv). `guided`: guidance is an input of the transformer (dev).
    """

    def __init__(
        self,
        transformer: Flux2Transformer,
        *,
        prompts: Sequence[mx.array],
        negative: mx.array | None,
        guidance: float,
        references: Tokens | None,
        cache_references: bool,
        guided: bool,
        dtype: mx.Dtype,
    ) -> None:
        self.transformer = transformer
        self.prompts = prompts
        self.negatives = [] if negative is None else [negative]
        self.guidance = guidance
        self.references = references
        self.guided = guided
        self.dtype = dtype
        cached = cache_references and references is not None
        self.caches = [self._new_cache() if cached else None for _ in range(1 + len(self.negatives))]
        self.step = 0

    @property
    def is_first(self) -> bool:
        return self.step == 0

    def velocity(self, latents: Tokens, sigma: float) -> mx.array:
        """The velocity at noise level `sigma` in (0, 1]: float32, the shape of the latents' values."""
        prompt = self.prompts[min(self.step, len(self.prompts) - 1)]
        pairs = zip([prompt, *self.negatives], self.caches, strict=True)
        predictions = [self._predict(latents, sigma, *pair) for pair in pairs]
        self.step += 1
        if len(predictions) == 1:
            return predictions[0]
        # Classifier-free guidance (Ho & Salimans 2022), in the form of diffusers' Flux2KleinPipeline.
        positive, negative = predictions
        return negative + self.guidance * (positive - negative)

    def _predict(self, latents: Tokens, sigma: float, prompt: mx.array, cache: Flux2KVCache | None) -> mx.array:
        seen = self._seen(latents, cached=cache is not None)
        if cache is not None and self.references is not None:
            mode = "extract" if self.is_first else "cached"
            cache.configure(mode=mode, num_ref_tokens=self.references.values.shape[1])
        with computing_in(self.dtype):
            output: mx.array = self.transformer(
                hidden_states=seen.values.astype(self.dtype),
                encoder_hidden_states=prompt,
                # A level of at most 1: mflux multiplies by 1000 only what is not above 1.
                timestep=mx.array(sigma, dtype=mx.float32),
                guidance=embeddable(self.guidance) if self.guided else None,
                img_ids=seen.positions,
                txt_ids=text_positions(prompt.shape[1]),
                kv_cache=cache,
            )
        return output[:, : latents.values.shape[1]].astype(mx.float32)

    def _seen(self, latents: Tokens, *, cached: bool) -> Tokens:
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


def embeddable(guidance: float) -> mx.array:
    """Guidance such that the transformer embeds 1000 times it, as diffusers does; mflux scales only up to 1."""
    return mx.array(guidance if guidance <= 1 else guidance * 1000, dtype=mx.float32)
