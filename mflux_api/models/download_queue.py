"""The queue of model downloads: one at a time, each in its own thread, with events for waiting jobs and clients."""

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path

from mflux_api.errors import DownloadFailed, GenerationFailed, MfluxError
from mflux_api.events import Event, EventBus, Listener
from mflux_api.logs import log_error, log_event
from mflux_api.models.registry import ModelSpec

REPORT_SECONDS = 0.5
OnSettled = Callable[[ModelSpec, MfluxError | None], Awaitable[None]]


@dataclass(frozen=True)
class DownloadProgress:
    """Progress of a download. Bytes of an earlier attempt count as done, but not in `bytes_per_second`."""

    done_files: int
    total_files: int
    done_bytes: int
    total_bytes: int
    bytes_per_second: float


OnProgress = Callable[[DownloadProgress], None]
FetchModel = Callable[[ModelSpec, OnProgress, threading.Event], Path]


@dataclass
class Download:
    """A running download. `progress`: None until the list of files is known.

    `done`: finishes with the download, with its error if it failed.
    """

    spec: ModelSpec
    done: asyncio.Future[None]
    progress: DownloadProgress | None = None
    stop: threading.Event = field(default_factory=threading.Event)
    published_at: float = 0.0

    @property
    def fraction(self) -> float:
        if self.progress is None or not self.progress.total_bytes:
            return 0.0
        return self.progress.done_bytes / self.progress.total_bytes


class DownloadQueue:
    """Runs downloads one after the other.

    `fetch`: downloads a model, blocking. `on_settled(spec, error)`: awaited after each download. `on_progress`: called
    with the download at most every REPORT_SECONDS. `latest_events`: the last event of each folder's download, for late
    listeners.
    """

    def __init__(self, fetch: FetchModel, events: EventBus) -> None:
        self.fetch = fetch
        self.events = events
        self.active: dict[str, Download] = {}
        self.latest_events: dict[str, Event] = {}
        self.on_settled: OnSettled = _ignore
        self.on_progress: Callable[[Download], None] = lambda _: None
        self._download_lock = asyncio.Lock()
        self._tasks: set[asyncio.Task[None]] = set()

    def find_download(self, spec: ModelSpec) -> Download | None:
        """Return the download of this model's files; None if there is none."""
        return self.active.get(spec.folder)

    def listen(self, spec: ModelSpec) -> AbstractContextManager[Listener]:
        """Return a listener that receives all further events of the download of this model's files."""
        return self.events.listen(f"model:{spec.folder}")

    def start(self, spec: ModelSpec) -> Download:
        """Start a download, or return the one in progress. Quantized variants share the files of their model."""
        found = self.active.get(spec.folder)
        if found is not None and not found.stop.is_set():
            return found
        download = Download(spec, asyncio.get_running_loop().create_future())
        # Mark the error as read, because `done` need not be awaited. Jobs and streams get the error in any case.
        download.done.add_done_callback(lambda future: future.cancelled() or future.exception())
        self.active[spec.folder] = download
        self._publish(download, "download", None)
        task = asyncio.create_task(self._run(download))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return download

    def cancel(self, spec: ModelSpec) -> bool:
        """Stop a download. `start` resumes it later. Returns False when there is none."""
        found = self.active.get(spec.folder)
        if found is not None:
            found.stop.set()
        return found is not None

    def close(self) -> None:
        for download in self.active.values():
            download.stop.set()
        for task in self._tasks:
            task.cancel()

    async def _run(self, download: Download) -> None:
        async with self._download_lock:
            error = await self._wait_fetched(download)
        # A stopped download may have been started again before it ended.
        if self.active.get(download.spec.folder) is download:
            del self.active[download.spec.folder]
        await self.on_settled(download.spec, error)
        self._publish(download, "downloaded" if error is None else "download_failed", error)
        if error is None:
            download.done.set_result(None)
        else:
            download.done.set_exception(error)

    async def _wait_fetched(self, download: Download) -> MfluxError | None:
        loop = asyncio.get_running_loop()
        finished: asyncio.Future[MfluxError | None] = loop.create_future()

        def work() -> None:
            error = self._attempt(download, loop)
            _call_threadsafe(loop, lambda: _set_result(finished, error))

        # A daemon thread, so that a stalled connection cannot keep the server from exiting.
        threading.Thread(target=work, daemon=True, name=f"download-{download.spec.folder}").start()
        return await finished

    def _attempt(self, download: Download, loop: asyncio.AbstractEventLoop) -> MfluxError | None:
        try:
            self.fetch(
                download.spec,
                lambda p: _call_threadsafe(loop, lambda: self._update_progress(download, p)),
                download.stop,
            )
        except MfluxError as error:
            log_error("model.download", error, model=download.spec.name)
            return error
        except Exception as error:  # noqa: BLE001 - the thread's outermost frame: jobs wait for its result
            log_error("model.download", error, model=download.spec.name)
            return GenerationFailed("The download ended with an internal error, described in the log.")
        if download.stop.is_set():
            return DownloadFailed("The download was stopped. Start it again: it goes on where it stopped.")
        log_event("model.downloaded", model=download.spec.name)
        return None

    def _update_progress(self, download: Download, progress: DownloadProgress) -> None:
        download.progress = progress
        now = asyncio.get_running_loop().time()
        if now - download.published_at >= REPORT_SECONDS:
            download.published_at = now
            self._publish(download, "download", None)
            self.on_progress(download)

    def _publish(self, download: Download, name: str, error: MfluxError | None) -> None:
        data = {
            "model": download.spec.name,
            "progress": 1.0 if name == "downloaded" else round(download.fraction, 4),
            "done_bytes": download.progress.done_bytes if download.progress else 0,
            "total_bytes": download.progress.total_bytes if download.progress else None,
            **({} if error is None else {"error": error.message, "code": error.code}),
        }
        self.latest_events[download.spec.folder] = self.events.publish(f"model:{download.spec.folder}", name, data)


async def _ignore(spec: ModelSpec, error: MfluxError | None) -> None:
    """Do nothing. The default of `on_settled`."""


def _set_result(future: "asyncio.Future[MfluxError | None]", error: MfluxError | None) -> None:
    if not future.done():
        future.set_result(error)


def _call_threadsafe(loop: asyncio.AbstractEventLoop, call: Callable[[], None]) -> None:
    if not loop.is_closed():
        loop.call_soon_threadsafe(call)
