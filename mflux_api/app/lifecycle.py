"""The services that live as long as the server, and their start and stop in order."""

import asyncio
from contextlib import suppress
from dataclasses import dataclass

from mflux_api.errors import MfluxError
from mflux_api.jobs.disk_space import GIB, measure_disk
from mflux_api.jobs.queue import JobQueue, Retention
from mflux_api.jobs.service import EngineView, JobService
from mflux_api.jobs.webhooks import Webhooks
from mflux_api.logs import log_error, log_event, log_warning
from mflux_api.metrics import Metrics
from mflux_api.net.s3 import Bucket, BucketFailed, BucketRefused
from mflux_api.settings import Settings
from mflux_api.supervisor import Supervisor
from mflux_api.web.uploaded_files import UploadedFiles
from mflux_api.worker.dispatcher import Dispatcher
from mflux_api.worker.engine_process import EngineProcess

GIGABYTE = 1000**3
PRUNE_SECONDS = 600.0


@dataclass
class Services:
    """All services of the server, as built by `make_services`."""

    settings: Settings
    queue: JobQueue
    engine: EngineProcess
    service: JobService
    dispatcher: Dispatcher
    metrics: Metrics
    supervisor: Supervisor
    # Set by `build_app`, because the dialects define the payloads of webhooks.
    webhooks: Webhooks | None = None
    bucket: Bucket | None = None
    uploads: UploadedFiles | None = None
    # Event loop time until which a running job may continue while the server stops. None before that.
    deadline: float | None = None

    async def start(self) -> None:
        """Open the job database and start the background tasks.

        Raises BucketRefused, and the errors of `SQLiteQueue.open`.
        """
        await self._check_bucket()
        await self.queue.open()
        await self.service.models.list_models()
        await self.service.resume_downloads()
        self.supervisor.start("dispatcher", self.dispatcher.run_forever)
        self.supervisor.start("prune", self._prune_jobs)
        self.supervisor.start("engine start", self._warm_up_engine)
        if self.webhooks is not None:
            self.supervisor.start("webhooks", self.webhooks.work)

    async def _check_bucket(self) -> None:
        if self.bucket is None:
            return
        try:
            await self.bucket.check()
        except BucketRefused:
            raise
        except BucketFailed as error:
            # The network may start after this machine. The upload of each picture tries again.
            log_warning("storage.unreachable", reason=error.message)

    def drain(self) -> None:
        """Begin the shutdown: start no new jobs. The running job may continue until the deadline."""
        if self.deadline is None:
            loop = asyncio.get_running_loop()
            self.deadline = loop.time() + self.settings.server.shutdown_seconds
            loop.call_at(self.deadline, self.queue.stop_waits)
            self.queue.drain()
            self.service.downloads.close()
            log_event("server.stopping", running=len(self.queue.running_jobs()), waiting=self.queue.count_waiting())

    async def stop(self) -> None:
        self.drain()
        assert self.deadline is not None
        with suppress(TimeoutError):
            async with asyncio.timeout_at(self.deadline):
                await self.queue.wait_idle()
                await self.dispatcher.painting_lock.acquire()
        self.supervisor.cancel()
        # Killed, not asked to stop: that would wait for the end of the current step.
        await self.engine.stop()
        await self.supervisor.wait_ended()
        await self.queue.close()
        log_event("server.stopped")

    def _report_disk(self, before: str | None) -> str | None:
        """Log that the disk gets short, once. Returns the warning."""
        disk = measure_disk(self.settings.generation.output_dir)
        if disk is None or disk.warning is None:
            return None
        if before is None:
            log_warning("disk.low", free_gb=round(disk.free / GIB, 2), message=disk.warning)
        return disk.warning

    async def _prune_jobs(self) -> None:
        warning: str | None = None
        limits = self.settings.queue
        retention = Retention(days=limits.keep_days, bytes=int(limits.keep_gb * GIGABYTE))
        while True:
            try:
                if count := await self.queue.prune(retention):
                    log_event("jobs.pruned", count=count)
                if self.uploads is not None:
                    await asyncio.to_thread(self.uploads.prune)
            except MfluxError as error:
                log_error("jobs.prune", error)
            warning = self._report_disk(warning)
            await asyncio.sleep(PRUNE_SECONDS)

    async def _warm_up_engine(self) -> None:
        """Start the engine now, which takes a second, so that the first picture does not wait for it."""
        try:
            await self.engine.start()
            if self.settings.engine.preload:
                await self.service.models.load(self.settings.models.default)
        except MfluxError as error:
            log_error("engine.start", error)


def get_engine_view(services: Services) -> EngineView:
    """Return the state of the engine as shown to clients."""
    engine, known, memory = services.engine, services.engine.last_ready, services.engine.memory
    return EngineView(
        running=engine.ready is not None,
        restarts=max(0, engine.start_count - 1),
        chip=known.chip if known else "unknown until the engine has started",
        backend=known.device if known else None,
        mlx=known.mlx if known else None,
        budget=known.budget if known else None,
        active=memory.active,
        cached=memory.cached,
        peak=memory.peak,
        latest=memory.loaded[-1] if memory.loaded else None,
        loaded=memory.loaded,
    )
