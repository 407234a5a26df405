"""Who waits for which job to end."""

import asyncio
from collections import defaultdict
from collections.abc import Container, Iterator
from contextlib import contextmanager


class Endings:
    """Waiters are woken when their job has ended, and when the server will not come to it any more."""

    def __init__(self) -> None:
        self._waiting: defaultdict[str, set[asyncio.Event]] = defaultdict(set)

    @contextmanager
    def expect(self, job_id: str) -> Iterator[asyncio.Event]:
        """An event that is set at the end of the job."""
        event = asyncio.Event()
        self._waiting[job_id].add(event)
        try:
            yield event
        finally:
            self._waiting[job_id].discard(event)
            if not self._waiting[job_id]:
                del self._waiting[job_id]

    def tell(self, job_id: str) -> None:
        for event in self._waiting.get(job_id, ()):
            event.set()

    def tell_all(self, but: Container[str]) -> None:
        """Wake everybody but those who wait for these jobs."""
        for job_id in list(self._waiting):
            if job_id not in but:
                self.tell(job_id)
