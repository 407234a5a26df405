"""Waiting jobs in order, and idle workers. Kept in memory, so that a position is found fast in a long queue."""

import asyncio
from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from mflux_api.jobs.job import Job


class IdleWorkers:
    """Workers that wait for a job, in order of arrival."""

    def __init__(self) -> None:
        self._news = False
        self._waiting: list[asyncio.Future[Job | None]] = []

    def __bool__(self) -> bool:
        """Return whether any worker waits."""
        return any(not place.done() for place in self._waiting)

    def clear_news(self) -> None:
        """Clear the wake-up flag before checking the queue."""
        self._news = False

    async def wait(self, seconds: float | None) -> Job | None:
        """Wait for a job that is handed over. Returns None after `wake` and after `seconds`: check the queue."""
        if self._news:
            return None
        place: asyncio.Future[Job | None] = asyncio.get_running_loop().create_future()
        self._waiting.append(place)
        try:
            await asyncio.wait([place], timeout=seconds)
            return place.result() if place.done() else None
        finally:
            self._waiting.remove(place)

    def wake(self) -> None:
        """Make all workers check the queue, also those that are about to wait."""
        self._news = True
        for place in self._waiting:
            if not place.done():
                place.set_result(None)

    def hand(self, job: Job) -> bool:
        """Hand a job to the first waiting worker. Returns whether there was one."""
        for place in self._waiting:
            if not place.done():
                place.set_result(job)
                return True
        return False


class QueuePosition(NamedTuple):
    """The fields of a job that decide its position in the queue."""

    id: str
    priority: int
    place: float
    number: int


Key: TypeAlias = tuple[int, float, int]


class WaitingJobs:
    """Waiting jobs, sorted by priority (highest first), then place: the order of submission unless they were moved."""

    def __init__(self, jobs: Iterable[Job | QueuePosition] = ()) -> None:
        self._keys = {job.id: _key(job) for job in jobs}
        self._order = sorted(self._keys.values())

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._keys

    def add(self, job: Job | QueuePosition) -> None:
        self._keys[job.id] = _key(job)
        insort(self._order, self._keys[job.id])

    def remove(self, job_id: str) -> None:
        """Remove a job. Does nothing if it is not waiting."""
        key = self._keys.pop(job_id, None)
        if key is not None:
            del self._order[bisect_left(self._order, key)]

    def move(self, moved: QueuePosition) -> None:
        """Change a job's position. Does nothing if it is not waiting."""
        if moved.id in self:
            self.remove(moved.id)
            self.add(moved)

    def position(self, job_id: str) -> int | None:
        """Return a job's position: 1 for the next job, None when it is not waiting."""
        key = self._keys.get(job_id)
        return None if key is None else bisect_left(self._order, key) + 1


def _key(job: Job | QueuePosition) -> Key:
    return -job.priority, job.place, job.number
