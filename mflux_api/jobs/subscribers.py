"""Who waits for which job to end, and who watches previews; without viewers they are sent at most once a second."""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager

from mflux_api.jobs.job import Job

# Clients that ask now and then ask again within this time.
GLANCE_SECONDS = 60.0


class Audience:
    """Whoever watches a job, or all of them; and whoever glanced at what is being painted."""

    def __init__(self) -> None:
        self._watchers: Counter[str | None] = Counter()
        self._glanced = -GLANCE_SECONDS
        self._came = asyncio.Event()

    @contextmanager
    def watching(self, job: str | None) -> Iterator[None]:
        """Somebody wants to see the previews of a job (None: of all) until this ends."""
        self._watchers[job] += 1
        self._announce()
        try:
            yield
        finally:
            self._watchers -= Counter([job])

    def glance(self) -> None:
        """Somebody asked for the preview of now, and will again."""
        self._glanced = time.monotonic()
        self._announce()

    async def watches(self, job: str) -> None:
        """Return once somebody looks at this job."""
        while not self._looks_at(job):
            await self._came.wait()

    def _looks_at(self, job: str) -> bool:
        lately = time.monotonic() - self._glanced < GLANCE_SECONDS
        return lately or self._watchers[job] > 0 or self._watchers[None] > 0

    def _announce(self) -> None:
        """Everybody who waits looks again; whoever comes later waits for the next."""
        self._came.set()
        self._came = asyncio.Event()


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
