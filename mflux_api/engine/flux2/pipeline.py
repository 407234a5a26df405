"""The FLUX.2 pipeline: encode the prompt and pictures, denoise, decode."""

import time
import traceback
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise

import mlx.core as mx
import numpy as np
from mflux.models.flux2.model.flux2_transformer.transformer import Flux2Transformer
from numpy.typing import NDArray

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.checkpoints.language_model import find_language_model
from mflux_api.engine.flux2 import latents, vae
from mflux_api.engine.flux2.chat_templates import MistralChatTemplate, QwenChatTemplate
from mflux_api.engine.flux2.image_inputs import ImageInputs, prepare_image_inputs
from mflux_api.engine.flux2.loading import NetworkLoader
from mflux_api.engine.flux2.lora import AdapterSet
from mflux_api.engine.flux2.networks import Encoder
from mflux_api.engine.flux2.prompt_encoder import EmbeddingCache, PromptEncoder
from mflux_api.engine.flux2.prompt_upsampling import TextGenerator, upsample_prompt
from mflux_api.engine.flux2.sampler import Denoiser, Tokens
from mflux_api.engine.flux2.vae import Autoencoder, PreviewMap
from mflux_api.engine.memory import release_unused
from mflux_api.engine.precision import Precision
from mflux_api.ipc.messages import LoraReport, PaintingEvent, Picture, Preview, Step, TakeEarlyStop, never_stop_early
from mflux_api.request import LARGEST_SEED, EarlyStop, GenerateRequest

REMEMBERED = 64


@dataclass(frozen=True)
class PreparedRequest:
    """The inputs that all pictures of a request share. `seconds`: duration of the preparation."""

    request: GenerateRequest
    loras: tuple[LoraReport, ...]
    prompt_embeddings: Sequence[mx.array]
    negative_embedding: mx.array | None
    inputs: ImageInputs
    seconds: float


@dataclass
class StageTimes:
    """Seconds of each stage of one picture."""

    encoding: float
    diffusion: float = 0.0
    decoding: float = 0.0

    def to_timings(self) -> dict[str, float]:
        stages = {"encoding": self.encoding, "diffusion": self.diffusion, "decoding": self.decoding}
        return {**stages, "total": sum(stages.values())}


class Pipeline:
    """A loaded model. Use it on the thread that loaded it: MLX's streams belong to threads."""

    def __init__(self, loader: NetworkLoader, *, low_ram: bool, embedding_cache: int) -> None:
        self.checkpoint = loader.checkpoint
        self.loader = loader
        self.bits = loader.resulting_bits
        self.dtype = loader.precision.dtype
        self.low_ram = low_ram
        chat_template = MistralChatTemplate if self.checkpoint.guidance_embeds else QwenChatTemplate
        self.prompt_encoder = PromptEncoder(
            chat_template(self.checkpoint.tokenizer, self.checkpoint.max_sequence_length),
            loader.load_text_encoder,
            self.dtype,
            EmbeddingCache(embedding_cache),
        )
        if not low_ram:
            self.prompt_encoder.get_encoder()
        # The last upsampled prompts by (prompt, edit).
        self._upsampled_prompts: dict[tuple[str, bool], str] = {}
        self._adapters: AdapterSet | None = None
        if not self.takes_turns:
            self._adapters = self._load_transformer()
        self.autoencoder = Autoencoder(loader.load_vae(), self.dtype)
        self.preview_map = PreviewMap.load(self.checkpoint.vae.folder)

    @property
    def takes_turns(self) -> bool:
        """Whether text encoder and transformer are never in memory together. dev's take 18 and 10 GB in 4 bits."""
        return self.low_ram and self.checkpoint.guidance_embeds

    @property
    def adapters(self) -> AdapterSet:
        """The adapters of the transformer. If it is not in memory, unloads the text encoder and loads it."""
        if self._adapters is None:
            self.prompt_encoder.release()
            self._adapters = self._load_transformer()
        return self._adapters

    @property
    def transformer(self) -> Flux2Transformer:
        return self.adapters.transformer

    @property
    def text_encoder(self) -> Encoder:
        """The text encoder, loaded if needed. If the networks take turns, unloads the transformer first."""
        if self.takes_turns and self._adapters is not None:
            self._adapters = None
            release_unused()
        return self.prompt_encoder.get_encoder()

    def _load_transformer(self) -> AdapterSet:
        return AdapterSet(self.loader.load_transformer())

    def paint(
        self, request: GenerateRequest, take_early_stop: TakeEarlyStop = never_stop_early
    ) -> Generator[PaintingEvent, None, EarlyStop | None]:
        """Run one pass: yield each step once it is computed, a preview after it, and each picture when done.

        Of `PaintOptions`, only `schedule`, `emphasis`, `variation`, `stretch` and the fill of `retouch` are used here.
        Closing the generator after any event stops the computation and frees the working memory. `take_early_stop` may
        end a picture, or all pictures, after any step. Returns the last early stop, or None.
        """
        prepared = self._prepare_request(request)
        early_stop = None
        try:
            for index in range(len(request.seeds)):
                early_stop = yield from self._paint_picture(prepared, index, take_early_stop)
                if early_stop is EarlyStop.INTERRUPT:
                    break
        except GeneratorExit as stop:
            # The exception's traceback keeps the inner generator's frame alive, and with it the latents.
            traceback.clear_frames(stop.__traceback__)
            del prepared
            mx.clear_cache()
            raise
        return early_stop

    def upsample_prompt(self, prompt: str, *, edit: bool) -> Generator[PaintingEvent, None, str]:
        """Return a more detailed prompt, written by the text encoder as a language model.

        Loads the rest of the language model for this call. `edit`: the prompt is an instruction for changing pictures.
        Raises ModelUnsupported if the text encoder cannot generate text.
        """
        known = self._upsampled_prompts.get((prompt, edit))
        if known is not None:
            return known
        language = find_language_model(self.checkpoint)
        encoder = self.text_encoder
        generator = TextGenerator(encoder, self.loader.load_language_model_tail(language), self.dtype)
        folder = self.checkpoint.text_encoder.folder
        try:
            upsampled = yield from upsample_prompt(
                generator, self.prompt_encoder.chat_template, folder, prompt, edit=edit
            )
        except GeneratorExit as stop:
            # As in `paint`: the exception's traceback keeps frames alive that hold the language model.
            traceback.clear_frames(stop.__traceback__)
            raise
        finally:
            del generator, encoder
            release_unused()
        self._upsampled_prompts = dict([*self._upsampled_prompts.items(), ((prompt, edit), upsampled)][-REMEMBERED:])
        return upsampled

    def choose_guidance(self, request: GenerateRequest) -> float:
        """Return the guidance that is used. Distilled models always run at 1. dev takes any value."""
        if self.checkpoint.guidance_embeds:
            return float(request.guidance)
        fixed = self.checkpoint.distilled or self.checkpoint.cached_references
        return 1.0 if fixed or request.guidance <= 1 else float(request.guidance)

    def _prepare_request(self, request: GenerateRequest) -> PreparedRequest:
        began = time.perf_counter()
        if self._adapters is not None:
            # Reject a LoRA file that does not fit before anything is computed.
            self._adapters.apply(request.loras)
        prompts, negative = self._encode_prompts(request)
        loras = self.adapters.apply(request.loras)
        inputs = prepare_image_inputs(request, self.checkpoint.scheduler, self.autoencoder)
        return PreparedRequest(request, loras, prompts, negative, inputs, seconds=time.perf_counter() - began)

    def _encode_prompts(self, request: GenerateRequest) -> tuple[list[mx.array], mx.array | None]:
        """Encode the prompt of each step and, for classifier-free guidance, the negative prompt (else None)."""
        spans = {emphasis.text: emphasis.spans for emphasis in request.emphasis}
        against = [request.negative_prompt] if self._uses_cfg(request) else []
        texts = dict.fromkeys([*_list_step_prompts(request), *against])
        if not self.prompt_encoder.has_cached(texts):
            self.text_encoder  # noqa: B018 - loads the text encoder
        encoded = {text: self.prompt_encoder.encode(text, spans.get(text, ())) for text in texts}
        prompts = [encoded[text] for text in _list_step_prompts(request)]
        negative = encoded[request.negative_prompt] if self._uses_cfg(request) else None
        if self.low_ram:
            self.prompt_encoder.release()
        return prompts, negative

    def _uses_cfg(self, request: GenerateRequest) -> bool:
        """Whether classifier-free guidance is used. dev does not use it and ignores a negative prompt."""
        return not self.checkpoint.guidance_embeds and self.choose_guidance(request) > 1

    def _make_denoiser(self, prepared: PreparedRequest) -> Denoiser:
        return Denoiser(
            self.transformer,
            prompt_embeddings=prepared.prompt_embeddings,
            negative_embedding=prepared.negative_embedding,
            guidance=self.choose_guidance(prepared.request),
            references=prepared.inputs.references,
            cache_references=self.checkpoint.cached_references,
            guidance_embeds=self.checkpoint.guidance_embeds,
            dtype=self.dtype,
        )

    def _make_noise(self, prepared: PreparedRequest, index: int) -> mx.array:
        """Make the picture's noise as tokens, float32 (1, tokens, channels)."""
        request, inputs = prepared.request, prepared.inputs
        if request.latents is not None:
            return latents.pack(mx.array(request.latents[index : index + 1]))
        shape = (self.autoencoder.channels, inputs.rows, inputs.columns)
        noise = latents.make_noise(request.seeds[index], *shape)
        varied = request.variation
        if varied is not None and varied.strength > 0:
            other = latents.make_noise((varied.seed + index) % (LARGEST_SEED + 1), *shape)
            noise = latents.slerp(noise, other, varied.strength)
        return latents.pack(noise)

    def _paint_picture(
        self, prepared: PreparedRequest, index: int, take_early_stop: TakeEarlyStop
    ) -> Generator[PaintingEvent, None, EarlyStop | None]:
        request, inputs = prepared.request, prepared.inputs
        seed, steps = request.seeds[index], len(inputs.sigmas) - 1
        clock = StageTimes(prepared.seconds)
        denoiser = self._make_denoiser(prepared)
        noise = self._make_noise(prepared, index)
        values = inputs.prepare_tokens(noise, seed, latents_given=request.latents is not None)
        early_stop = None
        for number, (sigma, following) in enumerate(pairwise(inputs.sigmas), start=1):
            began = time.perf_counter()
            velocity = denoiser.predict_velocity(Tokens(values, inputs.positions), float(sigma))
            finished = values - float(sigma) * velocity
            values = inputs.restore_unmasked_tokens(
                values + float(following - sigma) * velocity, noise, float(following)
            )
            mx.eval(values)
            clock.diffusion += (seconds := time.perf_counter() - began)
            yield Step(number=number, steps=steps, seed=seed, seconds=seconds)
            early_stop = take_early_stop()
            if early_stop is not None:
                values = inputs.restore_unmasked_tokens(finished, noise, 0.0)
                break
            if number < steps:
                yield from self._make_preview(number, seed, latents.unpack(finished, inputs.rows, inputs.columns))
        began = time.perf_counter()
        pixels = self._decode_pixels(inputs, values)
        clock.decoding = time.perf_counter() - began
        # An early stop that comes during the decoding applies to this picture, not to the next.
        early_stop = take_early_stop() or early_stop
        yield Picture(
            image=vae.pixels_to_image(inputs.restore_unmasked_pixels(pixels)),
            array=pixels,
            seed=seed,
            timings=clock.to_timings(),
            steps=request.steps,
            guidance=denoiser.guidance,
            loras=prepared.loras,
        )
        return early_stop

    def _make_preview(self, number: int, seed: int, patches: mx.array) -> Iterator[Preview]:
        image = self.preview_map.render(patches)
        if image is not None:
            yield Preview(number=number, seed=seed, image=image)

    def _decode_pixels(self, inputs: ImageInputs, values: mx.array) -> NDArray[np.float32]:
        if inputs.unchanged_pixels is not None:
            return inputs.unchanged_pixels
        return self.autoencoder.decode(latents.unpack(values, inputs.rows, inputs.columns))


def load_pipeline(
    checkpoint: Checkpoint, *, bits: int | None, precision: Precision, low_ram: bool, embedding_cache: int
) -> Pipeline:
    """Load a FLUX.2 checkpoint. Raises ModelIncomplete, ModelCorrupt, ModelUnsupported."""
    return Pipeline(NetworkLoader(checkpoint, bits, precision), low_ram=low_ram, embedding_cache=embedding_cache)


def _list_step_prompts(request: GenerateRequest) -> list[str]:
    """Return the prompt of each step of the request."""
    if not request.schedule:
        return [request.prompt] * request.steps
    steps = range(1, request.steps + 1)
    return [next((text for last, text in request.schedule if step <= last), request.prompt) for step in steps]
