"""Run the server's commands in the engine process, with MLX on one thread, and yield plain messages."""

import functools
import platform
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from dataclasses import replace
from importlib.metadata import version
from pathlib import Path

from PIL import Image

from mflux_api.checkpoints.detection import compute_fingerprint
from mflux_api.checkpoints.families import DEFAULT_FAMILY, FAMILIES
from mflux_api.engine import memory
from mflux_api.engine.cache import LoadPlan, ModelCache, find_loader
from mflux_api.engine.loaded_pipeline import LoadedPipeline
from mflux_api.engine.metadata import format_generation_text
from mflux_api.engine.model import plan_load
from mflux_api.engine.passes import paint
from mflux_api.engine.precision import choose_precision, device_name
from mflux_api.errors import InvalidImage
from mflux_api.ipc.messages import (
    Command,
    EngineMemory,
    EngineSetup,
    FinishedPicture,
    LoadCommand,
    Loading,
    PaintCommand,
    PaintingEvent,
    Picture,
    Preview,
    Ready,
    Reply,
    Step,
    TakeEarlyStop,
    Thumbnail,
    UnloadCommand,
    UpsamplingProgress,
    always_watched,
    never_stop_early,
)
from mflux_api.pixels.decoding import decode_mask, decode_picture, read_size
from mflux_api.pixels.png import encode_png
from mflux_api.request import GenerateRequest

SHORT_HASH = 10
# The least seconds between two previews without viewers.
UNWATCHED_SECONDS = 1.0


class Engine:
    """Runs commands one after the other, on the thread that created it."""

    def __init__(self, setup: EngineSetup) -> None:
        memory.limit_cache(memory.CACHE_LIMIT)
        Image.MAX_IMAGE_PIXELS = setup.max_image_pixels
        self.setup = setup
        self.names: dict[LoadPlan, str] = {}
        # Import the default family's code now, so that it does not delay the first picture.
        find_loader(FAMILIES[DEFAULT_FAMILY])
        self.cache = ModelCache(setup.budget if setup.budget is not None else memory.default_budget())

    def describe_engine(self) -> Ready:
        width = choose_precision(self.setup.precision).dtype.size
        return Ready(
            device=device_name(),
            chip=find_chip_name(),
            mlx=version("mlx"),
            bytes_per_value=width,
            budget=self.cache.budget,
        )

    def report_memory(self) -> EngineMemory:
        used = memory.read_mlx_memory()
        loaded = tuple(self.names[held] for held in self.cache.list_plans())
        return EngineMemory(active=used.active, cached=used.cached, peak=used.peak, loaded=loaded)

    def run_command(
        self,
        command: Command,
        take_early_stop: TakeEarlyStop = never_stop_early,
        is_watched: Callable[[], bool] = always_watched,
    ) -> Generator[Reply, None, None]:
        """Run a command and yield its replies. Closing the generator stops a painting.

        `take_early_stop` may end a picture, or all pictures, early. Without viewers, previews are sent at most once a
        second, so that a viewer who comes later has one at once. Raises the errors of loading and painting.
        """
        match command:
            case PaintCommand():
                yield from self._paint_pictures(command, take_early_stop, is_watched)
            case LoadCommand():
                yield from self._load_model(self._plan_load(command), command.model.spec.name)
            case UnloadCommand():
                for held in self.cache.list_plans():
                    if self.names[held] == command.model:
                        self.cache.unload(held)

    def _plan_load(self, command: PaintCommand | LoadCommand) -> LoadPlan:
        embeddings = self.setup.embedding_cache
        asked = plan_load(
            command.model, None, self.setup.precision, low_ram=command.low_ram, embedding_cache=embeddings
        )
        if isinstance(command, LoadCommand):
            return self.cache.fit_to_budget(asked)
        request = command.request
        return self.cache.fit_to_budget(asked, request.largest_size, len(command.references), upsample=request.upsample)

    def _load_model(self, load_plan: LoadPlan, name: str) -> Iterator[Reply]:
        self.names[load_plan] = name
        if load_plan in self.cache.list_plans():
            return
        yield Loading(name)
        self.cache.get(load_plan)
        yield self.report_memory()

    def _paint_pictures(
        self, command: PaintCommand, take_early_stop: TakeEarlyStop, is_watched: Callable[[], bool]
    ) -> Iterator[Reply]:
        load_plan = self._plan_load(command)
        yield from self._load_model(load_plan, command.model.spec.name)
        pipeline = self.cache.get(load_plan)
        with (
            memory.translate_allocation_errors(),
            closing(paint(pipeline, _open_pictures(command), take_early_stop)) as events,
        ):
            shown = time.monotonic()
            for event in events:
                if isinstance(event, Preview):
                    if not is_watched() and time.monotonic() - shown < UNWATCHED_SECONDS:
                        continue
                    shown = time.monotonic()
                yield _make_reply(event, command, pipeline)


def _open_pictures(command: PaintCommand) -> GenerateRequest:
    return replace(
        command.request,
        source=None if command.source is None else open_picture(command.source, "The source", decode_picture),
        mask=None if command.mask is None else open_picture(command.mask, "The mask", decode_mask),
        references=tuple(open_picture(path, "A reference", decode_picture) for path in command.references),
        further_sources=tuple(open_picture(path, "A source", decode_picture) for path in command.further_sources),
    )


def open_picture(path: Path, description: str, decode: Callable[[bytes], Image.Image]) -> Image.Image:
    """Open a picture with one of the functions of `pixels.decoding`. Raises InvalidImage."""
    try:
        data = path.read_bytes()
        # Pillow itself refuses twice as many pixels only.
        width, height = read_size(data)
        if Image.MAX_IMAGE_PIXELS is not None and width * height > Image.MAX_IMAGE_PIXELS:
            raise InvalidImage("too many pixels")
        return decode(data)
    except (OSError, InvalidImage):
        raise InvalidImage(f"{description} picture cannot be read: PNG, JPEG and WebP are.") from None


def _make_reply(event: PaintingEvent, command: PaintCommand, pipeline: LoadedPipeline) -> Reply:
    match event:
        case UpsamplingProgress() | Step():
            return event
        case Preview():
            return Thumbnail(encode_png(event.image, {}))
        case Picture():
            return _make_picture_reply(event, command, pipeline)


def _make_picture_reply(picture: Picture, command: PaintCommand, pipeline: LoadedPipeline) -> FinishedPicture:
    request = command.request
    text = format_generation_text(
        picture,
        prompt=request.prompt if picture.prompt is None else picture.prompt,
        negative=request.negative_prompt,
        model=command.model.spec.name,
        bits=pipeline.bits,
        strength=None if command.source is None else request.strength,
        size=request.requested_size,
        model_hash=find_model_hash(command.model.folder),
        masked=command.mask is not None,
        index=request.seeds.index(picture.seed),
        options=request,
        original=request.prompt if picture.prompt is not None else None,
    )
    return FinishedPicture(
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
def find_model_hash(folder: Path) -> str | None:
    """Return the short hash of a checkpoint's weights, as the server lists it, or None if it cannot be computed."""
    found = compute_fingerprint(folder)
    return None if found is None else found[:SHORT_HASH]


def find_chip_name() -> str:
    """Return the processor's name as its maker writes it."""
    if sys.platform == "darwin":
        asked = subprocess.run(
            ["sysctl", "-n", "machdep.cpu.brand_string"], capture_output=True, text=True, check=False
        )
        return asked.stdout.strip() or platform.processor()
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.is_file() else []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor() or platform.machine())
