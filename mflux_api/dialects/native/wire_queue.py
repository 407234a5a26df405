"""The shapes of /api/v1: the line of waiting jobs."""

from typing import Any

from pydantic import Field

from mflux_api.dialects.native.wire import Wire, shortened, stamp
from mflux_api.jobs.job import Job


class QueueQuery(Wire):
    limit: int = Field(100, ge=1, le=1000, description="waiting jobs to list")


class _QueueRow(Wire):
    job_id: str
    prompt: str
    model: str
    width: int
    height: int
    num_images: int
    created_at: str
    eta_seconds: float | None


class ActiveJob(_QueueRow):
    progress: float


class QueuedJob(_QueueRow):
    position: int


class QueueStatus(Wire):
    """`eta_seconds`: until it is done; null until this model has painted here."""

    active: ActiveJob | None
    queued: list[QueuedJob]
    length: int
    paused: bool


class Paused(Wire):
    paused: bool


def facts(job: Job, eta: float | None) -> dict[str, Any]:
    """What a row says of a job, running or waiting. `eta`: seconds."""
    request = job.request
    return {
        "job_id": job.id,
        "prompt": shortened(request.prompt),
        "model": job.model,
        "width": request.width,
        "height": request.height,
        "num_images": len(request.seeds),
        "created_at": stamp(job.created),
        "eta_seconds": None if eta is None else round(eta, 1),
    }
