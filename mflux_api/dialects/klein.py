"""/klein: the Klein REST API, with `X-API-Key` and pictures at URLs that expire."""

import time
from typing import Annotated, Any

from pydantic import BaseModel, BeforeValidator, Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.errors import InvalidImage, InvalidRequest, MfluxError
from mflux_api.jobs.order import Order
from mflux_api.jobs.service import JobService
from mflux_api.request import Upload
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.disconnect import wait_or_cancel
from mflux_api.web.openapi import Endpoint
from mflux_api.wire.dialect import KNOWN_STATUSES, Dialect, known_status
from mflux_api.wire.lenient_form import LenientForm
from mflux_api.wire.order_form import ORDER_ERRORS, LenientInt
from mflux_api.wire.picture_input import picture_or_url
from mflux_api.wire.picture_urls import get_picture_urls

PREFIX = "/klein"
TAG = "klein"
# The model name that clients see. The model in use is the setting `dialects.klein_model`.
MODEL = "flux2-klein-9b-fp8"
LARGEST_AREA = 2 * 1024 * 1024


def _require_text(value: object) -> object:
    if not isinstance(value, str) or not value.strip():
        raise ValueError("prompt is required")
    return value


Prompt = Annotated[str, BeforeValidator(_require_text)]


class KleinRequest(LenientForm):
    """Fields of both endpoints. `guidance` and `cfg` are checked for range; distilled models ignore them."""

    prompt: Prompt
    steps: LenientInt = Field(4, ge=1, le=50)
    cfg: float = Field(1.0, ge=0, le=20)
    guidance: float = Field(4.0, ge=0, le=20)
    seed: LenientInt | None = None


class KleinGenerateRequest(KleinRequest):
    """A prompt and a size."""

    width: LenientInt = Field(1024, ge=256, le=2048)
    height: LenientInt = Field(1024, ge=256, le=2048)


class KleinEditRequest(KleinRequest):
    """A picture to edit, in base64 or at a URL, and a prompt."""

    image_url: str | None = None
    image_base64: str | None = None


class KleinReply(BaseModel):
    image_url: str
    seed: int
    width: int
    height: int
    generation_time_seconds: float


class Health(BaseModel):
    status: str
    model: str


class KleinEndpoints:
    """Handlers of the Klein API. `model`: the model to use; None for the server's default."""

    def __init__(self, service: JobService, context: HttpContext, model: str | None) -> None:
        self.service = service
        self.context = context
        self.model = model

    async def get_health(self, request: Request) -> Response:
        return JSONResponse(Health(status="ok", model=MODEL).model_dump())

    async def generate(self, request: Request) -> Response:
        form = await self.context.body.read_json(request, KleinGenerateRequest)
        if form.width * form.height > LARGEST_AREA:
            raise InvalidRequest("The picture may have at most 2 megapixels.", field="width")
        return await self._paint(request, self._build_order(request, form, (form.width, form.height), references=()))

    async def edit(self, request: Request) -> Response:
        form = await self.context.body.read_json(request, KleinEditRequest)
        if form.image_base64:
            reference = await self.context.pictures.read_base64(form.image_base64, "image_base64")
        elif form.image_url:
            # A data URL is an address too.
            reference = await picture_or_url(self.context, form.image_url, field="image_url")
        else:
            raise InvalidImage("Send image_url or image_base64.", field="image_url")
        return await self._paint(request, self._build_order(request, form, (None, None), references=(reference,)))

    def _build_order(
        self,
        request: Request,
        form: KleinRequest,
        size: tuple[int | None, int | None],
        *,
        references: tuple[Upload, ...],
    ) -> Order:
        return Order(
            prompt=form.prompt,
            model=self.model,
            width=size[0],
            height=size[1],
            exact=True,
            steps=form.steps,
            guidance=form.cfg,
            seed=form.seed,
            references=references,
            owner=get_owner(request),
        )

    async def _paint(self, request: Request, order: Order) -> Response:
        began = time.monotonic()
        job, _ = await wait_or_cancel(request, self.service.submit_and_wait(order))
        picture = job.pictures[0]
        found = await get_picture_urls(
            self.service, self.context, job, self.context.signed_urls.base_url(request), "png"
        )
        reply = KleinReply(
            image_url=found[0],
            seed=picture.seed,
            width=picture.width,
            height=picture.height,
            generation_time_seconds=round(time.monotonic() - began, 2),
        )
        return JSONResponse(reply.model_dump())

    def endpoints(self) -> list[Endpoint]:
        def post(path: str, handle: Any, summary: str, body: type[BaseModel]) -> Endpoint:
            return Endpoint("POST", f"{PREFIX}{path}", handle, summary, TAG, KleinReply, body=body, errors=ORDER_ERRORS)

        return [
            Endpoint("GET", f"{PREFIX}/health", self.get_health, "Whether it answers", TAG, Health),
            post("/generate", self.generate, "Words to a picture", KleinGenerateRequest),
            post("/edit", self.edit, "A picture after another", KleinEditRequest),
        ]


def error_shape(error: MfluxError, request_id: str) -> JSONResponse:
    """Return the message as `error`. The documentation lists 400, 401 and 500, but no body."""
    content = {"error": error.message, "code": error.code, "request_id": request_id}
    return JSONResponse(content, known_status(error, KNOWN_STATUSES))


def dialect(*, model: str | None) -> Dialect:
    """Describe the dialect. `model`: the model to use; None for the server's default."""
    return Dialect(
        name=TAG,
        prefixes=(PREFIX,),
        endpoints=lambda service, context: KleinEndpoints(service, context, model).endpoints(),
        error_shape=error_shape,
        open_paths=frozenset({f"{PREFIX}/health"}),
    )
