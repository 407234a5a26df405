"""Clients that wait for a job's end, and clients that watch previews.

Without viewers, previews are made at most once a second.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager

from mflux_api.jobs.job import Job

# How long one poll counts as viewing. Clients that poll ask again within this time.
POLL_SECONDS = 60.0


class PreviewViewers:
    """Clients that watch previews of a job or of all jobs, and clients that poll for the latest preview."""

    def __init__(self) -> None:
        self._watchers: Counter[str | None] = Counter()
        self._polled = -POLL_SECONDS
        self._came = asyncio.Event()

    @contextmanager
    def watching(self, job: str | None) -> Iterator[None]:
        """Count a viewer of a job, or of all jobs with None, until the context ends."""
        self._watchers[job] += 1
        self._announce()
        try:
            yield
        finally:
            self._watchers -= Counter([job])

    def poll(self) -> None:
        """Count a client that polls as a viewer of all jobs for POLL_SECONDS."""
        self._polled = time.monotonic()
        self._announce()

    async def wait_for_viewer(self, job: str) -> None:
        """Wait until a client watches previews of this job."""
        while not self._has_viewer(job):
            await self._came.wait()

    def _has_viewer(self, job: str) -> bool:
        lately = time.monotonic() - self._polled < POLL_SECONDS
        return lately or self._watchers[job] > 0 or self._watchers[None] > 0

    def _announce(self) -> None:
        """Wake all waiters to check again. Later waiters wait for the next viewer."""
        self._came.set()
        self._came = asyncio.Event()


class EndWaiters:
    """Waits for the end of jobs. They return the ended job, or None if the server stops before."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[Job | None]]] = defaultdict(set)

    @contextmanager
    def expect(self, job_id: str) -> "Iterator[asyncio.Future[Job | None]]":
        """Return a future that is set to the job when it ends, or to None when the wait is given up."""
        end: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiting[job_id].add(end)
        try:
            yield end
        finally:
            self._waiting[job_id].discard(end)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def wake(self, job: Job) -> None:
        """Wake the waiters of a job that has ended."""
        self._wake(job.id, job)

    def give_up(self, but: Container[str] = ()) -> None:
        """Wake all waiters with None, except those of the jobs in `but`."""
        for job_id in list(self._waiting):
            if job_id not in but:
                self._wake(job_id, None)

    def _wake(self, job_id: str, job: Job | None) -> None:
        for end in self._waiting.get(job_id, ()):
            if not end.done():
                end.set_result(job)
