"""What a request asks to start from: an empty canvas, a picture to repaint, a mask, references."""

from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mflux_api.checkpoints.safetensors import Config
from mflux_api.engine.flux2 import latents, vae
from mflux_api.engine.flux2.sampler import Schedule, Sigmas, Tokens
from mflux_api.engine.flux2.vae import Autoencoder
from mflux_api.pixels import fitting, masks
from mflux_api.request import SIDE_STEP, Fill, GenerateRequest


@dataclass(frozen=True)
class ImageInputs:
    """What is the same for every seed of a request.

    `source`: the picture being repainted, `source_tokens` its tokens, float32 (1, N, C); `mask`: float32 (H, W), 1
    repaints.
    """

    rows: int
    columns: int
    positions: mx.array
    sigmas: Sigmas
    source: Image.Image | None
    source_tokens: mx.array | None
    mask: NDArray[np.float32] | None
    references: Tokens | None
    fill: Fill = "original"

    @property
    def unchanged_pixels(self) -> NDArray[np.float32] | None:
        """The source's own pixels when nothing is to be repainted (strength 0)."""
        if self.source is None or len(self.sigmas) > 1:
            return None
        return np.asarray(self.source, dtype=np.float32) / 255.0

    def prepare_tokens(self, noise: mx.array, seed: int, *, latents_given: bool) -> mx.array:
        """The tokens to begin with: noise, or the source with noise in it.

        Latents `latents_given` for an inpainting are begun with as they are, as diffusers' pipeline does.
        """
        if self.source_tokens is None or (latents_given and self.mask is not None):
            return noise
        return latents.add_noise(self._fill_masked(self.source_tokens, noise, seed), noise, float(self.sigmas[0]))

    def _fill_masked(self, clean: mx.array, noise: mx.array, seed: int) -> mx.array:
        """The source's tokens with nothing, or with noise of the seed's own, under the mask."""
        if self.mask is None or self.fill not in {"noise", "zero"}:
            return clean
        repaint = vae.mask_to_tokens(self.mask)
        # Another noise than the one that is denoised: the seed's next.
        other = mx.random.normal(noise.shape, key=mx.random.split(mx.random.key(seed))[1])
        return (1 - repaint) * clean + (repaint * other if self.fill == "noise" else 0)

    def restore_unmasked_tokens(self, values: mx.array, noise: mx.array, sigma: float) -> mx.array:
        """Outside the mask, the source at this noise level instead of what was painted."""
        if self.mask is None or self.source_tokens is None:
            return values
        repaint = vae.mask_to_tokens(self.mask)
        return (1 - repaint) * latents.add_noise(self.source_tokens, noise, sigma) + repaint * values

    def restore_unmasked_pixels(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outside the mask, the source's own pixels."""
        if self.mask is None or self.source is None:
            return pixels
        return vae.blend_unmasked(pixels, self.source, self.mask)


def prepare_image_inputs(request: GenerateRequest, scheduler: Config, autoencoder: Autoencoder) -> ImageInputs:
    """Encode the request's pictures and choose its noise levels."""
    rows, columns = request.height // SIDE_STEP, request.width // SIDE_STEP
    source = source_latents = mask = None
    conditions: list[mx.array] = []
    fill = request.retouch.fill
    if request.source is not None:
        source = vae.fit_source(request.source, request.width, request.height)
        if request.stretch is None:
            source_latents = autoencoder.encode(_fill_surroundings(request, source))
        else:
            source_latents = _encode_stretched(request, autoencoder)
    if request.mask is not None and source_latents is not None:
        mask = vae.fit_mask(request.mask, request.width, request.height)
        # An inpainting looks at its own source first (diffusers' Flux2KleinInpaintPipeline).
        conditions.append(
            source_latents if fill in {"original", "surroundings"} else autoencoder.encode(_hide_masked(source, mask))
        )
    conditions += [autoencoder.encode(vae.fit_reference(image)) for image in request.references]
    return ImageInputs(
        rows=rows,
        columns=columns,
        positions=latents.make_grid_positions(rows, columns, time=0),
        sigmas=_sigmas(request, Schedule.from_config(scheduler), rows * columns),
        source=source,
        source_tokens=latents.pack(source_latents) if source_latents is not None else None,
        mask=mask,
        references=_concatenate_references(conditions),
        fill=fill,
    )


def _fill_surroundings(request: GenerateRequest, source: Image.Image) -> Image.Image:
    """The source as it is painted over: with its surroundings' colours under the mask, where those are wanted."""
    if request.mask is None or request.retouch.fill != "surroundings":
        return source
    return masks.fill_with_surroundings(source, fitting.resize_to_exact(request.mask.convert("L"), source.size))


def _encode_stretched(request: GenerateRequest, autoencoder: Autoencoder) -> mx.array:
    """The source encoded at about its own size, its latents brought to the request's."""
    assert request.source is not None
    assert request.stretch is not None
    encoded = autoencoder.encode(vae.fit_latents(request.source))
    return latents.resize_latents(encoded, request.height // SIDE_STEP, request.width // SIDE_STEP, request.stretch)


def _hide_masked(source: Image.Image | None, mask: NDArray[np.float32]) -> Image.Image:
    """The source, grey where it is to be repainted: what is replaced by noise must not be looked at."""
    assert source is not None
    keep = Image.fromarray(((mask < 0.5) * 255).astype(np.uint8))
    return Image.composite(source, Image.new("RGB", source.size, "grey"), keep)


def _sigmas(request: GenerateRequest, schedule: Schedule, tokens: int) -> Sigmas:
    if request.source is None:
        return schedule.make_sigmas(tokens, request.steps)
    if request.strength == 0:
        return np.zeros(1, np.float32)
    levels = schedule.make_repaint_sigmas if request.mask is None else schedule.make_inpaint_sigmas
    return levels(tokens, request.steps, request.strength)


def _concatenate_references(patches: list[mx.array]) -> Tokens | None:
    if not patches:
        return None
    tokens, positions = [], []
    for number, each in enumerate(patches, start=1):
        tokens.append(latents.pack(each))
        _, _, rows, columns = each.shape
        positions.append(latents.make_grid_positions(rows, columns, time=number * latents.REFERENCE_TIME_STEP))
    return Tokens(mx.concatenate(tokens, axis=1), mx.concatenate(positions, axis=0))
