"""Run a dispatcher between a real queue and an engine."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Generic, TypeVar

from mflux_api.events import Event
from mflux_api.jobs.job import Job
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from mflux_api.metrics import Metrics
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, resolve_client_model
from mflux_api.request import EarlyStop
from mflux_api.worker.dispatcher import Dispatcher, PaintingEngine
from tests.support.jobs import REQUEST, make_job, open_queue

ENDLESS = replace(REQUEST, steps=100_000)
QUICK = replace(REQUEST, steps=1)


E = TypeVar("E", bound=PaintingEngine)


@dataclass
class Bench(Generic[E]):
    queue: SQLiteQueue
    engine: E
    metrics: Metrics
    dispatcher: Dispatcher
    worker: asyncio.Task[None]

    async def put(self, **changes: object) -> Job:
        return await self.queue.submit(make_job(**{"request": QUICK, **changes}))

    async def submit_and_wait(self, **changes: object) -> Job:
        """Submit a job and return it once it has ended."""
        return await self.wait_ended(await self.put(**changes))

    async def wait_ended(self, job: Job) -> Job:
        """Wait until the job has ended and the dispatcher has reported it, which is shortly after its row changes."""
        ended = await self.queue.wait_ended(job)
        async with self.dispatcher.painting_lock:
            return ended

    async def wait_for_event(self, job: Job, wanted: Callable[[Event], bool]) -> Event:
        """Wait for the next event of a job for which `wanted` is true."""
        with self.queue.job_events.events.listen(job.id) as box:
            return await anext(event async for event in box if wanted(event))

    def cut(self, job: Job, how: EarlyStop) -> None:
        """End a job early, as the service does."""
        self.queue.end_early(job.id, how)


def is_step(event: Event, image: int | None = None) -> bool:
    """Whether the event is a step, of picture `image` (from 1) if given."""
    painting = event.name == "progress" and event.data["stage"] == "painting"
    return painting and image in {None, event.data["image"]}


@asynccontextmanager
async def run_dispatcher(
    folder: Path, engine: E, *, idle_seconds: float = 0, models: Path = EMBEDDED_MODELS_DIR
) -> AsyncIterator[Bench[E]]:
    async with open_queue(folder) as queue:
        metrics = Metrics()
        joined = Dispatcher(
            queue,
            engine,
            metrics,
            admit_job=lambda job: resolve_client_model(job.model, models),
            inputs_dir=folder,
            idle_seconds=idle_seconds,
            log_prompts=False,
        )
        worker = asyncio.create_task(joined.run_forever())
        try:
            yield Bench(queue, engine, metrics, joined, worker)
        finally:
            # The same order as when the server stops.
            worker.cancel()
            await engine.stop()
            await asyncio.wait([worker], timeout=5)
            assert worker.cancelled()
