"""Run a dispatcher between a real queue and a real engine process."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from mflux_api.events import Event
from mflux_api.ipc.messages import EngineSetup
from mflux_api.jobs.job import Job
from mflux_api.jobs.sqlite_queue import SQLiteQueue
from mflux_api.metrics import Metrics
from mflux_api.models.registry import EMBEDDED_MODELS_DIR, resolve_client_model
from mflux_api.request import EarlyStop
from mflux_api.worker.dispatcher import Dispatcher
from mflux_api.worker.engine_process import EngineProcess
from tests.support.jobs import REQUEST, make_job, open_queue

ENDLESS = replace(REQUEST, steps=100_000)
QUICK = replace(REQUEST, steps=1)


@dataclass
class Bench:
    queue: SQLiteQueue
    engine: EngineProcess
    metrics: Metrics
    dispatcher: Dispatcher
    worker: asyncio.Task[None]
    killed: int | None = None

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

    async def kill_engine_while_painting(self, job: Job) -> None:
        """Wait until the engine paints this job, then kill it."""
        # Events of the engine that was killed last may still arrive.
        killed = self.killed
        while self.killed in {killed, None}:
            await self.wait_for_event(job, is_step)
            self.killed = self.engine.pid
        assert self.killed is not None
        os.kill(self.killed, signal.SIGKILL)


def is_step(event: Event, image: int | None = None) -> bool:
    """Whether the event is a step, of picture `image` (from 1) if given."""
    painting = event.name == "progress" and event.data["stage"] == "painting"
    return painting and image in {None, event.data["image"]}


def make_engine(budget: int | None = None) -> EngineProcess:
    return EngineProcess(
        EngineSetup(budget=budget, precision="auto", embedding_cache=0, max_image_pixels=10**6, low_priority=True),
        max_silence_seconds=30,
    )


@asynccontextmanager
async def run_dispatcher(
    folder: Path,
    *,
    idle_seconds: float = 0,
    models: Path = EMBEDDED_MODELS_DIR,
    budget: int | None = None,
) -> AsyncIterator[Bench]:
    async with open_queue(folder) as queue:
        engine, metrics = make_engine(budget), Metrics()
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
