"""Prepare the image inputs of a request: source, mask, references and noise levels."""

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
    """Image inputs that are the same for every seed of a request.

    `source`: the picture to repaint. `source_tokens`: its tokens, float32 (1, N, C). `mask`: float32 (H, W), 1
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
        """The source's pixels if nothing is to be repainted (strength 0), else None. float32 (H, W, 3) in 0..1."""
        if self.source is None or len(self.sigmas) > 1:
            return None
        return np.asarray(self.source, dtype=np.float32) / 255.0

    def prepare_tokens(self, noise: mx.array, seed: int, *, latents_given: bool) -> mx.array:
        """Return the initial tokens: noise, or the source with noise added.

        `latents_given`: `noise` was given with the request. Inpainting then starts from it directly, as diffusers'
        pipeline does.
        """
        if self.source_tokens is None or (latents_given and self.mask is not None):
            return noise
        return latents.add_noise(self._fill_masked(self.source_tokens, noise, seed), noise, float(self.sigmas[0]))

    def _fill_masked(self, clean: mx.array, noise: mx.array, seed: int) -> mx.array:
        """Fill the source's tokens under the mask as `fill` says: with zeros, or with noise from the seed."""
        if self.mask is None or self.fill not in {"noise", "zero"}:
            return clean
        repaint = vae.mask_to_tokens(self.mask)
        # Use another noise of the seed than the one that is denoised.
        other = mx.random.normal(noise.shape, key=mx.random.split(mx.random.key(seed))[1])
        return (1 - repaint) * clean + (repaint * other if self.fill == "noise" else 0)

    def restore_unmasked_tokens(self, values: mx.array, noise: mx.array, sigma: float) -> mx.array:
        """Replace the tokens outside the mask with the source at noise level `sigma`."""
        if self.mask is None or self.source_tokens is None:
            return values
        repaint = vae.mask_to_tokens(self.mask)
        return (1 - repaint) * latents.add_noise(self.source_tokens, noise, sigma) + repaint * values

    def restore_unmasked_pixels(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Replace the pixels outside the mask with the source's."""
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
        # Inpainting has its own source as the first reference (diffusers' Flux2KleinInpaintPipeline).
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
    """Fill the masked part of the source with the colours around it if the request's fill is "surroundings"."""
    if request.mask is None or request.retouch.fill != "surroundings":
        return source
    return masks.fill_with_surroundings(source, fitting.resize_to_exact(request.mask.convert("L"), source.size))


def _encode_stretched(request: GenerateRequest, autoencoder: Autoencoder) -> mx.array:
    """Encode the source at about its own size and resize its latents to the request's size."""
    assert request.source is not None
    assert request.stretch is not None
    encoded = autoencoder.encode(vae.fit_latents(request.source))
    return latents.resize_latents(encoded, request.height // SIDE_STEP, request.width // SIDE_STEP, request.stretch)


def _hide_masked(source: Image.Image | None, mask: NDArray[np.float32]) -> Image.Image:
    """Paint the masked part of the source grey, so that the model does not see what the fill replaces."""
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
