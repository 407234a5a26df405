"""/api/v1: the line of waiting jobs."""

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native import wire, wire_queue
from mflux_api.dialects.native.jobs import reply
from mflux_api.errors import InvalidRequest
from mflux_api.jobs.job import Job
from mflux_api.jobs.studio import Studio
from mflux_api.web.body import query
from mflux_api.web.openapi import Endpoint

TAG = "queue"


class Queue:
    """Handlers of the queue."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def show(self, request: Request) -> Response:
        asked = query(request, wire_queue.QueueQuery)
        queue = self.studio.queue
        active = next(iter(queue.floor.active.values()), None)
        ahead = queue.floor.remaining(active) if active else 0.0
        queued = []
        for position, job in enumerate(await queue.waiting(asked.limit), start=1):
            takes = queue.paces.seconds(job.model, job.request)
            ahead = None if ahead is None or takes is None else ahead + takes
            prompt = wire.shortened(job.request.prompt)
            queued.append(
                wire_queue.QueuedJob(job_id=job.id, position=position, prompt=prompt, eta_seconds=_rounded(ahead))
            )
        shown = None if active is None else self._active(active.job, queue.floor.remaining(active))
        return reply(wire_queue.QueueStatus(active=shown, queued=queued, length=len(queue.line), paused=queue.paused))

    async def pause(self, request: Request) -> Response:
        self.studio.queue.pause()
        return reply(wire_queue.Paused(paused=True))

    async def resume(self, request: Request) -> Response:
        self.studio.queue.resume()
        return reply(wire_queue.Paused(paused=False))

    def _active(self, job: Job, eta: float | None) -> wire_queue.ActiveJob:
        prompt = wire.shortened(job.request.prompt)
        progress = self.studio.progress(job)
        return wire_queue.ActiveJob(job_id=job.id, prompt=prompt, progress=progress, eta_seconds=_rounded(eta))

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/queue",
                self.show,
                "What is being painted, what waits, and how long it takes",
                TAG,
                wire_queue.QueueStatus,
                query=wire_queue.QueueQuery,
                errors=(InvalidRequest,),
            ),
            Endpoint("POST", "/api/v1/queue/pause", self.pause, "Start no more jobs", TAG, wire_queue.Paused),
            Endpoint("POST", "/api/v1/queue/resume", self.resume, "Go on", TAG, wire_queue.Paused),
        ]


def _rounded(seconds: float | None) -> float | None:
    return None if seconds is None else round(seconds, 1)
