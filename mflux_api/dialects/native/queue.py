"""/api/v1: the line of waiting jobs."""

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native import wire_queue as wire
from mflux_api.dialects.native.jobs import reply
from mflux_api.errors import InvalidRequest
from mflux_api.jobs.running import Active
from mflux_api.jobs.service import Studio
from mflux_api.web.body import query
from mflux_api.web.openapi import Endpoint

TAG = "queue"


class Queue:
    """Handlers of the queue."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def show(self, request: Request) -> Response:
        asked = query(request, wire.QueueQuery)
        queue = self.studio.queue
        active = next(iter(queue.floor.active.values()), None)
        ahead = queue.floor.remaining(active) if active else 0.0
        queued = []
        for position, job in enumerate(await queue.waiting(asked.limit), start=1):
            takes = queue.paces.seconds(job.model, job.request)
            ahead = None if ahead is None or takes is None else ahead + takes
            queued.append(wire.QueuedJob(position=position, **wire.facts(job, ahead)))
        shown = None if active is None else self._active(active)
        return reply(wire.QueueStatus(active=shown, queued=queued, length=len(queue.line), paused=queue.paused))

    async def pause(self, request: Request) -> Response:
        self.studio.queue.pause()
        return reply(wire.Paused(paused=True))

    async def resume(self, request: Request) -> Response:
        self.studio.queue.resume()
        return reply(wire.Paused(paused=False))

    def _active(self, active: Active) -> wire.ActiveJob:
        eta = self.studio.queue.floor.remaining(active)
        return wire.ActiveJob(progress=active.fraction, **wire.facts(active.job, eta))

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/queue",
                self.show,
                "What is being painted, what waits, and how long it takes",
                TAG,
                wire.QueueStatus,
                query=wire.QueueQuery,
                errors=(InvalidRequest,),
            ),
            Endpoint("POST", "/api/v1/queue/pause", self.pause, "Start no more jobs", TAG, wire.Paused),
            Endpoint("POST", "/api/v1/queue/resume", self.resume, "Go on", TAG, wire.Paused),
        ]
