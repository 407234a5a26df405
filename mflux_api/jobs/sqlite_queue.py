"""The job queue on SQLite. A method writes in one transaction, then updates memory, then publishes events."""

import asyncio
import functools
import time
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, ParamSpec, TypeVar

from mflux_api.errors import JobConflict, QueueFull, ShuttingDown, StorageFailed
from mflux_api.events import Event, EventBus
from mflux_api.jobs.database import deliveries, reorder, statistics
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.database import pictures as picture_rows
from mflux_api.jobs.database.connection import Store
from mflux_api.jobs.eta import Paces
from mflux_api.jobs.job import Failure, Inputs, Job, PictureFile, State, public_status
from mflux_api.jobs.job_events import JobEvents
from mflux_api.jobs.picture_files import PictureFiles
from mflux_api.jobs.picture_pages import mark_missing, mark_missing_in, read_page
from mflux_api.jobs.queue import (
    BucketLength,
    Delivery,
    DeliveryPage,
    HistoryBucket,
    InputPictures,
    JobPage,
    NewJob,
    Painted,
    PicturePage,
    PictureSearch,
    Progress,
    Retention,
    RunningJob,
    Totals,
)
from mflux_api.jobs.retry import WORKER_LOST, RetryPolicy, server_stopped
from mflux_api.jobs.running import RunningJobs
from mflux_api.jobs.subscribers import EndWaiters, PreviewViewers
from mflux_api.jobs.waiting import IdleWorkers, WaitingJobs
from mflux_api.request import EarlyStop

P = ParamSpec("P")
T = TypeVar("T")
DATABASE = "jobs.db"


def run_to_end(verb: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Decorate a method to run to its end even if its caller is cancelled, so that database and memory agree."""

    @functools.wraps(verb)
    async def run_shielded(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.shield(verb(*args, **kwargs))

    return run_shielded


class SQLiteQueue:
    """Implementation of `JobQueue`, with the database and the pictures in `folder`.

    `limit`: how many jobs may wait. `tries`: how often a job is started before it fails.
    """

    def __init__(self, folder: Path, events: EventBus, *, limit: int, tries: int) -> None:
        self.store = Store(folder / DATABASE)
        self.pictures = PictureFiles(folder)
        self.limit = limit
        self.retry_policy = RetryPolicy(tries)
        self.is_paused = False
        self.closing = False
        self.waiting = WaitingJobs()
        self.paces = Paces({})
        self.running = RunningJobs(self.paces)
        self.idle_workers = IdleWorkers()
        self.viewers = PreviewViewers()
        self.end_waiters = EndWaiters()
        self.job_events = JobEvents(events, self.viewers)
        # Number of jobs being written to the database.
        self._arriving = 0
        # Set when more deliveries may be due.
        self._deliveries = asyncio.Event()

    # Open and close

    async def open(self) -> None:
        await self.store.open()
        interrupted = await self.store.run(job_rows.in_state, State.GENERATING)
        for job in interrupted:
            await self._end_try(job, server_stopped(job), (), again=True)
        waiting = await self.store.run(job_rows.waiting_jobs, 2**62)
        for stray in await asyncio.to_thread(lambda: list(self.pictures.strays([*interrupted, *waiting]))):
            stray.unlink(missing_ok=True)
        await asyncio.to_thread(self.pictures.delete_stray_inputs, await self.store.run(job_rows.ids))
        self.waiting = WaitingJobs(waiting)
        self.paces.replace(await self.store.run(statistics.all_paces))
        self.idle_workers.wake()

    def drain(self) -> None:
        self.closing = True
        self._deliveries.set()
        self.end_waiters.give_up(self.running)
        self.job_events.close()

    def stop_waits(self) -> None:
        self.end_waiters.give_up()

    async def wait_idle(self) -> None:
        await self.running.wait_empty()

    async def close(self) -> None:
        for claim in list(self.running.claims.values()):
            # The job may be ending at this moment, in a call that its worker no longer awaits.
            with suppress(JobConflict):
                await self.release(claim.job)
        self.stop_waits()
        for job in await self.store.run(job_rows.in_state, State.GENERATING):
            await self.store.run(job_rows.release, job.id)
        await self.store.close()

    async def prune(self, retention: Retention) -> int:
        stale = await self.store.run(job_rows.prune, retention.ended_before(time.time()), retention.bytes)
        await asyncio.to_thread(self.pictures.delete_all, stale)
        return len(stale)

    # For workers

    async def claim(self) -> Job:
        while True:
            self.idle_workers.clear_news()
            await self._reap()
            may_look = self._may_begin and len(self.waiting)
            job = await self.store.run(job_rows.claim, time.time()) if may_look else None
            if job is not None:
                self._begin(job)
                return job
            job = await self.idle_workers.wait(self.running.lease if len(self.running) else None)
            if job is not None:
                return job

    async def heartbeat(self, job: Job) -> None:
        self.running.renew(job)

    async def progress(self, job: Job, progress: Progress) -> None:
        claim = self.running.renew(job)
        claim.update(progress)
        self.job_events.publish_progress(self.running.snapshot(claim))

    async def picture(self, job: Job, painted: Painted) -> None:
        claim = self.running.find_owned(job)
        picture = await asyncio.to_thread(self.pictures.save, job, painted)
        # Delete the file if the job was cancelled in the meantime.
        if self.running.find(job.id) is not claim:
            await asyncio.to_thread(self.pictures.discard, (picture,))
            raise JobConflict("The job is no longer this worker's.")
        claim.pictures += (picture,)

    @run_to_end
    async def finish(self, job: Job, last: Painted | None = None) -> None:
        claim = self.running.find_owned(job)
        usual = job.request.is_one_pass and claim.cut is None
        saved = claim.pictures

        def save_last() -> tuple[PictureFile, ...]:
            return saved if last is None else (*saved, self.pictures.save(job, last))

        # Without fsync a power loss in the next moment has the job painted again. It needs a try left for that.
        run = self.store.run_ahead if self.retry_policy.has_tries_left(job) else self.store.run
        try:
            done, pace = await run(job_rows.complete, job, save_last, learn=usual)
        except StorageFailed:
            # No row refers to the file.
            if last is not None:
                await asyncio.to_thread(self.pictures.delete_picture, self.pictures.name(job, last.index))
            raise
        if pace is not None:
            self.paces.set(job.model, job.request.width, job.request.height, pace)
        self._end(done)

    @run_to_end
    async def fail(self, job: Job, failure: Failure, *, again: bool) -> bool:
        return await self._end_try(job, failure, self.running.find_owned(job).pictures, again=again)

    @run_to_end
    async def release(self, job: Job) -> None:
        claim = self.running.find_owned(job)
        await self._requeue(await self.store.run(job_rows.release, job.id), claim.pictures)

    async def next_early_stop(self, job: Job) -> EarlyStop:
        return await self.running.find_owned(job).cuts.get()

    async def wait_for_viewer(self, job: Job) -> None:
        self.running.find_owned(job)
        await self.viewers.wait_for_viewer(job.id)

    async def wait_cancelled(self, job: Job) -> None:
        claim = self.running.find(job.id)
        if claim is not None and claim.is_of(job):
            await claim.stop.wait()

    # Submit and change

    @run_to_end
    async def submit(self, new: NewJob, *, awaited: bool = False) -> Job:
        self._check_open()
        if self._is_full:
            return await self._accepted_before(new)
        self._arriving += 1
        try:
            # If a worker is idle, accept and claim the job in one transaction. Only for the first of several.
            begin = self._may_begin and bool(self.idle_workers) and self._arriving == 1
            run = self.store.run_ahead if awaited else self.store.run
            job, begun = await run(job_rows.accept, new, begin=begin)
        finally:
            self._arriving -= 1
        if job.id == new.id:
            self._add_waiting(job)
        if begun is None:
            self.idle_workers.wake()
            return job
        self._begin(begun)
        if not self.idle_workers.hand(begun):
            # The idle worker has gone in the meantime.
            await self._requeue(await self.store.run(job_rows.release, begun.id), ())
        return job

    @run_to_end
    async def cancel(self, job_id: str) -> Job:
        claim = self.running.find(job_id)
        pictures = claim.pictures if claim else ()
        job = await self.store.run(job_rows.cancel, job_id, time.time(), pictures)
        self._end(job)
        # Pictures that were saved while the row was written: no row refers to them.
        await asyncio.to_thread(self.pictures.discard, claim.pictures[len(pictures) :] if claim else ())
        return job

    @run_to_end
    async def retry(self, job_id: str, *, held: bool) -> Job:
        self._check_open()
        if self._is_full:
            raise self._full()
        self._arriving += 1
        try:
            pictures = (await self.store.run(job_rows.find, job_id)).pictures
            job = await self.store.run(job_rows.reset, job_id, held=held)
        finally:
            self._arriving -= 1
        self._enqueue(job)
        await asyncio.to_thread(self.pictures.discard, pictures)
        return job

    @run_to_end
    async def move(self, job_id: str, position: int) -> Job:
        for moved in await self.store.run(reorder.move, job_id, position):
            self.waiting.move(moved)
        self.job_events.publish_moved(job_id, self.waiting.position(job_id))
        return await self.get(job_id)

    async def release_held(self, models: Iterable[str]) -> None:
        await self.store.run(job_rows.unhold, list(models))
        self.idle_workers.wake()

    @run_to_end
    async def refuse(self, job: Job, failure: Failure) -> None:
        try:
            job = await self.store.run(job_rows.fail, job, failure, ())
        except JobConflict:
            return
        self._end(job)

    def end_early(self, job_id: str, how: EarlyStop) -> None:
        claim = self.running.find(job_id)
        if claim is not None:
            claim.end_early(how)

    def pause(self) -> None:
        self.is_paused = True
        self.job_events.publish_paused(True)

    def resume(self) -> None:
        self.is_paused = False
        self.job_events.publish_paused(False)
        self.idle_workers.wake()

    # List, await and watch jobs

    async def get(self, job_id: str) -> Job:
        return await mark_missing(self.pictures, await self.store.run(job_rows.find, job_id))

    async def list_jobs(self, status: str | None, before: int | None, limit: int) -> JobPage:
        states = tuple(state for state in State if public_status(state) == status)
        return await mark_missing_in(self.pictures, await self.store.run(job_rows.page, states, before, limit))

    async def waiting_jobs(self, limit: int) -> list[Job]:
        return await self.store.run(job_rows.waiting_jobs, limit)

    async def held_jobs(self) -> list[Job]:
        return await self.store.run(job_rows.held_jobs)

    def running_jobs(self) -> list[RunningJob]:
        return [self.running.snapshot(claim) for claim in self.running.claims.values()]

    def count_waiting(self) -> int:
        return len(self.waiting)

    def position(self, job_id: str) -> int | None:
        return 0 if job_id in self.running else self.waiting.position(job_id)

    def expected_seconds(self, job: Job) -> float | None:
        return self.paces.seconds(job.model, job.request)

    async def wait_ended(self, job: Job) -> Job:
        with self.end_waiters.expect(job.id) as end:
            expected = job.id in self.running or (job.id in self.waiting and not self.closing)
            ended = await end if expected else None
        return ended or await self.get(job.id)

    def watch(self, job_id: str, last_id: str | None, *, previews: bool) -> AsyncGenerator[Event, None]:
        return self.job_events.watch(job_id, last_id, previews=previews, find=self.get, position=self.position)

    def watch_all(self, last_id: str | None, *, previews: bool) -> AsyncGenerator[Event, None]:
        return self.job_events.watch_all(last_id, previews=previews)

    def current_event(self, job: Job) -> Event:
        return self.job_events.current_event(job, self.position(job.id))

    def report_download(self, job: Job, fraction: float) -> None:
        self.job_events.publish_download(job, fraction)

    def request_previews(self) -> None:
        self.viewers.poll()

    # Pictures, statistics, values, deliveries

    async def save_inputs(self, job_id: str, pictures: InputPictures) -> Inputs:
        return await asyncio.to_thread(self.pictures.save_inputs, job_id, pictures)

    async def delete_inputs(self, job_id: str) -> None:
        await asyncio.to_thread(self.pictures.delete_inputs, job_id)

    def read_picture(self, file: str) -> bytes:
        return self.pictures.read(file)

    async def search_pictures(self, search: PictureSearch, before: int | None, limit: int) -> PicturePage:
        return await read_page(self.pictures, before, lambda at: self.store.run(picture_rows.page, search, at, limit))

    @run_to_end
    async def delete_picture(self, job_id: str, name: str) -> None:
        picture = await self.store.run(picture_rows.delete, job_id, name)
        await asyncio.to_thread(self.pictures.delete_picture, picture.file)

    async def totals(self) -> Totals:
        return await self.store.run(statistics.totals)

    async def history(self, bucket: BucketLength, count: int) -> list[HistoryBucket]:
        return await self.store.run(statistics.points, bucket, count, time.time())

    async def save_value(self, name: str, value: str) -> None:
        await self.store.run(job_rows.save_value, name, value)

    async def load_value(self, name: str) -> str | None:
        return await self.store.run(job_rows.load_value, name)

    async def list_deliveries(self, state: str | None, before: int | None, limit: int) -> DeliveryPage:
        return await self.store.run(deliveries.page, state, before, limit)

    async def due_deliveries(
        self, *, sending: Collection[int], busy_hosts: Collection[str], limit: int
    ) -> list[Delivery]:
        self._deliveries.clear()
        return await self.store.run(deliveries.due, time.time(), sending, busy_hosts, limit)

    async def record_attempt(self, number: int, *, state: str, next_try: float, status: int | None, error: str) -> None:
        await self.store.run(deliveries.settle, number, state=state, next_try=next_try, status=status, error=error)

    async def wait_for_deliveries(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._deliveries.wait()

    # Helpers

    @property
    def _may_begin(self) -> bool:
        return not self.is_paused and not self.closing

    @property
    def _is_full(self) -> bool:
        return len(self.waiting) + self._arriving >= self.limit

    def _full(self) -> QueueFull:
        return QueueFull(f"{self.limit} jobs wait already. Try again later.", limit=self.limit, retry_after=10)

    def _check_open(self) -> None:
        if self.closing:
            raise ShuttingDown("The server is stopping. Send this again in a minute.")

    async def _accepted_before(self, new: NewJob) -> Job:
        """Idempotent resubmits are answered even when the queue is full."""
        job = None if new.key is None else await self.store.run(job_rows.find_accepted, new)
        if job is None:
            raise self._full()
        return job

    def _begin(self, job: Job) -> None:
        self.waiting.remove(job.id)
        self.running.add(job)
        self.job_events.publish_started(job)
        self._wake_deliveries(job)

    def _enqueue(self, job: Job) -> None:
        self._add_waiting(job)
        self.idle_workers.wake()

    def _add_waiting(self, job: Job) -> None:
        self.waiting.add(job)
        self.job_events.publish_queued(job, self.waiting.position(job.id))

    async def _end_try(self, job: Job, failure: Failure, pictures: tuple[PictureFile, ...], *, again: bool) -> bool:
        """Requeue a job after a failed try, or fail it when no try is left. Returns whether it was requeued."""
        if again and self.retry_policy.has_tries_left(job):
            await self._requeue(await self.store.run(job_rows.change_state, job.id, State.INTERRUPTED), pictures)
            return True
        self._end(await self.store.run(job_rows.fail, job, failure, pictures))
        return False

    async def _requeue(self, waiting: Job, pictures: tuple[PictureFile, ...]) -> None:
        """Move a running job back to the waiting ones. Its pictures are deleted: the next try starts from scratch."""
        self._leave(waiting)
        self._enqueue(waiting)
        await asyncio.to_thread(self.pictures.discard, pictures)

    def _end(self, job: Job) -> None:
        self._leave(job)
        self.job_events.publish_end(job)
        self.end_waiters.wake(job)
        self._wake_deliveries(job)

    def _leave(self, job: Job) -> None:
        self.waiting.remove(job.id)
        self.running.remove(job.id)

    def _wake_deliveries(self, job: Job) -> None:
        if job.request.note.get("webhook"):
            self._deliveries.set()

    async def _reap(self) -> None:
        """Take jobs away from workers whose heartbeats are overdue."""
        for claim in self.running.silent():
            await self._end_try(claim.job, WORKER_LOST, claim.pictures, again=True)
