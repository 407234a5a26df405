"""The names that clients give their requests (`force_task_id`), to ask after them at /internal/progress."""

from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager

REMEMBERED = 1000


class TaskIds:
    """Names to jobs, the latest of them."""

    def __init__(self) -> None:
        self.jobs: OrderedDict[str, str] = OrderedDict()
        # Known by name, but not yet in the queue.
        self.arriving: set[str] = set()

    @contextmanager
    def track_arrival(self, name: str | None) -> Iterator[None]:
        """The request is on its way to the queue."""
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
        """What a client called the job, else its id."""
        return next((name for name, known in self.jobs.items() if known == job_id), job_id)
