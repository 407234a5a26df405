"""Helpers for tests with a real engine process: commands, replies and process states."""

import asyncio
import io
import time
from collections.abc import AsyncIterator, Coroutine
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from mflux_api.checkpoints.checkpoint import Checkpoint
from mflux_api.ipc.messages import EngineSetup, FinishedPicture, PaintCommand, Reply, Step
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, resolve_model
from mflux_api.request import GenerateRequest
from mflux_api.worker.engine_process import EngineProcess
from tests.support.estimating import estimate_held

T = TypeVar("T")
TINY, BITS_4 = "flux2-tiny", "flux2-tiny-4-bit"
PATIENCE_SECONDS = 30
ENDLESS = 100_000
LARGEST_IMAGE = 300 * 300
PROMPT = "a red circle on a white background"


def model_size(bits: int | None) -> int:
    return estimate_held(Checkpoint.read(EMBEDDED_MODELS_DIR / TINY), bits, bytes_per_value=4)


def make_engine(
    *, budget: int | None = None, silence: float = PATIENCE_SECONDS, background: bool = False
) -> EngineProcess:
    setup = EngineSetup(
        budget=budget,
        precision="float32",
        embedding_cache=2**20,
        max_image_pixels=LARGEST_IMAGE,
        low_priority=background,
    )
    return EngineProcess(setup, silence)


def paint(
    model: str | Path = TINY,
    *,
    steps: int = 1,
    seeds: tuple[int, ...] = (7,),
    side: int = 64,
    strength: float = 0.75,
    low_ram: bool = False,
    **files: Any,
) -> PaintCommand:
    request = GenerateRequest(
        prompt=PROMPT,
        negative_prompt="",
        width=side,
        height=side,
        steps=steps,
        guidance=1.0,
        seeds=seeds,
        strength=strength,
    )
    return PaintCommand(model=resolve_model(model, EMBEDDED_MODELS_DIR), low_ram=low_ram, request=request, **files)


async def replies(engine: EngineProcess, command: PaintCommand) -> list[Reply]:
    async with aclosing(engine.stream_replies(command)) as said:
        return [reply async for reply in said]


async def picture(engine: EngineProcess, command: PaintCommand) -> FinishedPicture:
    *_, last = await replies(engine, command)
    assert isinstance(last, FinishedPicture)
    return last


async def first_step(said: AsyncIterator[Reply]) -> Step:
    return await anext(reply async for reply in said if isinstance(reply, Step))


def pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def is_gone(pid: int) -> bool:
    """Return whether a process has ended. A zombie, whose exit code was not collected yet, has ended."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_until_gone(pid: int, seconds: float) -> bool:
    end = time.monotonic() + seconds
    while not is_gone(pid) and time.monotonic() < end:
        time.sleep(0.02)
    return is_gone(pid)


@asynccontextmanager
async def running(**options: Any) -> AsyncIterator[EngineProcess]:
    engine = make_engine(**options)
    try:
        yield engine
    finally:
        await engine.stop()


@dataclass
class Shared:
    """An engine for tests that leave its state unchanged, and the event loop it runs on."""

    engine: EngineProcess
    runner: asyncio.Runner

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(asyncio.wait_for(work, PATIENCE_SECONDS))

    def picture(self, **options: Any) -> FinishedPicture:
        return self.run(picture(self.engine, paint(**options)))


def run(work: Coroutine[Any, Any, T]) -> T:
    return asyncio.run(asyncio.wait_for(work, PATIENCE_SECONDS))


def finished(said: list[Reply]) -> list[FinishedPicture]:
    return [reply for reply in said if isinstance(reply, FinishedPicture)]
