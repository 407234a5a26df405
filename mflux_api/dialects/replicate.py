"""/replicate/v1: predictions, as Replicate's clients ask for them."""

import asyncio
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.addresses import addresses
from mflux_api.catalogue.models import cloud
from mflux_api.errors import InvalidRequest, JobConflict, MfluxError, PictureNotFound
from mflux_api.forms import ORDER_ERRORS, Whole
from mflux_api.jobs.job import Job, State
from mflux_api.jobs.order import Order
from mflux_api.jobs.studio import Studio
from mflux_api.net.fetching import check_address
from mflux_api.request import SIDE_STEP, Upload, stepped
from mflux_api.web.body import validated
from mflux_api.web.openapi import Endpoint
from mflux_api.web.sse import Message
from mflux_api.web.tools import Tools, owner

PREFIX, TAG = "/replicate/v1", "replicate"
JSON, STREAM = "application/json", "text/event-stream"
# Of a webhook, in their order. There are no logs to tell of.
EVENTS = ("start", "output", "completed")
STATUS = {
    State.QUEUED: "starting",
    State.INTERRUPTED: "starting",
    State.GENERATING: "processing",
    State.COMPLETED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "canceled",
}
LONGEST_WAIT = 60
AREA, PAGE = 1024 * 1024, 100
FORMATS = {"png": "png", "jpg": "jpeg", "jpeg": "jpeg", "webp": "webp"}


class Input(BaseModel):
    """What the FLUX models take there; what means nothing here is ignored."""

    model_config = ConfigDict(extra="ignore", allow_inf_nan=False)

    prompt: str = Field(min_length=1)
    width: Whole | None = None
    height: Whole | None = None
    aspect_ratio: str | None = Field(None, description="W:H, of a megapixel")
    num_outputs: Whole = Field(1, ge=1)
    seed: Whole | None = None
    num_inference_steps: Whole | None = None
    guidance: float | None = Field(None, ge=0, le=100)
    output_format: str = "webp"
    image: str | None = Field(None, description="The picture to repaint: address or data URL")
    image_prompt: str | None = None
    prompt_upsampling: bool = Field(False, description="Let the model's text encoder put the prompt into more words")
    prompt_strength: float = Field(0.8, ge=0, le=1)
    input_image: str | None = None
    input_images: list[str] = Field(default_factory=list, description="Pictures to look at")


class Ordered(BaseModel):
    """`version` or the address names the model. Without a filter `output` and `completed` are told."""

    model_config = ConfigDict(extra="ignore")

    input: dict[str, Any]
    version: str | None = None
    webhook: str | None = None
    webhook_events_filter: list[Literal["start", "output", "logs", "completed"]] = Field(default_factory=list)
    stream: bool | None = None


class Replicate:
    """Handlers of predictions."""

    def __init__(self, studio: Studio, tools: Tools) -> None:
        self.studio = studio
        self.tools = tools

    async def create(self, request: Request) -> Response:
        body = await self.tools.body.json(request, Ordered)
        name = request.path_params.get("model") or body.version
        if not name:
            raise InvalidRequest("version: name the model.", field="version")
        form = validated(Input, body.input)
        if form.output_format not in FORMATS:
            raise InvalidRequest("output_format must be webp, jpg or png.", field="output_format")
        order = await self._order(request, form, body, name)
        job = await self.studio.submit(order)
        job = await self._waited(request, job)
        return await self._told(request, job, 200 if job.is_final else 201)

    async def _order(self, request: Request, form: Input, body: Ordered, name: str) -> Order:
        source = await self._picture(form.image, "image")
        named = [form.image_prompt, form.input_image, *form.input_images]
        references = [await self._picture(text, "input_images") for text in named if text]
        width, height = _size(form)
        return Order(
            prompt=form.prompt,
            model=cloud().get(name.rpartition("/")[2].partition(":")[0].lower(), name.rpartition("/")[2]),
            **_exactly(width, height),
            steps=form.num_inference_steps,
            guidance=form.guidance,
            seed=form.seed,
            count=form.num_outputs,
            source=source,
            strength=form.prompt_strength,
            upsample=form.prompt_upsampling,
            references=tuple(upload for upload in references if upload is not None),
            owner=owner(request),
            note={
                "dialect": TAG,
                "model": name,
                "format": FORMATS[form.output_format],
                "base": self.tools.links.base(request),
                **_hook(body),
            },
        )

    async def _picture(self, text: str | None, field: str) -> Upload | None:
        if not text:
            return None
        if text.startswith(("http://", "https://")):
            return await self.tools.fetched(text, field)
        return await self.tools.pictures.read(text, field)

    async def _waited(self, request: Request, job: Job) -> Job:
        """With `Prefer: wait` or `wait=N`, as it is at its end or after so many seconds."""
        prefer = request.headers.get("prefer", "").strip().lower()
        if not prefer.startswith("wait"):
            return job
        seconds = prefer.partition("=")[2]
        wait = min(LONGEST_WAIT, int(seconds)) if seconds.isdecimal() else LONGEST_WAIT
        try:
            return await asyncio.wait_for(self.studio.queue.ended(job), wait)
        except TimeoutError:
            return await self.studio.queue.get(job.id)

    async def show(self, request: Request) -> Response:
        return await self._told(request, await self.studio.queue.get(request.path_params["id"]))

    async def cancel(self, request: Request) -> Response:
        job_id = request.path_params["id"]
        try:
            job = await self.studio.cancel(job_id)
        except JobConflict:
            # It has ended: nothing is left to cancel, and there that is no error.
            job = await self.studio.queue.get(job_id)
        return await self._told(request, job)

    async def _told(self, request: Request, job: Job, status: int = 200) -> Response:
        return JSONResponse(await self.prediction(job, self.tools.links.base(request)), status)

    async def stream(self, request: Request) -> Response:
        job = await self.studio.queue.get(request.path_params["id"])
        if request.headers.get("last-event-id") == f"{int(job.created)}:done":
            # It has seen the end. Only this status keeps a browser from connecting again.
            return Response(status_code=204)
        return self.tools.streamer.respond(self._messages(job, self.tools.links.base(request)))

    async def _messages(self, job: Job, base: str) -> AsyncGenerator[Message, None]:
        """The address of each picture, then the end; its clients need a number on every event."""
        ended = await self.studio.queue.ended(job)
        if not ended.is_final:
            return
        began, found, wrong = int(job.created), None, ended.error.message if ended.error else ""
        try:
            found, _ = await self._output(ended, base)
        except MfluxError as error:
            wrong = error.message
        for index, address in enumerate(found or []):
            yield Message(f"{began}:{index}", "output", address)
        if wrong:
            yield Message(f"{began}:error", "error", {"detail": wrong})
        reason = "error" if wrong else "canceled" if ended.state is State.CANCELLED else ""
        yield Message(f"{began}:done", "done", {"reason": reason} if reason else {})

    async def last(self, request: Request) -> Response:
        jobs, _ = await self.studio.queue.page(None, None, PAGE)
        base = self.tools.links.base(request)
        results = await asyncio.gather(*(self.prediction(job, base) for job in jobs))
        return JSONResponse({"next": None, "previous": None, "results": results})

    async def prediction(self, job: Job, base: str) -> dict[str, Any]:
        """A prediction as its clients know it; also what a webhook is told."""
        at = f"{base}{PREFIX}/predictions/{job.id}"
        model = job.request.note.get("model", job.model)
        output, removed = await self._output(job, base)
        return {
            "id": job.id,
            "model": model,
            "version": "hidden",
            "input": _input(job),
            "logs": "",
            "output": output,
            "data_removed": removed,
            "error": job.error.message if job.error else None,
            "source": "api",
            "status": STATUS[job.state],
            "created_at": _iso(job.created),
            "started_at": _iso(job.started),
            "completed_at": _iso(job.finished),
            "urls": {"get": at, "cancel": f"{at}/cancel", "stream": f"{at}/stream", "web": at},
            "metrics": {} if job.seconds is None else {"predict_time": round(job.seconds, 3)},
        }

    async def told(self, job: Job, base: str, event: str) -> dict[str, Any]:
        """What a webhook is told: the prediction as it was at that event, however late it is told."""
        if event == "start":
            job = replace(job, state=State.GENERATING, pictures=(), error=None, finished=None)
        found = await self.prediction(job, base)
        return {**found, "status": "processing", "completed_at": None, "metrics": {}} if event == "output" else found

    async def _output(self, job: Job, base: str) -> tuple[list[str] | None, bool]:
        """Addresses of its pictures once there are any, and whether those have been deleted."""
        if job.state is not State.COMPLETED:
            return None, False
        form: Any = job.request.note.get("format", "png")
        try:
            return await addresses(self.studio, self.tools, job, base, form), False
        except PictureNotFound:
            return None, True

    def endpoints(self) -> list[Endpoint]:
        ordered = {"body": Ordered, "errors": ORDER_ERRORS}
        path = f"{PREFIX}/predictions"
        return [
            Endpoint("POST", f"{PREFIX}/models/{{model:path}}/predictions", self.create, "Order", TAG, JSON, **ordered),  # type: ignore[arg-type]
            Endpoint("POST", path, self.create, "Order", TAG, JSON, **ordered),  # type: ignore[arg-type]
            Endpoint("GET", path, self.last, "The last predictions", TAG, JSON),
            Endpoint("GET", f"{path}/{{id}}", self.show, "A prediction", TAG, JSON, errors=ORDER_ERRORS),
            Endpoint("GET", f"{path}/{{id}}/stream", self.stream, "Its pictures, as they come", TAG, STREAM),
            Endpoint("POST", f"{path}/{{id}}/cancel", self.cancel, "Cancel it", TAG, JSON, errors=ORDER_ERRORS),
        ]


def _input(job: Job) -> dict[str, Any]:
    request = job.request
    return {
        "prompt": request.prompt,
        "width": request.asked_size[0],
        "height": request.asked_size[1],
        "num_inference_steps": request.steps,
        "num_outputs": len(request.seeds),
        "seed": request.seeds[0],
    }


def _hook(body: Ordered) -> dict[str, Any]:
    """Who is to be told of what. Raises FetchFailed, AddressForbidden."""
    asked = body.webhook_events_filter or ("output", "completed")
    events = [event for event in EVENTS if event in asked]
    if not body.webhook or not events:
        return {}
    check_address(body.webhook)
    return {"webhook": body.webhook, "events": ",".join(events)}


def _size(form: Input) -> tuple[int | None, int | None]:
    if form.width is not None or form.height is not None or form.aspect_ratio in {None, "match_input_image", "custom"}:
        return form.width, form.height
    across, _, down = str(form.aspect_ratio).partition(":")
    if not (across.isdecimal() and down.isdecimal() and 0 < int(across) <= 100 and 0 < int(down) <= 100):
        raise InvalidRequest("aspect_ratio must be W:H, for example 16:9.", field="aspect_ratio")
    scale = (AREA / (int(across) * int(down))) ** 0.5
    sides = (round(int(side) * scale / SIDE_STEP) * SIDE_STEP for side in (across, down))
    return next(sides), next(sides)


def _exactly(width: int | None, height: int | None) -> dict[str, Any]:
    """The size, painted a little larger and cut where it has no steps of 16."""
    if width is None or height is None or (width % SIDE_STEP == 0 and height % SIDE_STEP == 0):
        return {"width": width, "height": height}
    canvas = stepped(width, height)
    return {"width": canvas[0], "height": canvas[1], "crop": (width, height)}


def _iso(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")


def teller(studio: Studio, tools: Tools) -> Callable[[Job, str, str], Awaitable[dict[str, Any]]]:
    """What a webhook is told of a job at an event."""
    return Replicate(studio, tools).told


def endpoints(studio: Studio, tools: Tools) -> list[Endpoint]:
    return Replicate(studio, tools).endpoints()


def shape(error: MfluxError, request_id: str) -> JSONResponse:
    """RFC 7807, as Replicate has it."""
    content = {"title": error.code, "detail": error.message, "status": error.status, "request_id": request_id}
    return JSONResponse({**content, "type": "about:blank", "time": int(time.time())}, error.status)
