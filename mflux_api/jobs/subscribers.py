"""Who waits for which job to end, and who watches previews; without viewers they are sent at most once a second."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager

from mflux_api.jobs.job import Job

# Clients that poll ask again within this time.
POLL_SECONDS = 60.0


class PreviewViewers:
    """Clients that watch previews of a job or of all jobs, and clients that poll for the latest preview."""

    def __init__(self) -> None:
        self._watchers: Counter[str | None] = Counter()
        self._polled = -POLL_SECONDS
        self._came = asyncio.Event()

    @contextmanager
    def watching(self, job: str | None) -> Iterator[None]:
        """Count a viewer of a job (None: of all jobs) until this ends."""
        self._watchers[job] += 1
        self._announce()
        try:
            yield
        finally:
            self._watchers -= Counter([job])

    def poll(self) -> None:
        """A client asked for the latest preview, and will ask again."""
        self._polled = time.monotonic()
        self._announce()

    async def wait_for_viewer(self, job: str) -> None:
        """Wait until somebody looks at this job."""
        while not self._has_viewer(job):
            await self._came.wait()

    def _has_viewer(self, job: str) -> bool:
        lately = time.monotonic() - self._polled < POLL_SECONDS
        return lately or self._watchers[job] > 0 or self._watchers[None] > 0

    def _announce(self) -> None:
        """Wake all who wait, to look again; later ones wait for the next viewer."""
        self._came.set()
        self._came = asyncio.Event()


class EndWaiters:
    """Wakes waiters with their job once it has ended, or with None when the server will not come to it."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[Job | None]]] = defaultdict(set)

    @contextmanager
    def expect(self, job_id: str) -> "Iterator[asyncio.Future[Job | None]]":
        """A future of the job's end."""
        end: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiting[job_id].add(end)
        try:
            yield end
        finally:
            self._waiting[job_id].discard(end)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def wake(self, job: Job) -> None:
        """Wake those who wait for this job, which has ended."""
        self._wake(job.id, job)

    def give_up(self, but: Container[str] = ()) -> None:
        """Wake everybody with None but those who wait for these jobs."""
        for job_id in list(self._waiting):
            if job_id not in but:
                self._wake(job_id, None)

    def _wake(self, job_id: str, job: Job | None) -> None:
        for end in self._waiting.get(job_id, ()):
            if not end.done():
                end.set_result(job)
