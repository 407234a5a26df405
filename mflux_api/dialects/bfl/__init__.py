"""/flux/v1 and /v1: the task API of Black Forest Labs, which CometAPI and others also offer."""

import asyncio
from dataclasses import replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.dialects.bfl.moderation import Moderation
from mflux_api.errors import InvalidRequest, JobNotFound, MfluxError
from mflux_api.jobs.job import Job, State
from mflux_api.jobs.order import Order
from mflux_api.jobs.service import JobService
from mflux_api.jobs.webhooks import MakePayload
from mflux_api.pixels.decoding import decode_alpha
from mflux_api.pixels.masks import make_mask_from_transparency
from mflux_api.request import Upload
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.openapi import Endpoint
from mflux_api.wire.cloud_names import find_local_model
from mflux_api.wire.dialect import KNOWN_STATUSES, Dialect, known_status
from mflux_api.wire.lenient_form import LenientForm
from mflux_api.wire.order_form import ORDER_ERRORS, LenientInt
from mflux_api.wire.picture_input import picture_or_url
from mflux_api.wire.picture_size import MEGAPIXEL, size_of_ratio, size_of_shape
from mflux_api.wire.picture_urls import get_picture_urls
from mflux_api.wire.unsupported import refuse_unsupported
from mflux_api.wire.webhook import build_webhook_note

TAG = "bfl"
PREFIXES = ("/flux/v1", "/v1")
STATUS = {State.COMPLETED: "Ready", State.FAILED: "Error", State.CANCELLED: "Failed"}
MODERATED = "Request Moderated"
NOT_FOUND = "Task not found"
# Fields with reference pictures: the documented image_prompt, and the names of the FLUX.2 endpoints.
PICTURE_FIELDS = ("image_prompt", "input_image", *(f"input_image_{number}" for number in range(2, 9)))


# Fields of Black Forest Labs' endpoints that cannot be honoured, and the values that change nothing.
UNSUPPORTED = {
    **dict.fromkeys(("control_image", "preprocessed_image", "input_image_blob_path", "finetune_id", "raw")),
    **dict.fromkeys(("top", "bottom", "left", "right"), 0),
    "image_prompt_strength": 0.1,
    "interval": 2,
}
# The smallest and the largest ratio of width to height.
NARROWEST, WIDEST = 9 / 21, 21 / 9


class BflRequest(LenientForm):
    """A prompt with optional reference pictures, or with a picture to repaint where its mask is white."""

    model_config = ConfigDict(extra="allow", allow_inf_nan=False)

    prompt: str = Field(min_length=1)
    width: LenientInt = 1024
    height: LenientInt = 768
    aspect_ratio: str | None = Field(None, description="W:H, of a megapixel, in place of width and height")
    image: str | None = Field(None, description="The picture to repaint (flux-pro-1.0-fill)")
    mask: str | None = Field(None, description="Repaint only where it is white; else where `image` is transparent")
    prompt_upsampling: bool = Field(False, description="Let the model's text encoder put the prompt into more words")
    seed: LenientInt | None = None
    safety_tolerance: LenientInt = Field(2, ge=0, le=6, description="0 refuses most, 6 nothing")
    output_format: Literal["jpeg", "png", "webp"] = "jpeg"
    steps: LenientInt | None = None
    guidance: float | None = Field(None, ge=0, le=100)
    webhook_url: str | None = None
    webhook_secret: str | None = None

    @property
    def pictures(self) -> list[tuple[str, str]]:
        """(field, base64 or URL) of each reference picture."""
        extra = self.model_extra or {}
        found = ((name, extra.get(name)) for name in PICTURE_FIELDS)
        return [(name, value) for name, value in found if isinstance(value, str) and value]

    def choose_size(self, model: str, basis: Upload | None) -> tuple[int | None, int | None]:
        """Return width and height: of the ratio, as asked, or as the endpoint `model` has it. Raises InvalidRequest.

        `basis`: the picture that is repainted or looked at.
        """
        if self.aspect_ratio:
            return self._size_of_ratio(self.aspect_ratio)
        if {"width", "height"} & self.model_fields_set:
            return self.width, self.height
        if self.image:
            return None, None
        if "kontext" in model:
            shape = (basis.width, basis.height) if basis else (1, 1)
            return size_of_shape(*shape, area=MEGAPIXEL)
        if "ultra" in model:
            return size_of_ratio("16:9", area=MEGAPIXEL)
        return self.width, self.height

    def _size_of_ratio(self, ratio: str) -> tuple[int, int]:
        width, height = size_of_ratio(ratio, area=MEGAPIXEL)
        across, down = map(int, ratio.split(":"))
        if not NARROWEST <= across / down <= WIDEST:
            raise InvalidRequest("aspect_ratio must be between 21:9 and 9:21.", field="aspect_ratio")
        return width, height


def _make_mask(source: Upload) -> bytes | None:
    """Return a mask of the transparent part of a picture; None if nothing is transparent. Raises InvalidImage."""
    alpha = decode_alpha(source.data)
    if alpha is None:
        return None
    try:
        return make_mask_from_transparency(alpha)
    except ValueError:
        return None


class SubmittedTask(BaseModel):
    """The reply to a new task. `model`: the local model for the requested name."""

    id: str
    status: str
    polling_url: str
    model: str


class BflEndpoints:
    """Handlers of tasks. `moderation`: refuses prompts that contain listed words."""

    def __init__(self, service: JobService, context: HttpContext, moderation: Moderation) -> None:
        self.service = service
        self.context = context
        self.moderation = moderation

    async def submit(self, request: Request) -> Response:
        form = await self.context.body.read_json(request, BflRequest)
        refuse_unsupported(form.model_extra or {}, UNSUPPORTED)
        asked = request.path_params["model"]
        model = find_local_model(asked)
        if self.moderation.refuses(form.prompt, form.safety_tolerance):
            return await self._reply_moderated(request, asked)
        references = [await picture_or_url(self.context, text, field=name) for name, text in form.pictures]
        source = await picture_or_url(self.context, form.image, field="image") if form.image else None
        mask = await self._read_mask(form, source)
        basis = source or next(iter(references), None)
        order = self._build_order(request, form, model, tuple(references), size=form.choose_size(asked, basis))
        job = await self.service.submit(replace(order, source=source, mask=mask, strength=1.0))
        return JSONResponse(self._build_submitted(request, job.id, "Pending", job.model).model_dump())

    async def _read_mask(self, form: BflRequest, source: Upload | None) -> Upload | None:
        """Read the mask, or make it of the transparent part of the picture. Raises InvalidImage, InvalidRequest."""
        if form.mask and source is None:
            raise InvalidRequest("mask: send the picture it belongs to as image.", field="mask")
        if form.mask:
            return await picture_or_url(self.context, form.mask, field="mask")
        if source is None:
            return None
        data = await asyncio.to_thread(_make_mask, source)
        if data is None:
            raise InvalidRequest("mask is missing, and nothing in image is transparent.", field="mask")
        return Upload(data, source.width, source.height)

    def _build_order(
        self,
        request: Request,
        form: BflRequest,
        model: str | None,
        references: tuple[Upload, ...],
        *,
        size: tuple[int | None, int | None],
    ) -> Order:
        hook = build_webhook_note(self.context, form.webhook_url, field="webhook_url", secret=form.webhook_secret or "")
        return Order(
            prompt=form.prompt,
            model=model,
            width=size[0],
            height=size[1],
            exact=True,
            steps=form.steps,
            guidance=form.guidance,
            seed=form.seed,
            references=references,
            upsample=form.prompt_upsampling,
            owner=get_owner(request),
            note={
                "dialect": TAG,
                "format": form.output_format,
                "base": self.context.signed_urls.base_url(request),
                **hook,
            },
        )

    async def _reply_moderated(self, request: Request, asked: str) -> Response:
        """Store the refusal under a new task id, so that get_result returns it."""
        name = await self.service.save_refusal(MODERATED)
        return JSONResponse(self._build_submitted(request, name, MODERATED, asked).model_dump())

    def _build_submitted(self, request: Request, name: str, status: str, model: str) -> SubmittedTask:
        path = request.url.path.rpartition("/")[0]
        polling = f"{self.context.signed_urls.base_url(request)}{path}/get_result?id={name}"
        return SubmittedTask(id=name, status=status, polling_url=polling, model=model)

    async def get_result(self, request: Request) -> Response:
        name = request.query_params.get("id", "")
        if not name:
            raise InvalidRequest("id is missing.", field="id")
        refusal = await self.service.load_refusal(name)
        if refusal is not None:
            return JSONResponse({"id": name, "status": refusal, "result": None})
        try:
            job = await self.service.queue.get(name)
        except JobNotFound:
            return JSONResponse({"id": name, "status": NOT_FOUND, "result": None}, JobNotFound.status)
        return JSONResponse(await self.build_status(job, self.context.signed_urls.base_url(request)))

    async def build_status(self, job: Job, base: str) -> dict[str, Any]:
        """Return the status of a task, for get_result and for its webhook."""
        found: dict[str, Any] = {"id": job.id, "status": STATUS.get(job.state, "Pending")}
        if job.state is State.COMPLETED and job.pictures:
            found["result"] = await self._build_sample(job, base)
        elif job.is_final:
            found |= {"result": None, "error": job.error.message if job.error else "The task was cancelled."}
        else:
            found |= {"result": None, "progress": self.service.progress(job)}
        return found

    async def _build_sample(self, job: Job, base: str) -> dict[str, Any]:
        form: Any = job.request.note.get("format", "png")
        found = await get_picture_urls(self.service, self.context, job, base, form)
        return {
            "seed": next(iter(job.kept_pictures.values())).seed,
            "prompt": job.upsampled_prompt or job.request.prompt,
            "sample": found[0],
            "duration": job.seconds,
            "end_time": job.finished,
            "start_time": job.started,
            "model": job.model,
        }

    def endpoints(self) -> list[Endpoint]:
        errors = (*ORDER_ERRORS, JobNotFound)
        listed = []
        for prefix in PREFIXES:
            result = Endpoint(
                "GET", f"{prefix}/get_result", self.get_result, "A task", TAG, "application/json", errors=errors
            )
            order = Endpoint(
                "POST",
                f"{prefix}/{{model}}",
                self.submit,
                "Order a picture",
                TAG,
                SubmittedTask,
                body=BflRequest,
                errors=errors,
            )
            listed += [result, order]
        return listed


def error_shape(error: MfluxError, request_id: str) -> JSONResponse:
    """Return the error with `detail`, as Black Forest Labs sends it, and with `error` and `code`."""
    content = {"error": error.message, "detail": error.message, "code": error.code, "request_id": request_id}
    return JSONResponse(content, known_status(error, KNOWN_STATUSES))


def _webhook_payload(service: JobService, context: HttpContext) -> MakePayload:
    """Return the function that builds webhook payloads, which equal the replies of get_result."""
    tasks = BflEndpoints(service, context, Moderation({}))

    async def payload(job: Job, base: str, event: str) -> dict[str, Any]:
        return await tasks.build_status(job, base)

    return payload


def dialect() -> Dialect:
    return Dialect(
        name=TAG,
        prefixes=("/flux/", "/v1/"),
        endpoints=lambda service, context: BflEndpoints(service, context, Moderation.load()).endpoints(),
        error_shape=error_shape,
        webhook_payload=_webhook_payload,
    )
