"""An engine for the dispatcher's tests that paints plain pictures in this process, without MLX."""

import asyncio
import io
import signal
import time
from collections.abc import AsyncGenerator, Iterator
from pathlib import Path

from PIL import Image

from mflux_api.errors import EngineDied, InvalidImage, MfluxError, OutOfMemory
from mflux_api.ipc.messages import (
    EngineMemory,
    FinishedPicture,
    Loading,
    PaintCommand,
    Ready,
    Reply,
    Step,
    Thumbnail,
)
from mflux_api.request import EarlyStop
from mflux_api.worker.engine_process import NOTHING_HELD

READY = Ready(device="cpu", chip="none", mlx="0", bytes_per_value=4, budget=1)
STEP_SECONDS = 0.001


class InProcessEngine:
    """Replies as `EngineProcess` does, a step each millisecond. `too_large`: names of models that do not fit.

    `may_start`: cleared by a test that wants the start to take until it is set. `ended`: set while it does not run.
    `kill` lets it die as by a signal.
    """

    def __init__(self, *, too_large: tuple[str, ...] = ()) -> None:
        self.too_large = too_large
        self.start_count = 0
        self.memory = NOTHING_HELD
        self.painting = asyncio.Event()
        self.ended = asyncio.Event()
        self.ended.set()
        self.may_start = asyncio.Event()
        self.may_start.set()
        self._lock = asyncio.Lock()
        self._death: MfluxError | None = None
        self._last_used = time.monotonic()
        self._stopped = self._watched = False
        self._early_stops: list[EarlyStop] = []

    @property
    def idle_seconds(self) -> float:
        return 0.0 if self.ended.is_set() or self._lock.locked() else time.monotonic() - self._last_used

    async def start(self) -> Ready:
        async with self._lock:
            await self._ensure_started()
            self._last_used = time.monotonic()
            return READY

    async def stream_replies(self, command: PaintCommand) -> AsyncGenerator[Reply, None]:
        async with self._lock:
            await self._ensure_started()
            self._stopped = self._watched = False
            self._early_stops.clear()
            self.painting.set()
            try:
                for reply in self._paint(command):
                    yield reply
                    await asyncio.sleep(STEP_SECONDS)
                    if self._death is not None:
                        raise self._death
                    if self._stopped:
                        return
            finally:
                self.painting.clear()
                self._last_used = time.monotonic()

    def stop_painting(self) -> None:
        self._stopped = True

    def stop_early(self, how: EarlyStop) -> None:
        self._early_stops.append(how)

    def show_previews(self) -> None:
        self._watched = True

    async def stop(self) -> None:
        self._end(EngineDied("The engine was ended."))

    def kill(self) -> None:
        code = -signal.SIGKILL
        self._end(EngineDied(f"The engine process ended unexpectedly (exit code {code}).", exit_code=code))

    def _end(self, death: MfluxError) -> None:
        self._death, self.memory = death, NOTHING_HELD
        self.ended.set()

    async def _ensure_started(self) -> None:
        if self.ended.is_set():
            await self.may_start.wait()
            self.ended.clear()
            self._death = None
            self.start_count += 1

    def _paint(self, command: PaintCommand) -> Iterator[Reply]:
        name, request = command.model.spec.name, command.request
        if name in self.too_large:
            raise OutOfMemory("Insufficient memory.", suggestion="Use a smaller model.")
        source = None if command.source is None else _open_picture(command.source)
        if name not in self.memory.loaded:
            yield Loading(name)
            self.memory = EngineMemory(active=1, cached=0, peak=1, loaded=(*self.memory.loaded, name))
        for seed in request.seeds:
            for number in range(1, request.steps + 1):
                yield Step(number=number, steps=request.steps, seed=seed, seconds=STEP_SECONDS)
                if self._early_stops:
                    break
                if self._watched and number < request.steps:
                    yield Thumbnail(_encode(Image.new("RGB", (8, 8))))
            image = source or Image.new("RGB", (request.width, request.height))
            yield FinishedPicture(
                data=_encode(image),
                text=request.prompt,
                prompt=None,
                seed=seed,
                width=image.width,
                height=image.height,
                guidance=request.guidance,
                timings={"encoding": 0.0, "diffusion": STEP_SECONDS, "decoding": 0.0, "total": STEP_SECONDS},
            )
            if EarlyStop.INTERRUPT in self._early_stops:
                return
            # A skip is for one picture.
            self._early_stops.clear()


def _open_picture(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except OSError as error:
        raise InvalidImage("The source is no picture.") from error


def _encode(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()
