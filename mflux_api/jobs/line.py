"""Who is next: the order of waiting jobs, kept in memory so that a position costs the same at any length."""

from bisect import bisect_left, insort
from collections.abc import Iterable
from typing import NamedTuple, TypeAlias

from mflux_api.jobs.job import Job


class Spot(NamedTuple):
    """As much of a job as decides where it stands in the line."""

    id: str
    priority: int
    place: float
    number: int


Key: TypeAlias = tuple[int, float, int]


class Line:
    """Jobs by priority, the highest first, then by place: in the order of submission unless they were moved."""

    def __init__(self, jobs: Iterable[Job | Spot] = ()) -> None:
        self._keys = {job.id: _key(job) for job in jobs}
        self._order = sorted(self._keys.values())

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._keys

    def add(self, job: Job | Spot) -> None:
        self._keys[job.id] = _key(job)
        insort(self._order, self._keys[job.id])

    def remove(self, job_id: str) -> None:
        """Take a job out; nothing happens when it is not in line."""
        key = self._keys.pop(job_id, None)
        if key is not None:
            del self._order[bisect_left(self._order, key)]

    def move(self, spot: Spot) -> None:
        """A job stands elsewhere from now on; nothing happens when it is not in line."""
        if spot.id in self:
            self.remove(spot.id)
            self.add(spot)

    def position(self, job_id: str) -> int | None:
        """1 for the next one; None when it does not wait."""
        key = self._keys.get(job_id)
        return None if key is None else bisect_left(self._order, key) + 1


def _key(job: Job | Spot) -> Key:
    return -job.priority, job.place, job.number
