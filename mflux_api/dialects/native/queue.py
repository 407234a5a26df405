"""/api/v1: the queue of waiting jobs, and pausing it."""

from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native.jobs import json_response
from mflux_api.dialects.native.wire import WireModel, format_time, shorten_prompt
from mflux_api.errors import InvalidRequest
from mflux_api.jobs.job import Job
from mflux_api.jobs.queue import RunningJob
from mflux_api.jobs.service import JobService
from mflux_api.web.body import parse_query
from mflux_api.web.openapi import Endpoint


class QueueQuery(WireModel):
    limit: int = Field(100, ge=1, le=1000, description="waiting jobs to list")


class _QueueRow(WireModel):
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


class QueueStatus(WireModel):
    """The queue. `eta_seconds`: seconds until a job is done; null until the model has completed a job here."""

    active: ActiveJob | None
    queued: list[QueuedJob]
    length: int
    paused: bool


class Paused(WireModel):
    paused: bool


def build_row_fields(job: Job, eta: float | None) -> dict[str, Any]:
    """Return the fields of a running or waiting job. `eta`: seconds until it is done."""
    request = job.request
    return {
        "job_id": job.id,
        "prompt": shorten_prompt(request.prompt),
        "model": job.model,
        "width": request.width,
        "height": request.height,
        "num_images": len(request.seeds),
        "created_at": format_time(job.created),
        "eta_seconds": None if eta is None else round(eta, 1),
    }


TAG = "queue"


class QueueEndpoints:
    """Handlers of the queue."""

    def __init__(self, service: JobService) -> None:
        self.service = service

    async def get_queue(self, request: Request) -> Response:
        asked = parse_query(request, QueueQuery)
        queue = self.service.queue
        running = next(iter(queue.running_jobs()), None)
        ahead = running.seconds_left if running else 0.0
        queued = []
        for position, job in enumerate(await queue.waiting_jobs(asked.limit), start=1):
            takes = queue.expected_seconds(job)
            ahead = None if ahead is None or takes is None else ahead + takes
            queued.append(QueuedJob(position=position, **build_row_fields(job, ahead)))
        active = None if running is None else _active(running)
        return json_response(
            QueueStatus(active=active, queued=queued, length=queue.count_waiting(), paused=queue.is_paused)
        )

    async def pause_queue(self, request: Request) -> Response:
        self.service.queue.pause()
        return json_response(Paused(paused=True))

    async def resume_queue(self, request: Request) -> Response:
        self.service.queue.resume()
        return json_response(Paused(paused=False))

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/queue",
                self.get_queue,
                "What is being painted, what waits, and how long it takes",
                TAG,
                QueueStatus,
                query=QueueQuery,
                errors=(InvalidRequest,),
            ),
            Endpoint("POST", "/api/v1/queue/pause", self.pause_queue, "Start no more jobs", TAG, Paused),
            Endpoint("POST", "/api/v1/queue/resume", self.resume_queue, "Go on", TAG, Paused),
        ]


def _active(running: RunningJob) -> ActiveJob:
    return ActiveJob(progress=running.fraction, **build_row_fields(running.job, running.seconds_left))
