"""Application service used by every API: submit, await, cancel and retry jobs, and download models."""

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

from mflux_api.errors import JobCancelled, JobConflict, MfluxError, ModelNotDownloaded, ShuttingDown, from_code
from mflux_api.jobs import order as orders
from mflux_api.jobs.job import Failure, Inputs, Job, State, new_job_id
from mflux_api.jobs.order import Defaults, Order
from mflux_api.jobs.queue import ClientQueue, InputPictures, NewJob, RunningJob
from mflux_api.models.download_queue import Download, DownloadQueue
from mflux_api.models.inventory import ModelInventory
from mflux_api.models.loras import LoraFile, LoraFolder
from mflux_api.models.registry import ModelSpec, ResolvedModel
from mflux_api.request import EarlyStop, GenerateRequest

# Raises OutOfMemory if the memory does not suffice: (model, request, sizes of references in pixels, low_ram).
Admit = Callable[[ResolvedModel, GenerateRequest, Sequence[tuple[int, int]], bool], None]


@dataclass(frozen=True, kw_only=True)
class EngineView:
    """State of the engine process. Memory in bytes. `latest`: the model used last. `loaded`: the models in memory."""

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


class JobService:
    """What all dialects share. Use `queue` to list and move jobs, `models` to list and load models."""

    def __init__(
        self,
        queue: ClientQueue,
        models: ModelInventory,
        downloads: DownloadQueue,
        *,
        defaults: Defaults,
        loras: LoraFolder,
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
        downloads.on_settled, downloads.on_progress = self.model_settled, self._report_download

    async def submit(self, order: Order, *, awaited: bool = False) -> Job:
        """Accept an order. Returns once the job is durable; with `awaited=True`, before the fsync.

        Raises InvalidRequest, ModelNotFound, ModelNotDownloaded, ModelUnsupported, LoraNotFound, LoraInvalid,
        OutOfMemory, QueueFull, ShuttingDown, StorageFailed, JobConflict.
        """
        orders.check(order, self.defaults.limits)
        low_ram = order.low_ram or self.low_ram
        spec, request, held = await asyncio.to_thread(self._completed, order, low_ram)
        # Shielded: a client that disconnects now must not leave files without a job, or a job without its download.
        return await asyncio.shield(self._put(order, spec, request, held=held, low_ram=low_ram, awaited=awaited))

    async def wait_finished(self, job: Job) -> Job:
        """Wait until the job has completed and return it.

        Raises the error of a failed job, JobCancelled, and ShuttingDown.
        """
        ended = await self.queue.wait_ended(job)
        if ended.error is not None:
            raise from_code(ended.error.code, ended.error.message, ended.error.details)
        if ended.state is State.CANCELLED:
            raise JobCancelled("The job was cancelled.", job_id=job.id)
        if not ended.is_final:
            raise ShuttingDown("The server is stopping. The job stays in its queue.", job_id=job.id)
        return ended

    async def submit_and_wait(self, order: Order) -> tuple[Job, list[bytes]]:
        """Accept an order, wait for its end, and read its PNGs. Cancelling this call cancels the job.

        Raises what `submit`, `wait_finished` and `read_pictures` raise.
        """
        submitting = asyncio.ensure_future(self.submit(order, awaited=True))
        try:
            done = await self.wait_finished(await asyncio.shield(submitting))
        except asyncio.CancelledError:
            with suppress(MfluxError):
                await self.cancel_unwanted((await submitting).id)
            raise
        return done, await self.read_pictures(done)

    def running_job(self, job_id: str) -> RunningJob | None:
        """Return a snapshot of a running job; None when it is not running."""
        return next((running for running in self.queue.running_jobs() if running.job.id == job_id), None)

    def progress(self, job: Job) -> float:
        """Return the job's progress, 0 to 1."""
        running = self.running_job(job.id)
        if running is not None:
            return running.fraction
        return 1.0 if job.state is State.COMPLETED else 0.0

    async def cancel(self, job_id: str) -> Job:
        """Cancel a job. Raises JobNotFound, and JobConflict for a job that has completed or failed."""
        return await self.queue.cancel(job_id)

    async def cancel_unwanted(self, job_id: str) -> None:
        """Cancel a job whose client has left, unless it has just ended."""
        with suppress(JobConflict):
            await self.cancel(job_id)

    def end_early(self, how: EarlyStop) -> None:
        """End the current picture of every running job, or the job, early."""
        for running in self.queue.running_jobs():
            self.queue.end_early(running.job.id, how)

    async def retry(self, job_id: str) -> Job:
        """Requeue a failed or cancelled job.

        Raises JobNotFound, JobConflict for a job in another state, and what a new order may raise.
        """
        job = await self.queue.get(job_id)
        spec, located = await asyncio.to_thread(self._model, job.model)
        held = located is None
        job = await self.queue.retry(job_id, held=held)
        if held:
            self.downloads.start(spec)
        return job

    async def read_pictures(self, job: Job) -> list[bytes]:
        """Read the PNGs of a job on a thread. Raises what `pngs` raises."""
        return await asyncio.to_thread(self.pngs, job)

    def pngs(self, job: Job) -> list[bytes]:
        """Read the PNGs of a job, without deleted ones. Blocking.

        Raises PictureNotFound for a file that is missing.
        """
        return [self.queue.read_picture(picture.file) for picture in job.present.values()]

    async def save_refusal(self, reason: str) -> str:
        """Store why an order was refused, and return the id under which `load_refusal` finds the reason."""
        name = new_job_id()
        await self.queue.save_value(f"refused.{name}", reason)
        return name

    async def load_refusal(self, name: str) -> str | None:
        return await self.queue.load_value(f"refused.{name}")

    async def list_loras(self) -> list[LoraFile]:
        """Return the adapters in their folder."""
        return await asyncio.to_thread(self.loras.list_files)

    async def resume_downloads(self) -> None:
        """Resume the downloads that jobs wait for, after a start of the server.

        Jobs whose model has arrived in the meantime are released; jobs whose model cannot be used any more fail.
        """
        for job in await self.queue.held_jobs():
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
        """Release the jobs that waited for a model's download, or fail them with the download's `error`."""
        self.models.invalidate()
        waiting = [job for job in await self.queue.held_jobs() if await self._shares(job, spec)]
        if error is None:
            await self.queue.release_held({job.model for job in waiting})
            return
        if self.downloads.find_download(spec) is not None:
            return  # The download was started again; the jobs wait for it.
        for job in waiting:
            await self.queue.refuse(job, _failure(error))

    async def _shares(self, job: Job, spec: ModelSpec) -> bool:
        return (await self.models.find_spec(job.model)).folder == spec.folder

    def _completed(self, order: Order, low_ram: bool) -> tuple[ModelSpec, GenerateRequest, bool]:
        """Return the order's model, its complete request, and whether it must wait for a download. Blocking."""
        spec, located = self._model(order.model)
        request = orders.complete(order, spec, self.defaults, self.loras.resolve_loras(order.loras))
        if located is not None:
            sizes = [(upload.width, upload.height) for upload in order.references]
            self.admit(located, request, sizes, low_ram)
        return spec, request, located is None

    def _model(self, name: str | None) -> tuple[ModelSpec, ResolvedModel | None]:
        """Return the model and where its files are, None if it must be downloaded first. Blocking."""
        try:
            located = self.models.resolve_model(name)
        except ModelNotDownloaded:
            if not self.auto_download:
                raise
            return self.models.find_spec_blocking(name), None
        return located.spec, located

    async def _put(
        self, order: Order, spec: ModelSpec, request: GenerateRequest, *, held: bool, low_ram: bool, awaited: bool
    ) -> Job:
        job_id = new_job_id()
        try:
            job = await self.queue.submit(
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
                    inputs=await self._save_inputs(job_id, order),
                    created=time.time(),
                ),
                awaited=awaited,
            )
        except MfluxError:
            await self.queue.delete_inputs(job_id)
            raise
        if job.id != job_id:
            await self.queue.delete_inputs(job_id)
        elif held:
            self.downloads.start(spec)
        return job

    async def _save_inputs(self, job_id: str, order: Order) -> Inputs:
        if not order.uploads:
            return Inputs()
        pictures = InputPictures(
            source=None if order.source is None else order.source.data,
            mask=None if order.mask is None else order.mask.data,
            references=tuple(upload.data for upload in order.references),
            further_sources=tuple(upload.data for upload in order.further_sources),
        )
        return await self.queue.save_inputs(job_id, pictures)

    def _report_download(self, download: Download) -> None:
        asyncio.get_running_loop().create_task(self._report_to_held(download))

    async def _report_to_held(self, download: Download) -> None:
        for job in await self.queue.held_jobs():
            if await self._shares(job, download.spec):
                self.queue.report_download(job, download.fraction)


def _failure(error: MfluxError) -> Failure:
    return Failure(error.code, error.status, error.message, dict(error.details))
