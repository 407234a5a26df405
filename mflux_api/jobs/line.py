"""Who is next: the order of waiting jobs, kept in memory so that a position costs the same at any length."""

from bisect import bisect_left, insort
from collections.abc import Iterable


class Line:
    """Jobs by priority, the highest first, then by submission."""

    def __init__(self, jobs: Iterable[tuple[str, int, int]] = ()) -> None:
        self._places = {job_id: (-priority, number) for job_id, priority, number in jobs}
        self._order = sorted(self._places.values())

    def __len__(self) -> int:
        return len(self._order)

    def __contains__(self, job_id: str) -> bool:
        return job_id in self._places

    def add(self, job_id: str, priority: int, number: int) -> None:
        self._places[job_id] = (-priority, number)
        insort(self._order, self._places[job_id])

    def remove(self, job_id: str) -> None:
        """Take a job out; nothing happens when it is not in line."""
        place = self._places.pop(job_id, None)
        if place is not None:
            del self._order[bisect_left(self._order, place)]

    def position(self, job_id: str) -> int | None:
        """1 for the next one; None when it does not wait."""
        place = self._places.get(job_id)
        return None if place is None else bisect_left(self._order, place) + 1
