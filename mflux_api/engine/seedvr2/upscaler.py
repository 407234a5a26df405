"""SeedVR2 from a request to pictures: the source encoded, restored in one step from noise, decoded, its colours kept.

Source of the mathematics: mflux's SeedVR2.generate_image (ByteDance's SeedVR2, arXiv 2506.05301).
"""

import time
import traceback
from collections.abc import Generator
from dataclasses import dataclass

import mlx.core as mx
import numpy as np
from mflux.models.common.vae.tiling_config import TilingConfig
from mflux.models.common.vae.vae_util import VAEUtil
from mflux.models.seedvr2.latent_creator.seedvr2_latent_creator import SeedVR2LatentCreator
from mflux.models.seedvr2.model.seedvr2_text_encoder.text_embeddings import SeedVR2TextEmbeddings
from mflux.models.seedvr2.variants.upscale.seedvr2_util import SeedVR2Util
from numpy.typing import NDArray
from PIL import Image

from mflux_api.checkpoints.seedvr2 import SeedVR2Checkpoint
from mflux_api.engine.flux2 import vae
from mflux_api.engine.precision import Precision, use_dtype
from mflux_api.engine.seedvr2.loading import allow_empty_cumsum, load_transformer, load_vae
from mflux_api.errors import InvalidRequest, ModelUnsupported
from mflux_api.ipc.messages import PaintingEvent, Picture, Step, TakeEarlyStop, never_stop_early
from mflux_api.pixels import fitting
from mflux_api.request import EarlyStop, GenerateRequest

SIDE_STEP = 16
# The one step goes from pure noise, time 1000, to the picture.
START = 1000.0
TILES = TilingConfig()
UNUSED_FIELDS = ("mask", "references", "loras", "latents")


@dataclass(frozen=True)
class PreparedSource:
    """What the pictures of a request share. `source`: float32 (1, 3, H, W) in -1..1, of the size that is given back;
    `condition`: its latents and a mask of ones, float32 (1, C + 1, 1, h, w); `seconds`: what encoding took.
    """

    source: mx.array
    condition: mx.array
    seconds: float


class Upscaler:
    """A loaded SeedVR2, on the thread that made it.

    `bits`: quantize the transformer at load. Raises ModelCorrupt, ModelUnsupported.
    """

    def __init__(self, layout: SeedVR2Checkpoint, bits: int | None, precision: Precision) -> None:
        self.bits = bits
        self.dtype = precision.dtype
        self.latent_channels: int = layout.vae_config["latent_channels"]
        self.text_embeddings = SeedVR2TextEmbeddings.load_positive().astype(self.dtype)
        mx.eval(self.text_embeddings)
        self._check_networks(layout)
        self.transformer = load_transformer(layout, bits, precision)
        self.vae = load_vae(layout, precision)

    def paint(
        self, request: GenerateRequest, take_early_stop: TakeEarlyStop = never_stop_early
    ) -> Generator[PaintingEvent, None, EarlyStop | None]:
        """The request's source at `asked_size`, once a seed: a Step when it is restored, then the Picture.

        The model has no words, guidance or number of steps to choose. A source that is framed already, as large as the
        canvas, is cut at its centre. Whoever iterates may stop after any event: nothing more is computed and the
        working memory comes back. There is one step, so a cut can only leave out the pictures that follow. Raises
        InvalidRequest without a source, or with what the model has no use for.
        """
        _check_request(request)
        prepared = self._encode_source(request)
        early_stop = None
        try:
            for seed in request.seeds:
                early_stop = yield from self._paint_picture(prepared, seed, take_early_stop)
                if early_stop is EarlyStop.INTERRUPT:
                    break
        except GeneratorExit as stop:
            # The picture's own frame is kept by the exception in flight, and its latents with it.
            traceback.clear_frames(stop.__traceback__)
            del prepared
            mx.clear_cache()
            raise
        return early_stop

    def _check_networks(self, layout: SeedVR2Checkpoint) -> None:
        sizes, folder = layout.transformer_config, layout.transformer.path.parent
        found = (sizes["vid_in_channels"], sizes["vid_out_channels"], sizes["txt_in_dim"])
        expected = (2 * self.latent_channels + 1, self.latent_channels, self.text_embeddings.shape[-1])
        if found != expected:
            raise ModelUnsupported(
                f"The networks in {folder} do not belong together: channels in, channels out and width of words are "
                f"{found} and not {expected}.",
                path=str(folder),
            )

    def _encode_source(self, request: GenerateRequest) -> PreparedSource:
        began = time.perf_counter()
        source = vae.image_to_array(_fit_source(request))
        with use_dtype(self.dtype):
            encoded = VAEUtil.encode(self.vae, _pad_edges(source).astype(self.dtype), TILES)
        condition = SeedVR2LatentCreator.create_condition(encoded.astype(mx.float32))
        mx.eval(source, condition)
        return PreparedSource(source, condition, seconds=time.perf_counter() - began)

    def _paint_picture(
        self, prepared: PreparedSource, seed: int, take_early_stop: TakeEarlyStop
    ) -> Generator[PaintingEvent, None, EarlyStop | None]:
        began = time.perf_counter()
        latents = self._restore_latents(prepared.condition, seed)
        timings = {"encoding": prepared.seconds, "diffusion": time.perf_counter() - began}
        yield Step(number=1, steps=1, seed=seed, seconds=timings["diffusion"])
        early_stop = take_early_stop()
        began = time.perf_counter()
        pixels = self._decode_pixels(latents, prepared.source)
        timings["decoding"] = time.perf_counter() - began
        timings["total"] = sum(timings.values())
        yield Picture(
            image=vae.pixels_to_image(pixels), array=pixels, seed=seed, timings=timings, steps=1, guidance=1.0
        )
        return early_stop

    def _restore_latents(self, condition: mx.array, seed: int) -> mx.array:
        """One Euler step over the whole time, float32 (1, C, 1, h, w), evaluated: the noise less its velocity."""
        rows, columns = condition.shape[-2:]
        noise = SeedVR2LatentCreator.create_noise_latents(seed, rows, columns, latent_channels=self.latent_channels)
        seen = mx.concatenate([noise, condition], axis=1).astype(self.dtype)
        with allow_empty_cumsum():
            velocity = self.transformer(vid=seen, txt=self.text_embeddings, timestep=mx.array(START))
        latents: mx.array = noise - velocity.astype(mx.float32)
        mx.eval(latents)
        return latents

    def _decode_pixels(self, latents: mx.array, source: mx.array) -> NDArray[np.float32]:
        """Decoded, cut to the source's size and given its colours: float32 (H, W, 3) in 0..1."""
        height, width = source.shape[-2:]
        with use_dtype(self.dtype):
            decoded = VAEUtil.decode(self.vae, latents.astype(self.dtype), TILES)
        cropped = decoded[:, :, :height, :width].astype(mx.float32)
        return vae.decoded_to_pixels(SeedVR2Util.apply_color_correction(cropped, source))


def load_upscaler(
    layout: SeedVR2Checkpoint, *, bits: int | None, precision: Precision, low_ram: bool, embedding_cache: int
) -> Upscaler:
    """Load a SeedVR2 checkpoint; it has no text encoder to let go of, and no embeddings to remember."""
    return Upscaler(layout, bits, precision)


def _check_request(request: GenerateRequest) -> None:
    if request.source is None:
        raise InvalidRequest("SeedVR2 enlarges pictures and cannot paint from words: send a picture.", field="image")
    for name in UNUSED_FIELDS:
        value = getattr(request, name)
        if value is not None and not (isinstance(value, tuple) and not value):
            raise InvalidRequest(f"SeedVR2 enlarges a whole picture and has no use for {name}.", field=name)


def _fit_source(request: GenerateRequest) -> Image.Image:
    """The source in the size that is given back, by mflux's filter."""
    assert request.source is not None
    source, size = request.source.convert("RGB"), request.requested_size
    if source.size == (request.width, request.height):
        return fitting.crop_centre(source, size)
    return source if source.size == size else source.resize(size, Image.Resampling.BICUBIC)


def _pad_edges(source: mx.array) -> mx.array:
    """Right and bottom edges repeated until the sides divide by 16."""
    down, right = (-side % SIDE_STEP for side in source.shape[-2:])
    return mx.pad(source, [(0, 0), (0, 0), (0, down), (0, right)], mode="edge")
