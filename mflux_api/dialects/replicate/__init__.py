"""/replicate/v1: the prediction API of Replicate."""

import asyncio
import time
from collections.abc import AsyncGenerator

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.dialects.replicate.files import FileEndpoints
from mflux_api.dialects.replicate.forms import (
    FORMATS,
    UNSUPPORTED,
    PredictionInput,
    PredictionRequest,
    list_webhook_events,
    parse_size,
)
from mflux_api.dialects.replicate.predictions import PREFIX, Predictions
from mflux_api.errors import InvalidRequest, JobConflict, MfluxError
from mflux_api.jobs.job import Job, State
from mflux_api.jobs.order import Order
from mflux_api.jobs.service import JobService
from mflux_api.web.body import validate
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.openapi import Endpoint
from mflux_api.web.sse import ServerSentEvent
from mflux_api.wire.cloud_names import find_local_model
from mflux_api.wire.dialect import Dialect
from mflux_api.wire.order_form import ORDER_ERRORS
from mflux_api.wire.picture_input import picture_or_url
from mflux_api.wire.ranges import check_range
from mflux_api.wire.unsupported import refuse_unsupported
from mflux_api.wire.webhook import build_webhook_note

TAG = "replicate"
JSON, STREAM = "application/json", "text/event-stream"
LONGEST_WAIT = 60
PAGE = 100


class ReplicateEndpoints:
    """Handlers of predictions."""

    def __init__(self, service: JobService, context: HttpContext) -> None:
        self.service = service
        self.context = context
        self.predictions = Predictions(service, context)

    async def create(self, request: Request) -> Response:
        body = await self.context.body.read_json(request, PredictionRequest)
        name = request.path_params.get("model") or body.version
        if not name:
            raise InvalidRequest("version: name the model.", field="version")
        form = validate(PredictionInput, body.input)
        refuse_unsupported(form.model_extra or {}, UNSUPPORTED)
        if form.output_format not in FORMATS:
            raise InvalidRequest("output_format must be webp, jpg or png.", field="output_format")
        order = await self._build_order(request, form, body, name)
        job = await self.service.submit(order)
        job = await self._wait_preferred(request, job)
        return await self._reply(request, job, 200 if job.is_final else 201)

    async def _build_order(self, request: Request, form: PredictionInput, body: PredictionRequest, name: str) -> Order:
        events = list_webhook_events(body)
        hook = build_webhook_note(self.context, body.webhook, field="webhook", events=events) if events else {}
        source = None
        if form.image:
            check_range("prompt_strength", form.prompt_strength, 0, 1)
            source = await picture_or_url(self.context, form.image, field="image")
        mask = await picture_or_url(self.context, form.mask, field="mask") if form.mask else None
        named = [form.image_prompt, form.input_image, *form.input_images]
        references = [await picture_or_url(self.context, text, field="input_images") for text in named if text]
        width, height = parse_size(form)
        return Order(
            prompt=form.prompt,
            model=_local_model(name),
            width=width,
            height=height,
            exact=True,
            steps=form.num_inference_steps if form.num_inference_steps is not None else form.steps,
            guidance=form.guidance,
            seed=form.seed,
            count=form.num_outputs,
            source=source,
            mask=mask,
            loras=form.loras,
            strength=form.prompt_strength if source is not None else 1.0,
            upsample=form.prompt_upsampling,
            references=tuple(references),
            owner=get_owner(request),
            note={
                "dialect": TAG,
                "model": name,
                "format": FORMATS[form.output_format],
                "base": self.context.signed_urls.base_url(request),
                **hook,
            },
        )

    async def _wait_preferred(self, request: Request, job: Job) -> Job:
        """Wait if the request has `Prefer: wait` or `wait=N`, at most LONGEST_WAIT seconds. Return the current job."""
        prefer = request.headers.get("prefer", "").strip().lower()
        if not prefer.startswith("wait"):
            return job
        seconds = prefer.partition("=")[2]
        wait = min(LONGEST_WAIT, int(seconds)) if seconds.isdecimal() else LONGEST_WAIT
        try:
            async with asyncio.timeout(wait):
                return await self.service.queue.wait_ended(job)
        except TimeoutError:
            return await self.service.queue.get(job.id)

    async def get_prediction(self, request: Request) -> Response:
        return await self._reply(request, await self.service.queue.get(request.path_params["id"]))

    async def cancel_prediction(self, request: Request) -> Response:
        job_id = request.path_params["id"]
        try:
            job = await self.service.cancel(job_id)
        except JobConflict:
            # The job has already ended. In this API that is not an error.
            job = await self.service.queue.get(job_id)
        return await self._reply(request, job)

    async def _reply(self, request: Request, job: Job, status: int = 200) -> Response:
        return JSONResponse(await self.predictions.describe(job, self.context.signed_urls.base_url(request)), status)

    async def stream_prediction(self, request: Request) -> Response:
        job = await self.service.queue.get(request.path_params["id"])
        if request.headers.get("last-event-id") == f"{int(job.created)}:done":
            # The client has received the end. Only status 204 stops a browser from reconnecting.
            return Response(status_code=204)
        return self.context.streamer.build_response(
            self._stream_messages(job, self.context.signed_urls.base_url(request))
        )

    async def _stream_messages(self, job: Job, base: str) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield the URL of each picture, then `done`. Every event has an id, because clients need one."""
        ended = await self.service.queue.wait_ended(job)
        if not ended.is_final:
            return
        began, found, wrong = int(job.created), None, ended.error.message if ended.error else ""
        try:
            found, _ = await self.predictions.get_output(ended, base)
        except MfluxError as error:
            wrong = error.message
        for index, address in enumerate(found or []):
            yield ServerSentEvent(f"{began}:{index}", "output", address)
        if wrong:
            yield ServerSentEvent(f"{began}:error", "error", {"detail": wrong})
        reason = "error" if wrong else "canceled" if ended.state is State.CANCELLED else ""
        yield ServerSentEvent(f"{began}:done", "done", {"reason": reason} if reason else {})

    async def list_predictions(self, request: Request) -> Response:
        page = await self.service.queue.list_jobs(None, None, PAGE)
        base = self.context.signed_urls.base_url(request)
        results = await asyncio.gather(*(self.predictions.describe(job, base) for job in page.jobs))
        return JSONResponse({"next": None, "previous": None, "results": results})

    def endpoints(self) -> list[Endpoint]:
        path = f"{PREFIX}/predictions"
        return [
            *(
                Endpoint("POST", each, self.create, "Order", TAG, JSON, body=PredictionRequest, errors=ORDER_ERRORS)
                for each in (f"{PREFIX}/models/{{model:path}}/predictions", path)
            ),
            Endpoint("GET", path, self.list_predictions, "The last predictions", TAG, JSON),
            Endpoint("GET", f"{path}/{{id}}", self.get_prediction, "A prediction", TAG, JSON, errors=ORDER_ERRORS),
            Endpoint("GET", f"{path}/{{id}}/stream", self.stream_prediction, "Its pictures, as they come", TAG, STREAM),
            Endpoint(
                "POST", f"{path}/{{id}}/cancel", self.cancel_prediction, "Cancel it", TAG, JSON, errors=ORDER_ERRORS
            ),
        ]


def _local_model(name: str) -> str | None:
    """Return the local model for `owner/name`. For a cloud's name, a version after a colon is ignored."""
    short = name.rpartition("/")[2]
    unversioned = short.partition(":")[0]
    found = find_local_model(unversioned)
    return short if found == unversioned else found


def error_shape(error: MfluxError, request_id: str) -> JSONResponse:
    """Return the error as RFC 7807 problem details, as Replicate does."""
    content = {"title": error.code, "detail": error.message, "status": error.status, "request_id": request_id}
    return JSONResponse({**content, "type": "about:blank", "time": int(time.time())}, error.status)


def dialect() -> Dialect:
    return Dialect(
        name=TAG,
        prefixes=("/replicate/",),
        endpoints=lambda service, context: [
            *ReplicateEndpoints(service, context).endpoints(),
            *FileEndpoints(context).endpoints(),
        ],
        error_shape=error_shape,
        webhook_payload=lambda service, context: Predictions(service, context).webhook_payload,
    )
