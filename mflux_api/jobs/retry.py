"""Decide whether a job that was not completed is painted again."""

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
    """Whether another try may succeed: the engine's end need not be the job's fault, and a full disk may be emptied."""
    return isinstance(error, EngineDied | StorageFailed)


def server_stopped(job: Job) -> Failure:
    """Why a job fails whose every try ended with the server."""
    return Failure("INTERRUPTED", 500, f"The server stopped {job.attempts} times in it.")
