"""The door inside the engine process: commands in, plain messages out, MLX on this one thread."""

import functools
import platform
import subprocess
import sys
import time
import warnings
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
from PIL import Image, ImageOps

from mflux_api.checkpoints.detection import fingerprint
from mflux_api.checkpoints.families import DEFAULT_FAMILY, FAMILIES
from mflux_api.engine import memory
from mflux_api.engine.cache import ModelCache, Plan, find_loader
from mflux_api.engine.loaded_pipeline import LoadedPipeline
from mflux_api.engine.metadata import generation_text
from mflux_api.engine.model import plan
from mflux_api.engine.passes import paint
from mflux_api.engine.precision import choose, device_name
from mflux_api.errors import InvalidImage
from mflux_api.ipc.messages import (
    AskCut,
    Command,
    Event,
    Finished,
    Load,
    Loading,
    Memory,
    Paint,
    Picture,
    Preview,
    Ready,
    Reply,
    Setup,
    Step,
    Thumbnail,
    Unload,
    Writing,
    always,
    never,
)
from mflux_api.pixels.masks import as_mask
from mflux_api.pixels.png import encode_png
from mflux_api.request import GenerateRequest

SHORT_HASH = 10
# How old the last preview may become while nobody looks.
UNWATCHED_SECONDS = 1.0
# What browsers write. Other formats of Pillow's have had holes, and nobody misses them here.
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")


class Engine:
    """Carries out commands, one after the other, on the thread that made it."""

    def __init__(self, setup: Setup) -> None:
        memory.limit_cache(memory.CACHE_LIMIT)
        Image.MAX_IMAGE_PIXELS = setup.largest_image
        self.setup = setup
        self.names: dict[Plan, str] = {}
        # Imported now, the usual family's code does not keep the first picture waiting.
        find_loader(FAMILIES[DEFAULT_FAMILY])
        self.cache = ModelCache(setup.budget if setup.budget is not None else memory.default_budget())

    def ready(self) -> Ready:
        width = choose(self.setup.precision).dtype.size
        return Ready(device=device_name(), chip=chip(), mlx=version("mlx"), width=width, budget=self.cache.budget)

    def memory(self) -> Memory:
        used = memory.report()
        loaded = tuple(self.names[held] for held in self.cache.plans())
        return Memory(active=used.active, cached=used.cached, peak=used.peak, loaded=loaded)

    def carry_out(
        self, command: Command, ask_cut: AskCut = never, is_watched: Callable[[], bool] = always
    ) -> Generator[Reply, None, None]:
        """What there is to say while a command is carried out. Closing it stops a painting; `ask_cut` may shorten it.

        With nobody watching, there is a preview a second at most: of use to whoever comes in the middle of a long one.
        Raises what loading and painting raise.
        """
        match command:
            case Paint():
                yield from self._paint(command, ask_cut, is_watched)
            case Load():
                yield from self._load(self._plan(command), command.model.spec.name)
            case Unload():
                for held in self.cache.plans():
                    if self.names[held] == command.model:
                        self.cache.unload(held)

    def _plan(self, command: Paint | Load) -> Plan:
        embeddings = self.setup.embedding_cache
        asked = plan(command.model, None, self.setup.precision, low_ram=command.low_ram, embedding_cache=embeddings)
        if isinstance(command, Load):
            return self.cache.fitted(asked)
        request = command.request
        return self.cache.fitted(asked, request.largest, len(command.references), upsample=request.upsample)

    def _load(self, wanted: Plan, name: str) -> Iterator[Reply]:
        self.names[wanted] = name
        if wanted in self.cache.plans():
            return
        yield Loading(name)
        self.cache.get(wanted)
        yield self.memory()

    def _paint(self, command: Paint, ask_cut: AskCut, is_watched: Callable[[], bool]) -> Iterator[Reply]:
        wanted = self._plan(command)
        yield from self._load(wanted, command.model.spec.name)
        pipeline = self.cache.get(wanted)
        with memory.overflow_is_ours(), closing(paint(pipeline, _with_pictures(command), ask_cut)) as events:
            shown = time.monotonic()
            for event in events:
                if isinstance(event, Preview):
                    if not is_watched() and time.monotonic() - shown < UNWATCHED_SECONDS:
                        continue
                    shown = time.monotonic()
                yield _reply(event, command, pipeline)


def _with_pictures(command: Paint) -> GenerateRequest:
    return replace(
        command.request,
        source=None if command.source is None else open_picture(command.source, "The source"),
        mask=None if command.mask is None else open_picture(command.mask, "The mask", opaque=as_mask),
        references=tuple(open_picture(path, "A reference") for path in command.references),
        further_sources=tuple(open_picture(path, "A source") for path in command.further_sources),
    )


def open_picture(path: Path, what: str, opaque: Callable[[Image.Image], Image.Image] | None = None) -> Image.Image:
    """A picture, upright, its transparent parts white or made `opaque` otherwise. Raises InvalidImage."""
    try:
        # A picture larger than the limit is an error and no warning.
        with (
            warnings.catch_warnings(action="error", category=Image.DecompressionBombWarning),
            Image.open(path, formats=FORMATS) as image,
        ):
            return (opaque or _opaque)(ImageOps.exif_transpose(image))
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise InvalidImage(f"{what} picture cannot be read: PNG, JPEG and WebP are.") from None


def _opaque(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        # Sixteen bits of grey: Pillow would clip them where it should scale.
        return Image.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    if not image.has_transparency_data:
        return image.copy()
    rgba = image.convert("RGBA")
    return Image.alpha_composite(Image.new("RGBA", rgba.size, "white"), rgba).convert("RGB")


def _reply(event: Event, command: Paint, pipeline: LoadedPipeline) -> Reply:
    match event:
        case Writing() | Step():
            return event
        case Preview():
            return Thumbnail(encode_png(event.image, {}))
        case Picture():
            return _finished(event, command, pipeline)


def _finished(picture: Picture, command: Paint, pipeline: LoadedPipeline) -> Finished:
    request = command.request
    text = generation_text(
        picture,
        prompt=request.prompt if picture.prompt is None else picture.prompt,
        negative=request.negative_prompt,
        model=command.model.spec.name,
        bits=pipeline.bits,
        strength=None if command.source is None else request.strength,
        size=request.asked_size,
        model_hash=model_hash(command.model.folder),
        masked=command.mask is not None,
        index=request.seeds.index(picture.seed),
        craft=request,
        original=request.prompt if picture.prompt is not None else None,
    )
    return Finished(
        data=encode_png(picture.image, {"parameters": text}),
        text=text,
        prompt=picture.prompt,
        seed=picture.seed,
        width=picture.image.width,
        height=picture.image.height,
        guidance=picture.guidance,
        timings=picture.timings,
    )


@functools.lru_cache(maxsize=64)
def model_hash(folder: Path) -> str | None:
    """The short name of a checkpoint's weights, as the server lists it."""
    found = fingerprint(folder)
    return None if found is None else found[:SHORT_HASH]


def chip() -> str:
    """The name of this machine's processor, as its maker writes it."""
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip() or platform.processor()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
