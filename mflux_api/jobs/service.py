"""The one door for dialects: order pictures, wait for them, watch them come, change one's mind."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import dataclass

from mflux_api.errors import JobCancelled, JobConflict, MfluxError, ModelNotDownloaded, ShuttingDown, from_code
from mflux_api.events import Event
from mflux_api.jobs import order as orders
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.database.jobs import NewJob
from mflux_api.jobs.job import FINAL, Failure, Inputs, Job, State, shown
from mflux_api.jobs.order import Defaults, Order
from mflux_api.jobs.sqlite_queue import JobQueue, new_id
from mflux_api.models.download_queue import Download, Downloads
from mflux_api.models.inventory import Models
from mflux_api.models.loras import Adapters
from mflux_api.models.registry import Located, ModelSpec
from mflux_api.request import Cut, GenerateRequest

END = {State.COMPLETED: "complete", State.FAILED: "failed", State.CANCELLED: "cancelled"}
# Checks that the memory suffices, or raises OutOfMemory: (model, request, sizes of references, low_ram).
Admit = Callable[[Located, GenerateRequest, Sequence[tuple[int, int]], bool], None]


@dataclass(frozen=True, kw_only=True)
class EngineView:
    """How the engine process is. Bytes; `latest`: the model it used last, `loaded`: those it holds."""

    running: bool
    restarts: int
    chip: str
    backend: str | None
    mlx: str | None
    budget: int | None
    active: int
    cached: int
    peak: int
    latest: str | None
    loaded: tuple[str, ...]


class Studio:
    """What every dialect shares. `models` and `queue` have doors of their own for listing and steering."""

    def __init__(
        self,
        queue: JobQueue,
        models: Models,
        downloads: Downloads,
        *,
        defaults: Defaults,
        loras: Adapters,
        admit: Admit,
        auto_download: bool,
        low_ram: bool,
    ) -> None:
        self.queue = queue
        self.models = models
        self.downloads = downloads
        self.defaults = defaults
        self.loras = loras
        self.admit = admit
        self.auto_download = auto_download
        self.low_ram = low_ram
        self.started = time.time()
        downloads.settled, downloads.told = self.model_settled, self._tell_waiting

    async def submit(self, order: Order, *, awaited: bool = False) -> Job:
        """Accept an order: what it became is on disk when this returns, and soon where its client is `awaited`.

        Raises InvalidRequest, ModelNotFound, ModelNotDownloaded, ModelUnsupported, LoraNotFound, LoraInvalid,
        OutOfMemory, QueueFull, ShuttingDown, StorageFailed, JobConflict.
        """
        orders.check(order, self.defaults.limits)
        low_ram = order.low_ram or self.low_ram
        spec, request, held = await asyncio.to_thread(self._completed, order, low_ram)
        # A client that goes away now must not leave files without a job, or a job without its download.
        return await asyncio.shield(self._put(order, spec, request, held=held, low_ram=low_ram, awaited=awaited))

    async def finished(self, job: Job) -> Job:
        """The job once it has completed; raises the error of a failed one, JobCancelled, and ShuttingDown."""
        ended = await self.queue.ended(job)
        if ended.error is not None:
            raise from_code(ended.error.code, ended.error.message, ended.error.details)
        if ended.state is State.CANCELLED:
            raise JobCancelled("The job was cancelled.", job_id=job.id)
        if not ended.is_final:
            raise ShuttingDown("The server is stopping. The job stays in its queue.", job_id=job.id)
        return ended

    async def painted(self, order: Order) -> tuple[Job, list[bytes]]:
        """Accept an order, wait for it, and read its PNGs; whoever stops waiting cancels it. Raises what those do."""
        job = await self.submit(order, awaited=True)
        try:
            done = await self.finished(job)
        except asyncio.CancelledError:
            with suppress(JobConflict):
                await self.cancel(job.id)
            raise
        return done, await self.read(done)

    def progress(self, job: Job) -> float:
        """0 to 1."""
        active = self.queue.floor.active.get(job.id)
        if active is not None:
            return active.fraction
        return 1.0 if job.state is State.COMPLETED else 0.0

    async def watch(self, job_id: str, last_id: str | None, *, previews: bool) -> AsyncIterator[Event]:
        """A job's events until its last; after `last_id` where that is remembered, else from how it stands now.

        `previews`: the listener looks at them; others get what there is anyway. Ends early when the listener is too
        slow or the server stops. Raises JobNotFound.
        """
        looks = self.queue.audience.watching(job_id) if previews else nullcontext()
        with looks, self.queue.events.listen(job_id) as box:
            job = await self.queue.get(job_id)
            missed = self.queue.events.since(last_id, job_id)
            seen = set()
            for event in missed if missed is not None else [self.standing(job)]:
                seen.add(event.id)
                yield event
                if event.name in END.values():
                    return
            if job.is_final:
                yield self.standing(job)
                return
            async for event in box:
                if event.id not in seen:
                    yield event
                if event.name in END.values():
                    return

    async def cancel(self, job_id: str) -> Job:
        """Raises JobNotFound, and JobConflict for a job that has completed or failed."""
        return await self.queue.cancel(job_id)

    def cut(self, how: Cut) -> None:
        """End the picture that is being painted, or all of its job, with what there is; nothing where nothing is."""
        for active in self.queue.floor.active.values():
            active.shorten(how)

    async def retry(self, job_id: str) -> Job:
        """Raises JobNotFound, JobConflict unless it failed or was cancelled, and what a new order may raise."""
        job = await self.queue.get(job_id)
        spec, located = await asyncio.to_thread(self._model, job.model)
        held = located is None
        job = await self.queue.retry(job_id, held=held)
        if held:
            self.downloads.start(spec)
        return job

    async def read(self, job: Job) -> list[bytes]:
        """As `pngs`, on a thread."""
        return await asyncio.to_thread(self.pngs, job)

    def pngs(self, job: Job) -> list[bytes]:
        """The PNGs of a job that no client deleted. It blocks.

        Raises PictureNotFound for a file that is gone all the same.
        """
        return [self.queue.images.read(picture.file) for picture in job.present.values()]

    async def keep(self, name: str, value: str) -> None:
        """Remember something across restarts. Raises StorageFailed."""
        await self.queue.store.run(job_rows.keep, name, value)

    async def kept(self, name: str) -> str | None:
        """What was remembered under a name."""
        return await self.queue.store.run(job_rows.kept, name)

    async def keep_refusal(self, reason: str) -> str:
        """A name for an order that was refused and never became a job, so that whoever asks for it learns why."""
        name = new_id()
        await self.keep(f"refused.{name}", reason)
        return name

    async def refusal(self, name: str) -> str | None:
        return await self.kept(f"refused.{name}")

    async def list_loras(self) -> list[tuple[str, int]]:
        """(name, bytes) of the adapters in their folder."""
        return await asyncio.to_thread(self.loras.listed)

    async def resume_downloads(self) -> None:
        """After a start: jobs that wait for a model go on waiting, or run if it has come meanwhile."""
        for job in await self.queue.store.run(job_rows.held):
            try:
                spec, located = await asyncio.to_thread(self._model, job.model)
            except MfluxError as error:
                await self.queue.refuse(job, _failure(error))
                continue
            if located is None:
                self.downloads.start(spec)
            else:
                await self.queue.release_held([job.model])

    async def model_settled(self, spec: ModelSpec, error: MfluxError | None) -> None:
        """A download has ended: the jobs that waited for it may run, or never can."""
        self.models.forget()
        waiting = [job for job in await self.queue.store.run(job_rows.held) if await self._shares(job, spec)]
        if error is None:
            await self.queue.release_held({job.model for job in waiting})
            return
        if self.downloads.of(spec) is not None:
            return  # started again meanwhile: they wait for that
        for job in waiting:
            await self.queue.refuse(job, _failure(error))

    async def _shares(self, job: Job, spec: ModelSpec) -> bool:
        return (await self.models.find(job.model)).folder == spec.folder

    def _completed(self, order: Order, low_ram: bool) -> tuple[ModelSpec, GenerateRequest, bool]:
        """Its model, its request with every gap filled, whether it waits for a download. Looks at files: it blocks."""
        spec, located = self._model(order.model)
        request = orders.complete(order, spec, self.defaults, self.loras.resolve(order.loras))
        if located is not None:
            sizes = [(upload.width, upload.height) for upload in order.references]
            self.admit(located, request, sizes, low_ram)
        return spec, request, located is None

    def _model(self, name: str | None) -> tuple[ModelSpec, Located | None]:
        """The model, and where it is, or None where it has to be downloaded first. It blocks."""
        try:
            located = self.models.locate(name)
        except ModelNotDownloaded:
            if not self.auto_download:
                raise
            return self.models.spec(name), None
        return located.spec, located

    async def _put(
        self, order: Order, spec: ModelSpec, request: GenerateRequest, *, held: bool, low_ram: bool, awaited: bool
    ) -> Job:
        job_id = new_id()
        try:
            job = await self.queue.put(
                NewJob(
                    id=job_id,
                    priority=order.priority,
                    held=held,
                    owner=order.owner,
                    key=order.key,
                    digest=order.digest,
                    model=spec.name,
                    low_ram=low_ram,
                    request=request,
                    inputs=await self._keep_inputs(job_id, order),
                    created=time.time(),
                ),
                awaited=awaited,
            )
        except MfluxError:
            await asyncio.to_thread(self.queue.images.delete_inputs, job_id)
            raise
        if job.id != job_id:
            await asyncio.to_thread(self.queue.images.delete_inputs, job_id)
        elif held:
            self.downloads.start(spec)
        return job

    async def _keep_inputs(self, job_id: str, order: Order) -> Inputs:
        if not order.uploads:
            return Inputs()
        return await asyncio.to_thread(
            self.queue.images.keep_inputs,
            job_id,
            None if order.source is None else order.source.data,
            None if order.mask is None else order.mask.data,
            [upload.data for upload in order.references],
            [upload.data for upload in order.further_sources],
        )

    def standing(self, job: Job) -> Event:
        """How a job stands now, as the event that would have told it."""
        if job.state in FINAL:
            data = {"job_id": job.id, "status": str(shown(job.state))}
            return Event(f"end-{job.id}-{job.attempts}", job.id, END[job.state], data)
        latest = self.queue.events.latest(job.id)
        if latest is not None:
            return latest
        position = self.queue.position(job.id)
        now = {"job_id": job.id, "status": shown(job.state), "progress": 0.0, "position": position}
        return Event(f"now-{job.id}", job.id, "progress", now)

    def _tell_waiting(self, download: Download) -> None:
        asyncio.get_running_loop().create_task(self._tell_held(download))

    async def _tell_held(self, download: Download) -> None:
        for job in await self.queue.store.run(job_rows.held):
            if await self._shares(job, download.spec):
                data = {"job_id": job.id, "status": shown(job.state), "progress": 0.0, "stage": "downloading"}
                self.queue.events.publish(job.id, "progress", {**data, "download": round(download.fraction, 4)})


def _failure(error: MfluxError) -> Failure:
    return Failure(error.code, error.status, error.message, dict(error.details))
