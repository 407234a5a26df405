"""The shapes of /api/v1: the line of waiting jobs."""

from pydantic import Field

from mflux_api.dialects.native.wire import Wire


class QueueQuery(Wire):
    limit: int = Field(100, ge=1, le=1000, description="waiting jobs to list")


class ActiveJob(Wire):
    job_id: str
    prompt: str
    progress: float
    eta_seconds: float | None


class QueuedJob(Wire):
    job_id: str
    position: int
    prompt: str
    eta_seconds: float | None


class QueueStatus(Wire):
    """`eta_seconds`: until it is done; null until this model has painted here."""

    active: ActiveJob | None
    queued: list[QueuedJob]
    length: int
    paused: bool


class Paused(Wire):
    paused: bool
