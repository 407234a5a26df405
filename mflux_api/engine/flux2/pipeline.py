"""FLUX.2 from a request to pictures: a generator that reads top to bottom."""

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
from mflux_api.engine.flux2.chat_templates import MistralChat, QwenChat
from mflux_api.engine.flux2.image_inputs import Canvas, prepare
from mflux_api.engine.flux2.loading import Loader
from mflux_api.engine.flux2.lora import Adapters
from mflux_api.engine.flux2.networks import Encoder
from mflux_api.engine.flux2.prompt_encoder import Conditioning, EmbeddingCache
from mflux_api.engine.flux2.prompt_upsampling import Writer, rewrite
from mflux_api.engine.flux2.sampler import Denoiser, Tokens
from mflux_api.engine.flux2.vae import Autoencoder, PreviewMap
from mflux_api.engine.memory import reclaim
from mflux_api.engine.precision import Precision
from mflux_api.ipc.messages import AskCut, Event, LoraReport, Picture, Preview, Step, never
from mflux_api.request import LARGEST_SEED, Cut, GenerateRequest

REMEMBERED = 64


@dataclass(frozen=True)
class Prepared:
    """What the pictures of a request share. `seconds`: what it took."""

    request: GenerateRequest
    loras: tuple[LoraReport, ...]
    prompts: Sequence[mx.array]
    negative: mx.array | None
    canvas: Canvas
    seconds: float


@dataclass
class Clock:
    """Seconds of each stage of one picture."""

    encoding: float
    diffusion: float = 0.0
    decoding: float = 0.0

    def report(self) -> dict[str, float]:
        stages = {"encoding": self.encoding, "diffusion": self.diffusion, "decoding": self.decoding}
        return {**stages, "total": sum(stages.values())}


class Pipeline:
    """A loaded model. Everything happens on the thread that made it: MLX's streams belong to threads."""

    def __init__(self, loader: Loader, *, low_ram: bool, embedding_cache: int) -> None:
        self.checkpoint = loader.checkpoint
        self.loader = loader
        self.bits = loader.resulting_bits
        self.dtype = loader.precision.dtype
        self.low_ram = low_ram
        chat = MistralChat if self.checkpoint.guidance_embeds else QwenChat
        self.conditioning = Conditioning(
            chat(self.checkpoint.tokenizer, self.checkpoint.text_length),
            loader.text_encoder,
            self.dtype,
            EmbeddingCache(embedding_cache),
        )
        if not low_ram:
            self.conditioning.load()
        # Prompts lately put into more words.
        self._written: dict[tuple[str, bool], str] = {}
        self._adapters: Adapters | None = None
        if not self.in_turn:
            self._adapters = self._load_transformer()
        self.autoencoder = Autoencoder(loader.vae(), self.dtype)
        self.previews = PreviewMap.load(self.checkpoint.vae.folder)

    @property
    def in_turn(self) -> bool:
        """Whether text encoder and transformer are never in memory together: dev's are 18 and 10 GB in 4 bits."""
        return self.low_ram and self.checkpoint.guidance_embeds

    @property
    def adapters(self) -> Adapters:
        """What the transformer wears; loads the transformer when it is not its turn now, and ends the encoder's."""
        if self._adapters is None:
            self.conditioning.release()
            self._adapters = self._load_transformer()
        return self._adapters

    @property
    def transformer(self) -> Flux2Transformer:
        return self.adapters.transformer

    @property
    def text_encoder(self) -> Encoder:
        """Loaded now if need be, the transformer's turn ended first where they take turns."""
        if self.in_turn and self._adapters is not None:
            self._adapters = None
            reclaim()
        return self.conditioning.load()

    def _load_transformer(self) -> Adapters:
        return Adapters(self.loader.transformer(), self.loader.skeleton)

    def paint(self, request: GenerateRequest, ask_cut: AskCut = never) -> Generator[Event, None, Cut | None]:
        """Yield each step once it is computed, a preview after it, and each picture when done.

        One pass of the model: of what `Craft` has, only the schedule, the variation, the fill and latents to be
        stretched mean something here. Whoever iterates may stop after any event: nothing more is computed and the
        working memory comes back. `ask_cut` may end a picture, or all, after any step; what it said last is returned.
        """
        prepared = self._prepare(request)
        cut = None
        try:
            for index in range(len(request.seeds)):
                cut = yield from self._paint_one(prepared, index, ask_cut)
                if cut is Cut.INTERRUPT:
                    break
        except GeneratorExit as stop:
            # The picture's own frame is kept by the exception in flight, and its latents with it.
            traceback.clear_frames(stop.__traceback__)
            del prepared
            mx.clear_cache()
            raise
        return cut

    def rewrite(self, prompt: str, *, edit: bool) -> Generator[Event, None, str]:
        """The prompt in more words, by the text encoder as a language model, the rest of which is loaded for it.

        `edit`: it says how pictures are to be changed. Raises ModelUnsupported where the text encoder cannot write.
        """
        known = self._written.get((prompt, edit))
        if known is not None:
            return known
        language = find_language_model(self.checkpoint)
        encoder = self.text_encoder
        writer = Writer(encoder, self.loader.language_model_tail(language), self.dtype)
        folder = self.checkpoint.text_encoder.folder
        try:
            written = yield from rewrite(writer, self.conditioning.chat, folder, prompt, edit=edit)
        except GeneratorExit as stop:
            # As in `paint`: the exception in flight keeps the frames that hold the language model.
            traceback.clear_frames(stop.__traceback__)
            raise
        finally:
            del writer, encoder
            reclaim()
        self._written = dict([*self._written.items(), ((prompt, edit), written)][-REMEMBERED:])
        return written

    def guidance(self, request: GenerateRequest) -> float:
        """The guidance that is really used: distilled models have it built in, dev takes any."""
        if self.checkpoint.guidance_embeds:
            return float(request.guidance)
        fixed = self.checkpoint.distilled or self.checkpoint.cached_references
        return 1.0 if fixed or request.guidance <= 1 else float(request.guidance)

    def _prepare(self, request: GenerateRequest) -> Prepared:
        began = time.perf_counter()
        if self._adapters is not None:
            # A file that does not fit is refused before anything is computed.
            self._adapters.wear(request.loras)
        prompts, negative = self._encode(request)
        loras = self.adapters.wear(request.loras)
        canvas = prepare(request, self.checkpoint.scheduler, self.autoencoder)
        return Prepared(request, loras, prompts, negative, canvas, seconds=time.perf_counter() - began)

    def _encode(self, request: GenerateRequest) -> tuple[list[mx.array], mx.array | None]:
        """The prompt of each step, and what is painted away from."""
        spans = {emphasis.text: emphasis.spans for emphasis in request.emphasis}
        against = [request.negative_prompt] if self._is_guided_away(request) else []
        texts = dict.fromkeys([*_prompts(request), *against])
        if not self.conditioning.knows(texts):
            self.text_encoder  # noqa: B018 - its turn begins
        encoded = {text: self.conditioning.encode(text, spans.get(text, ())) for text in texts}
        prompts = [encoded[text] for text in _prompts(request)]
        negative = encoded[request.negative_prompt] if self._is_guided_away(request) else None
        if self.low_ram:
            self.conditioning.release()
        return prompts, negative

    def _is_guided_away(self, request: GenerateRequest) -> bool:
        """Whether there is classifier-free guidance. With dev there is none, and a negative prompt means nothing."""
        return not self.checkpoint.guidance_embeds and self.guidance(request) > 1

    def _denoiser(self, prepared: Prepared) -> Denoiser:
        return Denoiser(
            self.transformer,
            prompts=prepared.prompts,
            negative=prepared.negative,
            guidance=self.guidance(prepared.request),
            references=prepared.canvas.references,
            cache_references=self.checkpoint.cached_references,
            guidance_embeds=self.checkpoint.guidance_embeds,
            dtype=self.dtype,
        )

    def _noise(self, prepared: Prepared, index: int) -> mx.array:
        """Packed noise, float32 (1, tokens, channels)."""
        request, canvas = prepared.request, prepared.canvas
        if request.latents is not None:
            return latents.pack(mx.array(request.latents[index : index + 1]))
        shape = (self.autoencoder.channels, canvas.rows, canvas.columns)
        noise = latents.seed_noise(request.seeds[index], *shape)
        varied = request.variation
        if varied is not None and varied.strength > 0:
            other = latents.seed_noise((varied.seed + index) % (LARGEST_SEED + 1), *shape)
            noise = latents.slerp(noise, other, varied.strength)
        return latents.pack(noise)

    def _paint_one(self, prepared: Prepared, index: int, ask_cut: AskCut) -> Generator[Event, None, Cut | None]:
        request, canvas = prepared.request, prepared.canvas
        seed, steps = request.seeds[index], len(canvas.sigmas) - 1
        clock = Clock(prepared.seconds)
        denoiser = self._denoiser(prepared)
        noise = self._noise(prepared, index)
        values = canvas.start(noise, seed, given=request.latents is not None)
        cut = None
        for number, (sigma, following) in enumerate(pairwise(canvas.sigmas), start=1):
            began = time.perf_counter()
            velocity = denoiser.velocity(Tokens(values, canvas.positions), float(sigma))
            finished = values - float(sigma) * velocity
            values = canvas.hold(values + float(following - sigma) * velocity, noise, float(following))
            mx.eval(values)
            clock.diffusion += (seconds := time.perf_counter() - began)
            yield Step(number=number, steps=steps, seed=seed, seconds=seconds)
            cut = ask_cut()
            if cut is not None:
                values = canvas.hold(finished, noise, 0.0)
                break
            if number < steps:
                yield from self._preview(number, seed, latents.unpack(finished, canvas.rows, canvas.columns))
        began = time.perf_counter()
        pixels = self._pixels(canvas, values)
        clock.decoding = time.perf_counter() - began
        # What was said during the decoding is for this picture, not for the next.
        cut = ask_cut() or cut
        yield Picture(
            image=vae.to_image(canvas.finish(pixels)),
            array=pixels,
            seed=seed,
            timings=clock.report(),
            steps=request.steps,
            guidance=denoiser.guidance,
            loras=prepared.loras,
        )
        return cut

    def _preview(self, number: int, seed: int, patches: mx.array) -> Iterator[Preview]:
        image = self.previews.render(patches)
        if image is not None:
            yield Preview(number=number, seed=seed, image=image)

    def _pixels(self, canvas: Canvas, values: mx.array) -> NDArray[np.float32]:
        if canvas.kept is not None:
            return canvas.kept
        return self.autoencoder.decode(latents.unpack(values, canvas.rows, canvas.columns))


def load_pipeline(
    checkpoint: Checkpoint, *, bits: int | None, precision: Precision, low_ram: bool, embedding_cache: int
) -> Pipeline:
    """Load a FLUX.2 checkpoint. Raises ModelIncomplete, ModelCorrupt, ModelUnsupported."""
    return Pipeline(Loader(checkpoint, bits, precision), low_ram=low_ram, embedding_cache=embedding_cache)


def _prompts(request: GenerateRequest) -> list[str]:
    """The prompt of each of the request's steps."""
    if not request.schedule:
        return [request.prompt] * request.steps
    steps = range(1, request.steps + 1)
    return [next((text for last, text in request.schedule if step <= last), request.prompt) for step in steps]
