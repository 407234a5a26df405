"""The queue on SQLite, for clients and for workers. The verb decides, the database stores, events tell."""

import asyncio
import functools
import secrets
import time
from collections.abc import Callable, Coroutine, Iterable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, ParamSpec, TypeVar

from mflux_api.errors import JobConflict, QueueFull, ShuttingDown, StorageFailed
from mflux_api.events import Events
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.database import pictures as gallery
from mflux_api.jobs.database import reorder, statistics
from mflux_api.jobs.database.connection import Store
from mflux_api.jobs.database.jobs import NewJob
from mflux_api.jobs.eta import Paces
from mflux_api.jobs.job import Failure, Job, PictureFile, State, shown
from mflux_api.jobs.picture_files import Images
from mflux_api.jobs.queue import Painted, Progress
from mflux_api.jobs.running import Floor
from mflux_api.jobs.subscribers import Audience, Endings
from mflux_api.jobs.waiting import Idle, Line
from mflux_api.request import Cut

P = ParamSpec("P")
T = TypeVar("T")


def whole(verb: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, Coroutine[Any, Any, T]]:
    """Once begun it goes to its end: a caller that goes away must not leave the row and the line in disagreement."""

    @functools.wraps(verb)
    async def shielded(*args: P.args, **kwargs: P.kwargs) -> T:
        return await asyncio.shield(verb(*args, **kwargs))

    return shielded


class Claims:
    """Implements `WorkQueue` on SQLite."""

    def __init__(self, store: Store, images: Images, events: Events, *, limit: int, tries: int) -> None:
        self.store = store
        self.images = images
        self.events = events
        self.limit = limit
        self.tries = tries
        self.paused = False
        self.closing = False
        self.line = Line()
        self.paces = Paces({})
        self.floor = Floor(self.paces)
        self.endings = Endings()
        self.audience = Audience()
        self._arriving = 0
        self.idle = Idle()
        # Set when something happened to a job that somebody wants to be told of.
        self.news = asyncio.Event()

    async def claim(self) -> Job:
        while True:
            self.idle.looks()
            await self._reap()
            job = await self.store.run(job_rows.claim, time.time()) if self._may_begin and len(self.line) else None
            if job is not None:
                self._begin(job)
                return job
            job = await self.idle.wait(self.floor.lease if self.floor.active else None)
            if job is not None:
                return job

    async def heartbeat(self, job: Job) -> None:
        self.floor.renew(job)

    async def progress(self, job: Job, progress: Progress) -> None:
        active = self.floor.renew(job)
        active.tell(progress)
        self.events.publish(job.id, "progress", self.floor.data(active), progress.preview)

    async def picture(self, job: Job, painted: Painted) -> None:
        active = self.floor.owned(job)
        picture = await asyncio.to_thread(self._kept, job, painted)
        # Somebody may have cancelled it meanwhile; then the file is not wanted.
        if self.floor.active.get(job.id) is not active:
            await asyncio.to_thread(self._delete_pictures, (picture,))
            raise JobConflict("The job is no longer this worker's.")
        active.pictures += (picture,)

    @whole
    async def finish(self, job: Job, last: Painted | None = None) -> None:
        active = self.floor.owned(job)
        usual = job.request.is_one_pass and active.cut is None
        keep = functools.partial(self._with_last, job, active.pictures, last)
        # A power cut in the next moment would have it painted again, as long as it has tries left.
        run = self.store.run_ahead if job.attempts < self.tries else self.store.run
        try:
            done, pace = await run(job_rows.complete, job, keep, learn=usual)
        except StorageFailed:
            # No row names it.
            if last is not None:
                await asyncio.to_thread(self.images.delete_picture, self.images.name(job, last.index))
            raise
        if pace is not None:
            self.paces.set(job.model, job.request.width, job.request.height, pace)
        self._leave(done)
        self._told_end(done, "complete")

    @whole
    async def fail(self, job: Job, failure: Failure, *, again: bool) -> bool:
        active = self.floor.owned(job)
        if again and job.attempts < self.tries:
            await self._interrupt(job, failure)
            return True
        failed = await self.store.run(job_rows.fail, job, failure, active.pictures)
        self._leave(failed)
        self._told_end(failed, "failed")
        return False

    @whole
    async def release(self, job: Job) -> None:
        active = self.floor.owned(job)
        await self._return(await self.store.run(job_rows.release, job.id), active.pictures)

    async def cut(self, job: Job) -> Cut:
        return await self.floor.owned(job).cuts.get()

    async def watched(self, job: Job) -> None:
        self.floor.owned(job)
        await self.audience.watches(job.id)

    async def cancelled(self, job: Job) -> None:
        active = self.floor.active.get(job.id)
        if active is not None and active.is_of(job):
            await active.stop.wait()

    # Inside

    @property
    def _may_begin(self) -> bool:
        return not self.paused and not self.closing

    def _begin(self, job: Job) -> None:
        self.line.remove(job.id)
        self.floor.take(job)
        self.events.publish(job.id, "started", {"job_id": job.id, "status": job.state})
        self._note(job)

    def _enter(self, job: Job) -> None:
        self._line_up(job)
        self.idle.wake()

    def _line_up(self, job: Job) -> None:
        self.line.add(job)
        self.events.forget(job.id)
        data = {"job_id": job.id, "status": shown(job.state), "position": self.line.position(job.id)}
        self.events.publish(job.id, "queued", data)

    def _note(self, job: Job) -> None:
        if job.request.note.get("webhook"):
            self.news.set()

    def _leave(self, job: Job) -> None:
        self.line.remove(job.id)
        self.floor.drop(job.id)

    def _told_end(self, job: Job, name: str) -> None:
        self.events.forget(job.id)
        self.events.publish(job.id, name, {"job_id": job.id, "status": shown(job.state)})
        self.endings.tell(job)
        self._note(job)

    async def _interrupt(self, job: Job, failure: Failure) -> None:
        """Back into the line, or failed when all tries are used up."""
        active = self.floor.active.get(job.id)
        pictures = active.pictures if active else ()
        if job.attempts >= self.tries:
            failed = await self.store.run(job_rows.fail, job, failure, pictures)
            self._leave(failed)
            self._told_end(failed, "failed")
            return
        await self._return(await self.store.run(job_rows.change_state, job.id, State.INTERRUPTED), pictures)

    async def _return(self, waiting: Job, pictures: tuple[PictureFile, ...]) -> None:
        """Back into the line, to begin again."""
        self._leave(waiting)
        self._enter(waiting)
        await asyncio.to_thread(self._delete_pictures, pictures)

    async def _reap(self) -> None:
        for job in self.floor.silent():
            await self._interrupt(job, Failure("WORKER_LOST", 500, "The worker that painted this job went silent."))

    def _kept(self, job: Job, painted: Painted) -> PictureFile:
        facts = {name: value for name, value in vars(painted).items() if name not in {"index", "data"}}
        return PictureFile(file=self.images.keep(job, painted.index, painted.data), size=len(painted.data), **facts)

    def _with_last(self, job: Job, kept: tuple[PictureFile, ...], last: Painted | None) -> tuple[PictureFile, ...]:
        return kept if last is None else (*kept, self._kept(job, last))

    def _delete_pictures(self, pictures: tuple[PictureFile, ...]) -> None:
        for picture in pictures:
            (self.images.folder / picture.file).unlink(missing_ok=True)


DAY = 86400


def new_id() -> str:
    return secrets.token_hex(6)


@dataclass(frozen=True, kw_only=True)
class Retention:
    """How long finished jobs stay: days, and bytes of pictures and inputs; 0 is for ever, and any number of bytes."""

    days: float
    bytes: int


class JobQueue(Claims):
    """Everything a client may do with a job, beside the worker's verbs."""

    async def open(self) -> None:
        """Take up where the last run ended: what was being painted waits again, or fails after too many tries."""
        await self.store.open()
        interrupted = await self.store.run(job_rows.in_state, State.GENERATING)
        for job in interrupted:
            await self._interrupt(job, Failure("INTERRUPTED", 500, f"The server stopped {job.attempts} times in it."))
        waiting = await self.store.run(job_rows.waiting, 2**62)
        for stray in await asyncio.to_thread(lambda: list(self.images.strays([*interrupted, *waiting]))):
            stray.unlink(missing_ok=True)
        await asyncio.to_thread(self.images.delete_stray_inputs, await self.store.run(job_rows.ids))
        self.line = Line(waiting)
        self.paces.replace(await self.store.run(statistics.all_paces))
        self.idle.wake()

    async def close(self) -> None:
        """Give every unfinished job back to the line for the next run, and close the database."""
        for active in list(self.floor.active.values()):
            # A verdict that its worker no longer waits for may be on its way.
            with suppress(JobConflict):
                await self.release(active.job)
        self.endings.give_up()
        for job in await self.store.run(job_rows.in_state, State.GENERATING):
            await self.store.run(job_rows.release, job.id)
        await self.store.close()

    @whole
    async def put(self, new: NewJob, *, awaited: bool = False) -> Job:
        """Accept a job: it is on disk when this returns. With a key seen before, the job accepted then.

        `awaited`: whoever ordered it hears nothing before the picture, so the disk need not be waited for.

        Raises QueueFull, ShuttingDown, StorageFailed, and JobConflict for a key used with another request.
        """
        if self.closing:
            raise ShuttingDown("The server is stopping. Send this again in a minute.")
        if self._is_full:
            return await self._accepted_before(new)
        self._arriving += 1
        try:
            # A worker that waits would take it at once: one transaction then, for the first of several.
            begin = self._may_begin and bool(self.idle) and self._arriving == 1
            run = self.store.run_ahead if awaited else self.store.run
            job, begun = await run(job_rows.accept, new, begin=begin)
        finally:
            self._arriving -= 1
        if job.id == new.id:
            self._line_up(job)
        if begun is not None:
            await self._hand(begun)
        else:
            self.idle.wake()
        return job

    async def _hand(self, begun: Job) -> None:
        self._begin(begun)
        if not self.idle.hand(begun):
            # Whoever waited for it has gone meanwhile.
            await self._return(await self.store.run(job_rows.release, begun.id), ())

    async def get(self, job_id: str) -> Job:
        """Raises JobNotFound."""
        return await self.store.run(job_rows.find, job_id)

    async def page(self, status: str | None, before: int | None, limit: int) -> tuple[list[Job], int]:
        """Jobs of one shown status or of all, newest first, numbered below `before`; and how many there are."""
        states = tuple(state for state in State if shown(state) == status)
        return await self.store.run(job_rows.page, states, before, limit), await self.store.run(job_rows.count, states)

    async def pictures(self, search: gallery.Search, before: int | None, limit: int) -> gallery.Page:
        """A page of finished pictures, newest first."""
        return await self.store.run(gallery.page, search, before, limit)

    @whole
    async def delete_picture(self, job_id: str, name: str) -> None:
        """A picture by its index, and its file. Raises JobNotFound, PictureNotFound, and JobConflict while it runs."""
        picture = await self.store.run(gallery.delete, job_id, name)
        await asyncio.to_thread(self.images.delete_picture, picture.file)

    async def waiting(self, limit: int) -> list[Job]:
        """The next jobs, in order."""
        return await self.store.run(job_rows.waiting, limit)

    @whole
    async def cancel(self, job_id: str) -> Job:
        """Cancel a waiting job at once, a running one at its next step; pictures it has finished stay.

        Raises JobNotFound, and JobConflict when it has completed or failed.
        """
        active = self.floor.active.get(job_id)
        pictures = active.pictures if active else ()
        job = await self.store.run(job_rows.cancel, job_id, time.time(), pictures)
        self._leave(job)
        self._told_end(job, "cancelled")
        # Kept while the row was written: no row names it.
        await asyncio.to_thread(self._delete_pictures, active.pictures[len(pictures) :] if active else ())
        return job

    @whole
    async def retry(self, job_id: str, *, held: bool) -> Job:
        """A failed or cancelled job back into the line. Raises JobNotFound, JobConflict, QueueFull, ShuttingDown."""
        if self.closing:
            raise ShuttingDown("The server is stopping. Send this again in a minute.")
        if self._is_full:
            raise self._full()
        self._arriving += 1
        try:
            pictures = (await self.store.run(job_rows.find, job_id)).pictures
            job = await self.store.run(job_rows.reset, job_id, held=held)
        finally:
            self._arriving -= 1
        self._enter(job)
        await asyncio.to_thread(self._delete_pictures, pictures)
        return job

    @whole
    async def move(self, job_id: str, position: int) -> Job:
        """A waiting job to another position of the line, 1 being the next. Raises JobNotFound, JobConflict."""
        for spot in await self.store.run(reorder.move, job_id, position):
            self.line.move(spot)
        self.events.publish(job_id, "moved", {"job_id": job_id, "position": self.line.position(job_id)})
        return await self.get(job_id)

    def pause(self) -> None:
        """Start no more jobs. The running one goes on."""
        self.paused = True
        self.events.publish("", "paused", {"paused": True})

    def resume(self) -> None:
        self.paused = False
        self.events.publish("", "paused", {"paused": False})
        self.idle.wake()

    async def release_held(self, models: Iterable[str]) -> None:
        """These models are here now: jobs that waited for them may run."""
        await self.store.run(job_rows.unhold, list(models))
        self.idle.wake()

    @whole
    async def refuse(self, job: Job, failure: Failure) -> None:
        """A waiting job can never run. Nothing happens when it has stopped waiting meanwhile."""
        try:
            job = await self.store.run(job_rows.fail, job, failure, ())
        except JobConflict:
            return
        self._leave(job)
        self._told_end(job, "failed")

    async def ended(self, job: Job) -> Job:
        """The job once it has ended, or as it is when the server stops before it comes to it."""
        with self.endings.expect(job.id) as end:
            expected = job.id in self.floor.active or (job.id in self.line and not self.closing)
            ended = await end if expected else None
        return ended or await self.get(job.id)

    def drain(self) -> None:
        """The server stops: accept and start no more jobs, end the streams, wake who waits for a waiting job."""
        self.closing = True
        self.news.set()
        self.endings.give_up(self.floor.active)
        self.events.close()

    async def prune(self, retention: Retention) -> int:
        """Delete finished jobs that are too old or too many, with their pictures; how many."""
        before = time.time() - retention.days * DAY if retention.days else 0.0
        stale = await self.store.run(job_rows.prune, before, retention.bytes)
        for job in stale:
            await asyncio.to_thread(self.images.delete, job)
        return len(stale)

    def position(self, job_id: str) -> int | None:
        """1 for the next one; 0 while it runs; None when it is over."""
        return 0 if job_id in self.floor.active else self.line.position(job_id)

    @property
    def _is_full(self) -> bool:
        return len(self.line) + self._arriving >= self.limit

    def _full(self) -> QueueFull:
        return QueueFull(f"{self.limit} jobs wait already. Try again later.", limit=self.limit, retry_after=10)

    async def _accepted_before(self, new: NewJob) -> Job:
        """A full queue still answers for what it took earlier."""
        job = None if new.key is None else await self.store.run(job_rows.accepted, new)
        if job is None:
            raise self._full()
        return job
