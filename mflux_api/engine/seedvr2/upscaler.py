"""The SeedVR2 pipeline: encode the source, restore it in one step from noise, decode it, correct its colours.

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
# Time of pure noise. The only step goes from there to the picture.
START = 1000.0
TILES = TilingConfig()
UNUSED_FIELDS = ("mask", "references", "loras", "latents")


@dataclass(frozen=True)
class PreparedSource:
    """The encoded source, shared by all pictures of a request.

    `source`: float32 (1, 3, H, W) in -1..1, of the requested size. `condition`: its latents and a mask of ones, float32
    (1, C + 1, 1, h, w). `seconds`: duration of the encoding.
    """

    source: mx.array
    condition: mx.array
    seconds: float


class Upscaler:
    """A loaded SeedVR2. Use it on the thread that loaded it.

    `bits`: quantize the transformer while loading. Raises ModelCorrupt, ModelUnsupported.
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
        """Restore the source at `requested_size` once for each seed. Yields a Step, then the Picture.

        The model uses no prompt, guidance or number of steps. A source as large as the canvas is padded already and is
        cropped at its centre. Closing the generator after any event stops the computation and frees the working memory.
        There is only one step, so an early stop can only skip the pictures that follow. Raises InvalidRequest without a
        source, or for an option that the model cannot use.
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
            # The exception's traceback keeps the inner generator's frame alive, and with it the latents.
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
        """Take one Euler step over the whole time: noise minus velocity. float32 (1, C, 1, h, w), evaluated."""
        rows, columns = condition.shape[-2:]
        noise = SeedVR2LatentCreator.create_noise_latents(seed, rows, columns, latent_channels=self.latent_channels)
        seen = mx.concatenate([noise, condition], axis=1).astype(self.dtype)
        with allow_empty_cumsum():
            velocity = self.transformer(vid=seen, txt=self.text_embeddings, timestep=mx.array(START))
        latents: mx.array = noise - velocity.astype(mx.float32)
        mx.eval(latents)
        return latents

    def _decode_pixels(self, latents: mx.array, source: mx.array) -> NDArray[np.float32]:
        """Decode, crop to the source's size and correct the colours by the source. float32 (H, W, 3) in 0..1."""
        height, width = source.shape[-2:]
        with use_dtype(self.dtype):
            decoded = VAEUtil.decode(self.vae, latents.astype(self.dtype), TILES)
        cropped = decoded[:, :, :height, :width].astype(mx.float32)
        return vae.decoded_to_pixels(SeedVR2Util.apply_color_correction(cropped, source))


def load_upscaler(
    layout: SeedVR2Checkpoint, *, bits: int | None, precision: Precision, low_ram: bool, embedding_cache: int
) -> Upscaler:
    """Load a SeedVR2 checkpoint. It has no text encoder, so `low_ram` and `embedding_cache` have no effect."""
    return Upscaler(layout, bits, precision)


def _check_request(request: GenerateRequest) -> None:
    if request.source is None:
        raise InvalidRequest("SeedVR2 enlarges pictures and cannot paint from words: send a picture.", field="image")
    for name in UNUSED_FIELDS:
        value = getattr(request, name)
        if value is not None and not (isinstance(value, tuple) and not value):
            raise InvalidRequest(f"SeedVR2 enlarges a whole picture and has no use for {name}.", field=name)


def _fit_source(request: GenerateRequest) -> Image.Image:
    """Crop or resize the source to the requested size, with mflux's filter (bicubic)."""
    assert request.source is not None
    source, size = request.source.convert("RGB"), request.requested_size
    if source.size == (request.width, request.height):
        return fitting.crop_centre(source, size)
    return source if source.size == size else source.resize(size, Image.Resampling.BICUBIC)


def _pad_edges(source: mx.array) -> mx.array:
    """Repeat the right and bottom edges until the sides are multiples of 16."""
    down, right = (-side % SIDE_STEP for side in source.shape[-2:])
    return mx.pad(source, [(0, 0), (0, 0), (0, down), (0, right)], mode="edge")
