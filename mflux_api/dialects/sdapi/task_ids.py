"""Task ids: the names that clients give requests (`force_task_id`) to read their progress at /internal/progress."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

REMEMBERED = 1000


class TaskIds:
    """A mapping from task ids to job ids, limited to the latest ones."""

    def __init__(self) -> None:
        self.jobs: OrderedDict[str, str] = OrderedDict()
        # Task ids of requests that are not in the queue yet.
        self.arriving: set[str] = set()

    @contextmanager
    def track_arrival(self, name: str | None) -> Iterator[None]:
        """Mark a request as arriving until its job is in the queue."""
        if name is not None:
            self.arriving.add(name)
        try:
            yield
        finally:
            self.arriving.discard(name or "")

    def assign_job(self, name: str | None, job_id: str) -> None:
        if name is None:
            return
        self.jobs[name] = job_id
        self.jobs.move_to_end(name)
        while len(self.jobs) > REMEMBERED:
            self.jobs.popitem(last=False)

    def get_name(self, job_id: str) -> str:
        """Return the task id of a job, or its job id if it has none."""
        return next((name for name, known in self.jobs.items() if known == job_id), job_id)
