"""The worker's side of the queue: claim, progress, finish, fail. The verb decides, the store writes, events tell."""

import asyncio
import functools
import time
from collections.abc import Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

from mflux_api.errors import JobConflict, StorageFailed
from mflux_api.jobs.audience import Audience
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.database.connection import Store
from mflux_api.jobs.endings import Endings
from mflux_api.jobs.events import Events
from mflux_api.jobs.floor import Floor
from mflux_api.jobs.idle import Idle
from mflux_api.jobs.images import Images
from mflux_api.jobs.job import Failure, Job, PictureFile, State, shown
from mflux_api.jobs.line import Line
from mflux_api.jobs.pace import Paces
from mflux_api.jobs.protocol import Painted, Progress
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
