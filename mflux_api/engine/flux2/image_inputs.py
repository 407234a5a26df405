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
class Canvas:
    """What is the same for every seed of a request.

    `source`: the picture being repainted, `clean` its tokens, float32 (1, N, C); `mask`: float32 (H, W), 1 repaints.
    """

    rows: int
    columns: int
    positions: mx.array
    sigmas: Sigmas
    source: Image.Image | None
    clean: mx.array | None
    mask: NDArray[np.float32] | None
    references: Tokens | None
    fill: Fill = "original"

    @property
    def kept(self) -> NDArray[np.float32] | None:
        """The source's own pixels when nothing is to be repainted (strength 0)."""
        if self.source is None or len(self.sigmas) > 1:
            return None
        return np.asarray(self.source, dtype=np.float32) / 255.0

    def start(self, noise: mx.array, seed: int, *, given: bool) -> mx.array:
        """The tokens to begin with: noise, or the source with noise in it.

        Latents `given` for an inpainting are begun with as they are, as diffusers' pipeline does.
        """
        if self.clean is None or (given and self.mask is not None):
            return noise
        return latents.add_noise(self._filled(self.clean, noise, seed), noise, float(self.sigmas[0]))

    def _filled(self, clean: mx.array, noise: mx.array, seed: int) -> mx.array:
        """The source's tokens with nothing, or with noise of the seed's own, under the mask."""
        if self.mask is None or self.fill not in {"noise", "zero"}:
            return clean
        repaint = vae.mask_tokens(self.mask)
        # Another noise than the one that is denoised: the seed's next.
        other = mx.random.normal(noise.shape, key=mx.random.split(mx.random.key(seed))[1])
        return (1 - repaint) * clean + (repaint * other if self.fill == "noise" else 0)

    def hold(self, values: mx.array, noise: mx.array, sigma: float) -> mx.array:
        """Outside the mask, the source at this noise level instead of what was painted."""
        if self.mask is None or self.clean is None:
            return values
        repaint = vae.mask_tokens(self.mask)
        return (1 - repaint) * latents.add_noise(self.clean, noise, sigma) + repaint * values

    def finish(self, pixels: NDArray[np.float32]) -> NDArray[np.float32]:
        """Outside the mask, the source's own pixels."""
        if self.mask is None or self.source is None:
            return pixels
        return vae.keep_unmasked(pixels, self.source, self.mask)


def prepare(request: GenerateRequest, scheduler: Config, autoencoder: Autoencoder) -> Canvas:
    """Encode the request's pictures and choose its noise levels."""
    rows, columns = request.height // SIDE_STEP, request.width // SIDE_STEP
    source = clean = mask = None
    conditions: list[mx.array] = []
    fill = request.retouch.fill
    if request.source is not None:
        source = vae.fit_source(request.source, request.width, request.height)
        if request.stretch is None:
            clean = autoencoder.encode(_filled(request, source))
        else:
            clean = _stretched(request, autoencoder)
    if request.mask is not None and clean is not None:
        mask = vae.fit_mask(request.mask, request.width, request.height)
        # An inpainting looks at its own source first (diffusers' Flux2KleinInpaintPipeline).
        conditions.append(clean if fill in {"original", "surroundings"} else autoencoder.encode(_hidden(source, mask)))
    conditions += [autoencoder.encode(vae.fit_reference(image)) for image in request.references]
    return Canvas(
        rows=rows,
        columns=columns,
        positions=latents.grid_positions(rows, columns, time=0),
        sigmas=_sigmas(request, Schedule.from_config(scheduler), rows * columns),
        source=source,
        clean=latents.pack(clean) if clean is not None else None,
        mask=mask,
        references=_as_references(conditions),
        fill=fill,
    )


def _filled(request: GenerateRequest, source: Image.Image) -> Image.Image:
    """The source as it is painted over: with its surroundings' colours under the mask, where those are wanted."""
    if request.mask is None or request.retouch.fill != "surroundings":
        return source
    return masks.over_surroundings(source, fitting.stretched(request.mask.convert("L"), source.size))


def _stretched(request: GenerateRequest, autoencoder: Autoencoder) -> mx.array:
    """The source encoded at about its own size, its latents brought to the request's."""
    assert request.source is not None
    assert request.stretch is not None
    encoded = autoencoder.encode(vae.fit_latents(request.source))
    return latents.stretch(encoded, request.height // SIDE_STEP, request.width // SIDE_STEP, request.stretch)


def _hidden(source: Image.Image | None, mask: NDArray[np.float32]) -> Image.Image:
    """The source, grey where it is to be repainted: what is replaced by noise must not be looked at."""
    assert source is not None
    keep = Image.fromarray(((mask < 0.5) * 255).astype(np.uint8))
    return Image.composite(source, Image.new("RGB", source.size, "grey"), keep)


def _sigmas(request: GenerateRequest, schedule: Schedule, tokens: int) -> Sigmas:
    if request.source is None:
        return schedule.full(tokens, request.steps)
    if request.strength == 0:
        return np.zeros(1, np.float32)
    levels = schedule.partial if request.mask is None else schedule.truncated
    return levels(tokens, request.steps, request.strength)


def _as_references(patches: list[mx.array]) -> Tokens | None:
    if not patches:
        return None
    tokens, positions = [], []
    for number, each in enumerate(patches, start=1):
        tokens.append(latents.pack(each))
        _, _, rows, columns = each.shape
        positions.append(latents.grid_positions(rows, columns, time=number * latents.REFERENCE_TIME_STEP))
    return Tokens(mx.concatenate(tokens, axis=1), mx.concatenate(positions, axis=0))
