"""Rules for retrying a job that was not completed."""

from dataclasses import dataclass

from mflux_api.errors import EngineDied, MfluxError, StorageFailed
from mflux_api.jobs.job import Failure, Job

WORKER_LOST = Failure("WORKER_LOST", 500, "The worker that painted this job went silent.")


@dataclass(frozen=True)
class RetryPolicy:
    """`tries`: how often a job is started before it fails."""

    tries: int

    def has_tries_left(self, job: Job) -> bool:
        return job.attempts < self.tries


def is_worth_retrying(error: MfluxError) -> bool:
    """Return whether another try may succeed.

    The engine may have died for a reason unrelated to the job, and space on a full disk may be freed.
    """
    return isinstance(error, EngineDied | StorageFailed)


def server_stopped(job: Job) -> Failure:
    """Return the failure of a job whose tries all ended because the server stopped."""
    return Failure("INTERRUPTED", 500, f"The server stopped {job.attempts} times in it.")
