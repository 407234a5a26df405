"""The single worker: claims a job, sends it to the engine, relays its replies, and reports the outcome."""

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Coroutine
from contextlib import AbstractAsyncContextManager, aclosing, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from mflux_api.errors import JobConflict, MfluxError
from mflux_api.ipc.messages import (
    EngineMemory,
    FinishedPicture,
    Loading,
    PaintCommand,
    Ready,
    Reply,
    Step,
    Thumbnail,
    UpsamplingProgress,
)
from mflux_api.jobs.job import Failure, Job
from mflux_api.jobs.queue import Painted, Progress, WorkQueue
from mflux_api.jobs.retry import is_worth_retrying
from mflux_api.logs import log_error, log_event
from mflux_api.metrics import Metrics
from mflux_api.models.registry import ResolvedModel
from mflux_api.request import EarlyStop

HEARTBEAT_SECONDS = 15.0
PAUSE_AFTER_ERROR = 1.0


class PaintingEngine(Protocol):
    """An engine as the dispatcher uses it: one command at a time, and messages to the painting meanwhile.

    `start_count`: how often it was started. `painting` is set while messages to a painting arrive. See `EngineProcess`.
    """

    start_count: int
    memory: EngineMemory
    painting: asyncio.Event

    @property
    def idle_seconds(self) -> float: ...

    async def start(self) -> Ready: ...

    def stream_replies(self, command: PaintCommand, /) -> AsyncGenerator[Reply, None]: ...

    def stop_painting(self) -> None: ...

    def stop_early(self, how: EarlyStop, /) -> None: ...

    def show_previews(self) -> None: ...

    async def stop(self) -> None: ...


@dataclass
class JobProgress:
    """Progress of the current job."""

    job: Job
    stage: str = "loading"
    step: int = 0
    steps: int = 1
    image: int = 1
    last_picture: Painted | None = None

    def to_progress(self, *, seconds: float | None = None, preview: bytes | None = None) -> Progress:
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
    """Runs the jobs of one queue on one engine. The engine is started before a job is checked.

    `admit_job` checks a job and returns its model; it runs in a thread. `find_admitted` returns the model of a job that
    was just checked, else None. `inputs_dir`: folder of the jobs' input pictures. `idle_seconds`: after how long an
    idle engine is stopped, 0 for never.
    """

    def __init__(
        self,
        queue: WorkQueue,
        engine: PaintingEngine,
        metrics: Metrics,
        *,
        admit_job: Callable[[Job], ResolvedModel],
        inputs_dir: Path,
        idle_seconds: float,
        log_prompts: bool,
        find_admitted: Callable[[Job], ResolvedModel | None] = lambda job: None,
    ) -> None:
        self.queue = queue
        self.engine = engine
        self.metrics = metrics
        self.admit_job = admit_job
        self.inputs_dir = inputs_dir
        self.find_admitted = find_admitted
        self.idle_seconds = idle_seconds
        self.log_prompts = log_prompts
        self.started_at = 0.0
        # Held until the outcome of a job is logged and counted, shortly after its row is written.
        self.painting_lock = asyncio.Lock()

    async def run_forever(self) -> None:
        """Run jobs until cancelled. Errors of the queue itself (a full disk) are logged and retried."""
        while True:
            try:
                job = await self._wait_next_job()
                self.started_at = time.monotonic()
                async with self.painting_lock:
                    await self._run_job(job)
            except Exception as error:  # noqa: BLE001 - the worker's boundary: an error must not end the loop
                log_error("dispatcher.error", error)
                await asyncio.sleep(PAUSE_AFTER_ERROR)

    async def _wait_next_job(self) -> Job:
        """Wait for the next job. Stops an idle engine meanwhile to free its memory."""
        claim = asyncio.create_task(self.queue.claim())
        try:
            while not claim.done():
                # Loading a model resets the engine's idle time, so compute the rest again.
                left = self.idle_seconds - self.engine.idle_seconds if self.idle_seconds else None
                await asyncio.wait([claim], timeout=left)
                if not claim.done() and self.engine.idle_seconds >= self.idle_seconds:
                    await self.engine.stop()
                    log_event("engine.idle", seconds=self.idle_seconds)
            return await claim
        finally:
            claim.cancel()

    async def _run_job(self, job: Job) -> None:
        starts = self.engine.start_count
        try:
            async with self._watch_job(job):
                await self._paint_job(job)
        except JobConflict:
            self._log_lost_job(job)
        except MfluxError as error:
            await self._fail_job(job, error)
        else:
            self._log_outcome(job, "completed")
        for _ in range(max(0, self.engine.start_count - max(starts, 1))):
            self.metrics.count_engine_restart()

    async def _paint_job(self, job: Job) -> None:
        """Paint a job and write its result.

        The result is written before the engine's last replies are read, because they do not concern the job.
        """
        progress = JobProgress(job, steps=job.request.steps)
        await self.queue.progress(job, progress.to_progress())
        async with aclosing(self.engine.stream_replies(await self._make_command(job))) as replies:
            await self._finish_job(job, await self._relay_replies(job, progress, replies))

    async def _relay_replies(self, job: Job, progress: JobProgress, replies: AsyncIterator[Reply]) -> Painted | None:
        """Relay the engine's replies to the queue. Returns the last picture, which is saved with the job's result.

        Returns None for a job that was stopped.
        """
        async for reply in replies:
            await self._handle_reply(job, progress, reply)
            if progress.last_picture is not None:
                break
        return progress.last_picture

    async def _handle_reply(self, job: Job, progress: JobProgress, reply: Reply) -> None:
        match reply:
            case Loading():
                progress.stage = "loading"
                await self.queue.progress(job, progress.to_progress())
            case UpsamplingProgress():
                progress.stage = "upsampling"
                await self.queue.progress(job, progress.to_progress())
            case Step():
                progress.stage, progress.step, progress.steps = "painting", reply.number, reply.steps
                self.metrics.observe_step(job.model, reply.seconds)
                await self.queue.progress(job, progress.to_progress(seconds=reply.seconds))
            case Thumbnail():
                await self.queue.progress(job, progress.to_progress(preview=reply.data))
            case FinishedPicture():
                await self._store_picture(job, progress, _as_painted(progress.image - 1, reply))
                progress.image, progress.step = progress.image + 1, 0
                self._report_memory()

    async def _store_picture(self, job: Job, progress: JobProgress, painted: Painted) -> None:
        if progress.image == len(job.request.seeds):
            progress.last_picture = painted
        else:
            await self.queue.picture(job, painted)
            self.metrics.count_picture(job.model)

    async def _finish_job(self, job: Job, last_picture: Painted | None) -> None:
        await self.queue.finish(job, last_picture)
        if last_picture is not None:
            self.metrics.count_picture(job.model)

    async def _make_command(self, job: Job) -> PaintCommand:
        await self.engine.start()
        model = self.find_admitted(job)
        if model is None:
            model = await asyncio.to_thread(self.admit_job, job)
        files = job.inputs
        return PaintCommand(
            model=model,
            low_ram=job.low_ram,
            request=job.request,
            source=None if files.source is None else self.inputs_dir / files.source,
            mask=None if files.mask is None else self.inputs_dir / files.mask,
            references=tuple(self.inputs_dir / file for file in files.references),
            further_sources=tuple(self.inputs_dir / file for file in files.further_sources),
        )

    def _watch_job(self, job: Job) -> AbstractAsyncContextManager[None]:
        return _run_alongside(
            self._send_heartbeats(job),
            self._stop_when_cancelled(job),
            self._forward_early_stops(job),
            self._show_previews_when_watched(job),
        )

    async def _send_heartbeats(self, job: Job) -> None:
        while True:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            await self.queue.heartbeat(job)

    async def _stop_when_cancelled(self, job: Job) -> None:
        await self.queue.wait_cancelled(job)
        self.engine.stop_painting()

    async def _forward_early_stops(self, job: Job) -> None:
        while True:
            early_stop = await self.queue.next_early_stop(job)
            await self.engine.painting.wait()
            self.engine.stop_early(early_stop)

    async def _show_previews_when_watched(self, job: Job) -> None:
        await self.queue.wait_for_viewer(job)
        await self.engine.painting.wait()
        self.engine.show_previews()

    async def _fail_job(self, job: Job, error: MfluxError) -> None:
        reason = Failure(error.code, error.status, error.message, dict(error.details))
        try:
            retried = await self.queue.fail(job, reason, again=is_worth_retrying(error))
        except JobConflict:
            self._log_lost_job(job)
        else:
            self._log_outcome(job, "retried" if retried else "failed", code=error.code, message=error.message)

    def _log_lost_job(self, job: Job) -> None:
        """Log a job that was cancelled or given to another worker. Nothing is written to the queue."""
        self._log_outcome(job, "cancelled")

    def _log_outcome(self, job: Job, outcome: str, **facts: object) -> None:
        request = job.request
        size = f"{request.width}x{request.height}"
        seconds = round(time.monotonic() - self.started_at, 3)
        self.metrics.count_job(outcome, job.model, seconds)
        self._report_memory()
        prompt_field = {"prompt": request.prompt} if self.log_prompts else {}
        line = {"id": job.id, "model": job.model, "size": size, "steps": request.steps, "pictures": len(request.seeds)}
        log_event("job", outcome=outcome, seconds=seconds, **line, **facts, **prompt_field)

    def _report_memory(self) -> None:
        held = self.engine.memory
        self.metrics.set_engine_memory(held.active, held.cached, held.peak)


def _as_painted(index: int, reply: FinishedPicture) -> Painted:
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
async def _run_alongside(*coroutines: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Run the coroutines as tasks during the block, and cancel them at its end."""
    tasks = [asyncio.create_task(coroutine) for coroutine in coroutines]
    try:
        yield
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
