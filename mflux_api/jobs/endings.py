"""Who waits for which job to end."""

import asyncio
from collections import defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager

from mflux_api.jobs.job import Job


class Endings:
    """Waiters are woken with their job once it has ended, or with None when the server will not come to it."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Future[Job | None]]] = defaultdict(set)

    @contextmanager
    def expect(self, job_id: str) -> "Iterator[asyncio.Future[Job | None]]":
        """What will be told at the end of the job."""
        end: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiting[job_id].add(end)
        try:
            yield end
        finally:
            self._waiting[job_id].discard(end)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def tell(self, job: Job) -> None:
        self._wake(job.id, job)

    def give_up(self, but: Container[str] = ()) -> None:
        """Wake everybody but those who wait for these jobs."""
        for job_id in list(self._waiting):
            if job_id not in but:
                self._wake(job_id, None)

    def _wake(self, job_id: str, job: Job | None) -> None:
        for end in self._waiting.get(job_id, ()):
            if not end.done():
                end.set_result(job)
