"""/api/v1: submit, list, read, cancel, retry and move jobs."""

import asyncio
from dataclasses import replace
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native import wire
from mflux_api.errors import (
    InvalidRequest,
    JobConflict,
    JobNotFound,
    ModelNotDownloaded,
    ModelNotFound,
    PictureNotFound,
    QueueFull,
    StorageFailed,
)
from mflux_api.jobs.job import Job, State
from mflux_api.jobs.order import Order
from mflux_api.jobs.service import JobService
from mflux_api.web.body import parse_query
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.openapi import Endpoint
from mflux_api.web.pictures import PictureReader
from mflux_api.wire.order_form import BODY_ERRORS, ORDER_ERRORS, PictureForm

TAG = "jobs"
JOB = "/api/v1/jobs/{job_id}"


class OrderForm(PictureForm):
    """A request for pictures. Null fields count as missing; unknown fields are ignored."""

    prompt_upsampling: bool | None = Field(
        None, description="Let the model's text encoder put the prompt into more words first"
    )

    async def build_order(self, pictures: PictureReader, owner: str, idempotency_key: str | None) -> Order:
        """Read the pictures and build the order. Raises InvalidRequest, InvalidImage."""
        return replace(
            await super().build_order(pictures, owner, idempotency_key), upsample=bool(self.prompt_upsampling)
        )


class JobEndpoints:
    """Handlers of jobs."""

    def __init__(self, service: JobService, context: HttpContext) -> None:
        self.service = service
        self.context = context

    async def generate(self, request: Request) -> Response:
        form = await self.context.body.read_json(request, OrderForm)
        key = request.headers.get("idempotency-key")
        job = await self.service.submit(await form.build_order(self.context.pictures, get_owner(request), key))
        return self._build_submitted(job)

    async def list_jobs(self, request: Request) -> Response:
        asked = parse_query(request, wire.JobsQuery)
        page = await self.service.queue.list_jobs(asked.status, asked.before, asked.limit)
        following = page.jobs[-1].number if len(page.jobs) == asked.limit else None
        rows = [wire.build_summary(job, self.service.progress(job)) for job in page.jobs]
        return json_response(wire.JobList(jobs=rows, next=following, total=page.total))

    async def get_job(self, request: Request) -> Response:
        asked = parse_query(request, wire.JobQuery)
        return json_response(await self.load_detail(request.path_params["job_id"], images=asked.images))

    async def load_detail(self, job_id: str, *, images: bool) -> wire.JobDetail:
        job = await self.service.queue.get(job_id)
        pictures = await self.service.read_pictures(job) if images else None
        position = self.service.queue.position(job.id)
        # On a thread: base64 of four large pictures would block the event loop.
        return await asyncio.to_thread(
            wire.build_detail, job, progress=self.service.progress(job), position=position, pictures=pictures
        )

    async def cancel_job(self, request: Request) -> Response:
        await self.service.cancel(request.path_params["job_id"])
        return json_response(wire.Cancelled(status="cancelled"))

    async def retry_job(self, request: Request) -> Response:
        return self._build_submitted(await self.service.retry(request.path_params["job_id"]))

    async def move_job(self, request: Request) -> Response:
        asked = await self.context.body.read_json(request, wire.Move)
        return self._build_submitted(await self.service.queue.move(request.path_params["job_id"], asked.position))

    def _build_submitted(self, job: Job) -> Response:
        position = self.service.queue.position(job.id)
        status: Any = State.QUEUED if job.state is State.INTERRUPTED else job.state
        return json_response(wire.Submitted(job_id=job.id, status=status, position=position or 0))

    def endpoints(self) -> list[Endpoint]:
        return [*self._write_endpoints(), *self._read_endpoints()]

    def _write_endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "POST",
                "/api/v1/generate",
                self.generate,
                "Order pictures; returns at once",
                TAG,
                wire.Submitted,
                body=OrderForm,
                headers={"Idempotency-Key": "Sent again with the same key, an order is made only once"},
                errors=(*ORDER_ERRORS, JobConflict),
            ),
            Endpoint(
                "DELETE",
                JOB,
                self.cancel_job,
                "Cancel a job; pictures it has finished stay",
                TAG,
                wire.Cancelled,
                errors=(JobNotFound, JobConflict, StorageFailed),
            ),
            Endpoint(
                "POST",
                f"{JOB}/retry",
                self.retry_job,
                "Paint a failed or cancelled job again",
                TAG,
                wire.Submitted,
                errors=(JobNotFound, JobConflict, QueueFull, ModelNotFound, ModelNotDownloaded, StorageFailed),
            ),
            Endpoint(
                "POST",
                f"{JOB}/move",
                self.move_job,
                "Put a waiting job elsewhere in the line",
                TAG,
                wire.Submitted,
                body=wire.Move,
                errors=(*BODY_ERRORS, JobNotFound, JobConflict, StorageFailed),
            ),
        ]

    def _read_endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/jobs",
                self.list_jobs,
                "Jobs, newest first",
                TAG,
                wire.JobList,
                query=wire.JobsQuery,
                errors=(InvalidRequest,),
            ),
            Endpoint(
                "GET",
                JOB,
                self.get_job,
                "A job and its pictures",
                TAG,
                wire.JobDetail,
                query=wire.JobQuery,
                errors=(InvalidRequest, JobNotFound, PictureNotFound),
            ),
        ]


def json_response(content: wire.WireModel) -> Response:
    return Response(content.model_dump_json(), media_type="application/json")
