"""/api/v1: server-sent events of a job, of a download, and of all jobs and downloads."""

import asyncio
import base64
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native import wire
from mflux_api.dialects.native.jobs import JobEndpoints
from mflux_api.errors import InvalidRequest, JobConflict, JobNotFound, ModelNotFound
from mflux_api.events import Event
from mflux_api.jobs.job import Job
from mflux_api.jobs.queue import END_EVENTS
from mflux_api.jobs.service import JobService
from mflux_api.models.inventory import ModelEntry
from mflux_api.web.body import parse_query
from mflux_api.web.context import HttpContext
from mflux_api.web.openapi import Endpoint
from mflux_api.web.sse import ServerSentEvent

TAG = "streams"
FINAL_EVENTS = frozenset(END_EVENTS.values())
FINAL_DOWNLOAD_EVENTS = frozenset({"downloaded", "download_failed"})
NO_CONTENT = 204
# Final events contain the pictures. Each is encoded once and kept for this many jobs.
REMEMBERED = 4


class StreamEndpoints:
    """Handlers of event streams."""

    def __init__(self, service: JobService, context: HttpContext, jobs: JobEndpoints) -> None:
        self.service = service
        self.context = context
        self.jobs = jobs
        self._finals: OrderedDict[str, asyncio.Task[str]] = OrderedDict()

    async def stream_job(self, request: Request) -> Response:
        asked = parse_query(request, wire.StreamQuery)
        job_id, last_id = request.path_params["job_id"], _last_id(request)
        job = await self.service.queue.get(job_id)
        if job.is_final and last_id == self.service.queue.current_event(job).id:
            # The client has received the end. Only status 204 stops a browser from reconnecting.
            return Response(status_code=NO_CONTENT)
        return self.context.streamer.build_response(self._job_messages(job_id, last_id, preview=asked.preview))

    async def stream_all(self, request: Request) -> Response:
        asked = parse_query(request, wire.StreamQuery)
        return self.context.streamer.build_response(self._all_messages(_last_id(request), preview=asked.preview))

    async def stream_download(self, request: Request) -> Response:
        entry = await self.service.models.read_entry(request.path_params["model_id"])
        now = self._latest_download_event(entry)
        if now is None:
            raise JobConflict(f"{entry.spec.name} is not being downloaded.", model=entry.spec.name)
        if now.name in FINAL_DOWNLOAD_EVENTS and _last_id(request) == now.id:
            return Response(status_code=NO_CONTENT)
        return self.context.streamer.build_response(self._download_messages(entry))

    async def _job_messages(
        self, job_id: str, last_id: str | None, *, preview: bool
    ) -> AsyncGenerator[ServerSentEvent, None]:
        async for event in self.service.queue.watch(job_id, last_id, previews=preview):
            if event.name in FINAL_EVENTS:
                # The final event has the same id for clients that connect later.
                job = await self.service.queue.get(job_id)
                yield ServerSentEvent(
                    self.service.queue.current_event(job).id, event.name, await self._get_final_json(job)
                )
            elif event.preview is None or preview:
                yield _build_message(event)

    async def _all_messages(self, last_id: str | None, *, preview: bool) -> AsyncGenerator[ServerSentEvent, None]:
        async with aclosing(self.service.queue.watch_all(last_id, previews=preview)) as events:
            async for event in events:
                if event.preview is None or preview:
                    yield _build_message(event)

    async def _download_messages(self, entry: ModelEntry) -> AsyncGenerator[ServerSentEvent, None]:
        with self.service.downloads.listen(entry.spec) as box:
            now = self._latest_download_event(entry)
            if now is not None:
                yield _build_message(now)
                if now.name in FINAL_DOWNLOAD_EVENTS:
                    return
            async for event in box:
                yield _build_message(event)
                if event.name in FINAL_DOWNLOAD_EVENTS:
                    return

    def _latest_download_event(self, entry: ModelEntry) -> Event | None:
        """Return the latest event of a download, running or ended; None if there was none."""
        spec = entry.spec
        latest = self.service.downloads.latest_events.get(spec.folder)
        if latest is None and entry.is_downloaded:
            done = {"model": spec.name, "progress": 1.0, "done_bytes": entry.size, "total_bytes": entry.size}
            return Event(f"here-{spec.folder}", f"model:{spec.folder}", "downloaded", done)
        return latest

    async def _get_final_json(self, job: Job) -> str:
        """Return the job with its pictures as JSON, encoded once for all listeners."""
        # The key has the number of pictures, so that a deleted picture is not sent from this cache.
        key = f"{job.id}-{job.attempts}-{len(job.present)}"
        if key not in self._finals:
            self._finals[key] = asyncio.create_task(self._encode_detail(job.id))
            if len(self._finals) > REMEMBERED:
                self._finals.popitem(last=False)
        return await asyncio.shield(self._finals[key])

    async def _encode_detail(self, job_id: str) -> str:
        found = await self.jobs.load_detail(job_id, images=True)
        return await asyncio.to_thread(found.model_copy(update={"progress": 1.0}).model_dump_json)

    def endpoints(self) -> list[Endpoint]:
        resume = {"Last-Event-ID": "Go on after this event"}
        return [
            Endpoint(
                "GET",
                "/api/v1/jobs/{job_id}/stream",
                self.stream_job,
                "Events of a job: progress, then complete, failed or cancelled",
                TAG,
                "text/event-stream",
                query=wire.StreamQuery,
                headers=resume,
                errors=(InvalidRequest, JobNotFound),
            ),
            Endpoint(
                "GET",
                "/api/v1/events",
                self.stream_all,
                "Events of every job and download",
                TAG,
                "text/event-stream",
                query=wire.StreamQuery,
                headers=resume,
                errors=(InvalidRequest,),
            ),
            Endpoint(
                "GET",
                "/api/v1/models/{model_id}/download",
                self.stream_download,
                "Events of a download: download, then downloaded or download_failed",
                TAG,
                "text/event-stream",
                headers=resume,
                errors=(ModelNotFound, JobConflict),
            ),
        ]


def _last_id(request: Request) -> str | None:
    return request.headers.get("last-event-id")


def _build_message(event: Event) -> ServerSentEvent:
    data: dict[str, Any] = dict(event.data)
    if event.preview is not None:
        data["preview"] = base64.b64encode(event.preview).decode("ascii")
    return ServerSentEvent(event.id, event.name, data)
