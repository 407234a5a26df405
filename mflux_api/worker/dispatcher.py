"""The single worker: claim a job, hand it to the engine, relay what it says; one function for each outcome."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mflux_api.errors import JobConflict, MfluxError
from mflux_api.ipc.messages import Finished, Loading, Paint, Reply, Step, Thumbnail, Writing
from mflux_api.jobs.job import Failure, Job
from mflux_api.jobs.queue import Painted, Progress, WorkQueue
from mflux_api.jobs.retry import is_worth_retrying
from mflux_api.logs import event, failure
from mflux_api.metrics import Metrics
from mflux_api.models.registry import ResolvedModel
from mflux_api.worker.engine_process import EngineProcess

HEARTBEAT_SECONDS = 15.0
PAUSE_AFTER_ERROR = 1.0


@dataclass
class Position:
    """How far the job that is being painted has come."""

    job: Job
    stage: str = "loading"
    step: int = 0
    steps: int = 1
    image: int = 1
    last: Painted | None = None

    def progress(self, *, seconds: float | None = None, preview: bytes | None = None) -> Progress:
        return Progress(
            stage=self.stage,
            step=self.step,
            steps=self.steps,
            image=min(self.image, len(self.job.request.seeds)),
            of=len(self.job.request.seeds),
            seconds=seconds,
            preview=preview,
        )


class Dispatcher:
    """Joins one queue to one engine, which has started before a job is looked at.

    `locate` finds the model of a job and raises what is in the way of painting it, on a thread; `recall` knows it of
    some jobs without. `inputs`: the folder of their pictures.
    """

    def __init__(
        self,
        queue: WorkQueue,
        engine: EngineProcess,
        metrics: Metrics,
        *,
        locate: Callable[[Job], ResolvedModel],
        inputs: Path,
        idle_seconds: float,
        log_prompts: bool,
        recall: Callable[[Job], ResolvedModel | None] = lambda job: None,
    ) -> None:
        self.queue = queue
        self.engine = engine
        self.metrics = metrics
        self.locate = locate
        self.inputs = inputs
        self.recall = recall
        self.idle_seconds = idle_seconds
        self.log_prompts = log_prompts
        self.began = 0.0
        # Held until all has been said of a job: its row is written a moment earlier.
        self.painting = asyncio.Lock()

    async def work(self) -> None:
        """Paint jobs for ever. An error of the queue's own (a full disk) is logged, and tried again."""
        while True:
            try:
                job = await self._next()
                self.began = time.monotonic()
                async with self.painting:
                    await self._paint(job)
            except Exception as error:  # noqa: BLE001 - the worker's boundary: without it nothing is painted any more
                failure("dispatcher.error", error)
                await asyncio.sleep(PAUSE_AFTER_ERROR)

    async def _next(self) -> Job:
        """The next job; meanwhile the engine may be ended to give its memory back."""
        claim = asyncio.create_task(self.queue.claim())
        try:
            while not claim.done():
                # Whoever had a model loaded meanwhile is given as long again.
                left = self.idle_seconds - self.engine.idle if self.idle_seconds else None
                await asyncio.wait([claim], timeout=left)
                if not claim.done() and self.engine.idle >= self.idle_seconds:
                    await self.engine.stop()
                    event("engine.idle", seconds=self.idle_seconds)
            return await claim
        finally:
            claim.cancel()

    async def _paint(self, job: Job) -> None:
        starts = self.engine.starts
        try:
            async with self._attended(job):
                await self._carry_out(job)
        except JobConflict:
            self._lost(job)
        except MfluxError as error:
            await self._failed(job, error)
        else:
            self._log(job, "completed")
        for _ in range(max(0, self.engine.starts - max(starts, 1))):
            self.metrics.engine_restart()

    async def _carry_out(self, job: Job) -> None:
        """Its row is written while the engine says its last words: they are not about the job any more."""
        where = Position(job, steps=job.request.steps)
        await self.queue.progress(job, where.progress())
        async with aclosing(self.engine.ask(await self._command(job))) as replies:
            await self._finish(job, await self._relay(job, where, replies))

    async def _relay(self, job: Job, where: Position, replies: AsyncIterator[Reply]) -> Painted | None:
        """What the engine says, told to the queue, until the last picture: returned, to be kept with the verdict.

        None for a job that was cut short.
        """
        async for reply in replies:
            await self._tell(job, where, reply)
            if where.last is not None:
                break
        return where.last

    async def _tell(self, job: Job, where: Position, reply: Reply) -> None:
        match reply:
            case Loading():
                where.stage = "loading"
                await self.queue.progress(job, where.progress())
            case Writing():
                where.stage = "upsampling"
                await self.queue.progress(job, where.progress())
            case Step():
                where.stage, where.step, where.steps = "painting", reply.number, reply.steps
                self.metrics.step(job.model, reply.seconds)
                await self.queue.progress(job, where.progress(seconds=reply.seconds))
            case Thumbnail():
                await self.queue.progress(job, where.progress(preview=reply.data))
            case Finished():
                await self._take(job, where, _as_painted(where.image - 1, reply))
                where.image, where.step = where.image + 1, 0
                self._tell_memory()

    async def _take(self, job: Job, where: Position, painted: Painted) -> None:
        if where.image == len(job.request.seeds):
            where.last = painted
        else:
            await self.queue.picture(job, painted)
            self.metrics.picture(job.model)

    async def _finish(self, job: Job, last: Painted | None) -> None:
        await self.queue.finish(job, last)
        if last is not None:
            self.metrics.picture(job.model)

    async def _command(self, job: Job) -> Paint:
        await self.engine.start()
        model = self.recall(job)
        if model is None:
            model = await asyncio.to_thread(self.locate, job)
        files = job.inputs
        return Paint(
            model=model,
            low_ram=job.low_ram,
            request=job.request,
            source=None if files.source is None else self.inputs / files.source,
            mask=None if files.mask is None else self.inputs / files.mask,
            references=tuple(self.inputs / file for file in files.references),
            further_sources=tuple(self.inputs / file for file in files.further_sources),
        )

    def _attended(self, job: Job) -> AbstractAsyncContextManager[None]:
        return _tasks(self._beat(job), self._watch(job), self._shorten(job), self._show(job))

    async def _beat(self, job: Job) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self.queue.heartbeat(job)

    async def _watch(self, job: Job) -> None:
        await self.queue.wait_cancelled(job)
        self.engine.stop_painting()

    async def _shorten(self, job: Job) -> None:
        while True:
            cut = await self.queue.next_early_stop(job)
            await self.engine.painting.wait()
            self.engine.cut(cut)

    async def _show(self, job: Job) -> None:
        await self.queue.wait_for_viewer(job)
        await self.engine.painting.wait()
        self.engine.look()

    async def _failed(self, job: Job, error: MfluxError) -> None:
        reason = Failure(error.code, error.status, error.message, dict(error.details))
        try:
            retried = await self.queue.fail(job, reason, again=is_worth_retrying(error))
        except JobConflict:
            self._lost(job)
        else:
            self._log(job, "retried" if retried else "failed", code=error.code, message=error.message)

    def _lost(self, job: Job) -> None:
        """Cancelled, or given to another worker: nothing of it is ours any more."""
        self._log(job, "cancelled")

    def _log(self, job: Job, outcome: str, **facts: object) -> None:
        request = job.request
        size = f"{request.width}x{request.height}"
        seconds = round(time.monotonic() - self.began, 3)
        self.metrics.job(outcome, job.model, seconds)
        self._tell_memory()
        said = {"prompt": request.prompt} if self.log_prompts else {}
        line = {"id": job.id, "model": job.model, "size": size, "steps": request.steps, "pictures": len(request.seeds)}
        event("job", outcome=outcome, seconds=seconds, **line, **facts, **said)

    def _tell_memory(self) -> None:
        held = self.engine.memory
        self.metrics.engine_memory(held.active, held.cached, held.peak)


def _as_painted(index: int, reply: Finished) -> Painted:
    return Painted(
        index=index,
        data=reply.data,
        text=reply.text,
        seed=reply.seed,
        width=reply.width,
        height=reply.height,
        guidance=reply.guidance,
        timings=reply.timings,
        prompt=reply.prompt,
    )


@asynccontextmanager
async def _tasks(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run these beside what is inside, and end them with it."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
