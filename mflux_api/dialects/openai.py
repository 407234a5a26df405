"""/v1/images: OpenAI's image API."""

import asyncio
import base64
import re
import time
from collections.abc import AsyncGenerator
from typing import Any, Literal

from starlette.datastructures import FormData, UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.errors import (
    InvalidImage,
    InvalidRequest,
    MfluxError,
    ModelNotFound,
    PictureNotFound,
    UnsupportedMedia,
)
from mflux_api.jobs.job import Job
from mflux_api.jobs.order import Order
from mflux_api.jobs.service import JobService
from mflux_api.pixels.decoding import decode_alpha
from mflux_api.pixels.formats import PictureFormat, convert_png
from mflux_api.pixels.masks import make_mask_from_transparency
from mflux_api.request import SMALLEST_SIDE, Upload
from mflux_api.web.body import validate
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.disconnect import wait_or_cancel
from mflux_api.web.openapi import Endpoint
from mflux_api.web.pictures import unreadable_picture
from mflux_api.web.sse import ServerSentEvent
from mflux_api.wire.cloud_names import find_local_model
from mflux_api.wire.dialect import Dialect
from mflux_api.wire.lenient_form import LenientForm
from mflux_api.wire.order_form import ORDER_ERRORS, LenientInt
from mflux_api.wire.picture_urls import get_picture_urls
from mflux_api.wire.ranges import check_range

PREFIX = "/v1"
TAG = "openai"
JSON = "application/json"
# OpenAI's model names, which mean the server's default model.
OPENAI_MODEL_PREFIXES = ("gpt-image", "dall-e", "chatgpt-image")
# Names of parts with pictures and masks, as clients write lists: `image`, `image[]`, `image[0]`.
PICTURES, MASKS = re.compile(r"image(\[\d*\])?"), re.compile(r"mask(\[\d*\])?")


class OpenAIRequest(LenientForm):
    """Fields of all three endpoints. `quality`, `style`, `moderation` and `input_fidelity` are accepted and ignored."""

    prompt: str = ""
    model: str | None = None
    n: LenientInt = 1
    size: str = "auto"
    response_format: Literal["url", "b64_json"] | None = None
    output_format: PictureFormat = "png"
    output_compression: LenientInt = 100
    background: Literal["auto", "opaque", "transparent"] = "auto"
    stream: bool = False
    partial_images: LenientInt = 0
    # Fields of this server that OpenAI does not have.
    seed: LenientInt | None = None
    steps: LenientInt | None = None
    strength: float | None = None


class OpenAIEndpoints:
    """Handlers that make pictures and list models."""

    def __init__(self, service: JobService, context: HttpContext) -> None:
        self.service = service
        self.context = context

    async def generate(self, request: Request) -> Response:
        form = await self.context.body.read_json(request, OpenAIRequest)
        return await self._paint(request, form, self._build_order(request, form), events="image_generation")

    async def edit(self, request: Request) -> Response:
        content, pictures, mask = await self._read_multipart(request)
        form = validate(OpenAIRequest, content)
        if not pictures:
            raise InvalidRequest("image: send the picture to edit.", field="image")
        order = self._build_order(request, form, pictures=pictures, mask=mask)
        return await self._paint(request, form, order, events="image_edit")

    async def create_variation(self, request: Request) -> Response:
        content, pictures, mask = await self._read_multipart(request)
        if mask is not None:
            raise InvalidRequest("mask: a variation takes none; send it to /v1/images/edits.", field="mask")
        form = validate(OpenAIRequest, content)
        if len(pictures) != 1:
            raise InvalidRequest("image: send the one picture to vary.", field="image")
        order = self._build_order(request, form, pictures=pictures, vary=True)
        return await self._paint(request, form, order, events="image_edit")

    async def list_models(self, request: Request) -> Response:
        entries = [
            entry
            for entry in await self.service.models.list_models()
            if entry.is_downloaded and not entry.spec.unavailable
        ]
        return JSONResponse({"object": "list", "data": [_model_row(entry.spec.name) for entry in entries]})

    async def get_model(self, request: Request) -> Response:
        return JSONResponse(_model_row((await self.service.models.find_spec(request.path_params["model"])).name))

    async def _read_multipart(self, request: Request) -> tuple[dict[str, Any], list[Upload], Upload | None]:
        """Read fields, pictures and mask of a multipart form, within the body limits.

        Raises InvalidRequest, InvalidImage, UnsupportedMedia.
        """
        kind = request.headers.get("content-type", "")
        if not kind.startswith("multipart/form-data"):
            raise UnsupportedMedia("Send multipart/form-data, as for uploading files.")
        form = await self.context.body.read_form(request)
        _check_parts(form)
        fields = {name: value for name, value in form.multi_items() if isinstance(value, str)}
        pictures = [await self._read_upload(value, name) for name, value in _find_uploads(form, PICTURES)]
        masks = [await self._read_upload(value, name) for name, value in _find_uploads(form, MASKS)]
        if len(masks) > 1:
            raise InvalidRequest("mask: send one mask.", field="mask")
        return fields, pictures, await asyncio.to_thread(_convert_mask, masks[0]) if masks else None

    async def _read_upload(self, file: UploadFile, field: str) -> Upload:
        return await asyncio.to_thread(self.context.pictures.read_bytes, await file.read(), field)

    def _build_order(
        self,
        request: Request,
        form: OpenAIRequest,
        *,
        pictures: list[Upload] | None = None,
        mask: Upload | None = None,
        vary: bool = False,
    ) -> Order:
        if not form.prompt.strip() and not vary:
            raise InvalidRequest("prompt is required.", field="prompt")
        _check_ranges(form)
        found, (width, height) = pictures or [], _parse_size(form.size)
        # With a mask the first picture is repainted. Without one all pictures are references.
        repaint = mask is not None or vary
        usual = 0.6 if vary else 1.0
        strength = form.strength if form.strength is not None and repaint else usual
        check_range("strength", strength, 0, 1)
        return Order(
            prompt=form.prompt,
            model=_resolve_model(form.model),
            width=width,
            height=height,
            exact=width is None or min(width, height or width) >= SMALLEST_SIDE,
            seed=form.seed,
            steps=form.steps,
            count=form.n,
            source=found[0] if repaint and found else None,
            mask=mask,
            references=tuple(found[1:] if repaint else found),
            strength=strength,
            owner=get_owner(request),
        )

    async def _paint(self, request: Request, form: OpenAIRequest, order: Order, *, events: str) -> Response:
        """Paint and reply. `events`: the beginning of the names of streamed events."""
        if form.stream:
            job = await self.service.submit(order)
            return self.context.streamer.build_response(
                self._stream_messages(form, job, events),
                resumable=False,
                on_disconnect=lambda: self.service.cancel_unwanted(job.id),
            )
        job, pictures = await wait_or_cancel(request, self.service.submit_and_wait(order))
        if form.response_format == "url":
            base = self.context.signed_urls.base_url(request)
            found = await get_picture_urls(self.service, self.context, job, base, form.output_format)
            data = [{"url": address} for address in found]
        else:
            data = await asyncio.to_thread(
                lambda: [{"b64_json": _encode_base64(form, picture)} for picture in pictures]
            )
        created = int(job.finished or time.time())
        return JSONResponse({**_common_fields(form, job), "created": created, "data": data, "usage": USAGE})

    async def _stream_messages(
        self, form: OpenAIRequest, job: Job, events: str
    ) -> AsyncGenerator[ServerSentEvent, None]:
        """Yield up to `partial_images` previews, then each finished picture or an error."""
        sent = 0
        async for event in self.service.queue.watch(job.id, None, previews=form.partial_images > 0):
            if event.preview is not None and sent < form.partial_images:
                encoded = base64.b64encode(event.preview).decode("ascii")
                name = f"{events}.partial_image"
                yield _build_message(name, form, job, b64_json=encoded, partial_image_index=sent)
                sent += 1
        try:
            done, pictures = await self._load_finished(job)
        except MfluxError as error:
            yield ServerSentEvent("", "error", {"type": "error", "error": _error_body(error.message, error.code)})
            return
        for picture in pictures:
            encoded = await asyncio.to_thread(_encode_base64, form, picture)
            yield _build_message(f"{events}.completed", form, done, b64_json=encoded, usage=USAGE)

    async def _load_finished(self, job: Job) -> tuple[Job, list[bytes]]:
        """Return the ended job and its pictures. Raises what `wait_finished` and `read_pictures` raise."""
        done = await self.service.wait_finished(job)
        pictures = await self.service.read_pictures(done)
        if not pictures:
            raise PictureNotFound("The pictures of this job were deleted.", job_id=job.id)
        return done, pictures

    def endpoints(self) -> list[Endpoint]:
        images = f"{PREFIX}/images"
        errors = (*ORDER_ERRORS, ModelNotFound)
        return [
            Endpoint(
                "POST",
                f"{images}/generations",
                self.generate,
                "Words to pictures",
                TAG,
                JSON,
                OpenAIRequest,
                errors=errors,
            ),
            Endpoint("POST", f"{images}/edits", self.edit, "Pictures after others", TAG, JSON, errors=errors),
            Endpoint(
                "POST", f"{images}/variations", self.create_variation, "A picture varied", TAG, JSON, errors=errors
            ),
            Endpoint("GET", f"{PREFIX}/models", self.list_models, "Models that are here", TAG, JSON),
            Endpoint(
                "GET", f"{PREFIX}/models/{{model}}", self.get_model, "A model", TAG, JSON, errors=(ModelNotFound,)
            ),
        ]


# Tokens are not counted.
USAGE = {
    "total_tokens": 0,
    "input_tokens": 0,
    "output_tokens": 0,
    "input_tokens_details": {"text_tokens": 0, "image_tokens": 0},
}


def _check_ranges(form: OpenAIRequest) -> None:
    if form.background == "transparent":
        raise InvalidRequest("background: FLUX.2 paints no transparent pictures.", field="background")
    if form.output_format != "png":
        check_range("output_compression", form.output_compression, 0, 100)
    if form.stream:
        check_range("partial_images", form.partial_images, 0, 3)


def _find_uploads(form: FormData, names: re.Pattern[str]) -> list[tuple[str, UploadFile]]:
    """Return the files of these fields. A file input that was left empty sends a part without name and content."""
    found = [
        (name, value) for name, value in form.multi_items() if names.fullmatch(name) and isinstance(value, UploadFile)
    ]
    return [(name, value) for name, value in found if value.filename or value.size]


def _check_parts(form: FormData) -> None:
    """Refuse parts whose content would be lost: files with other names, and pictures that are not files."""
    for name, value in form.multi_items():
        is_known = PICTURES.fullmatch(name) or MASKS.fullmatch(name)
        if isinstance(value, UploadFile) and not is_known:
            raise InvalidRequest(f"{name[:40]}: there is no such file. Send image and mask.", field=name[:40])
        if isinstance(value, str) and value and is_known:
            raise InvalidRequest(f"{name}: send the picture as a file.", field=name)


def _convert_mask(mask: Upload) -> Upload:
    """Convert OpenAI's mask, which repaints transparent parts, to ours, which repaints white parts.

    A mask without an alpha channel is already ours. Raises InvalidImage if it cannot be read, or if nothing is fully
    transparent.
    """
    try:
        alpha = decode_alpha(mask.data)
    except InvalidImage:
        raise unreadable_picture("mask") from None
    if alpha is None:
        return mask
    try:
        return Upload(make_mask_from_transparency(alpha), mask.width, mask.height)
    except ValueError:
        message = "mask: nothing in it is fully transparent. Parts whose alpha is 0 are repainted."
        raise InvalidImage(message, field="mask") from None


def _resolve_model(model: str | None) -> str | None:
    if model is None or model.startswith(OPENAI_MODEL_PREFIXES):
        return None
    return find_local_model(model)


def _parse_size(text: str) -> tuple[int, int] | tuple[None, None]:
    if text == "auto":
        return None, None
    across, _, down = text.lower().partition("x")
    if not (across.isdecimal() and down.isdecimal() and len(text) < 12):
        raise InvalidRequest("size must be WxH, for example 1024x1024, or auto.", field="size")
    return int(across), int(down)


def _encode_base64(form: OpenAIRequest, picture: bytes) -> str:
    return base64.b64encode(convert_png(picture, form.output_format, max(1, form.output_compression))).decode("ascii")


def _common_fields(form: OpenAIRequest, job: Job) -> dict[str, Any]:
    width, height = job.request.requested_size
    return {"background": "opaque", "output_format": form.output_format, "quality": "high", "size": f"{width}x{height}"}


def _build_message(name: str, form: OpenAIRequest, job: Job, **facts: object) -> ServerSentEvent:
    content = {"type": name, "created_at": int(time.time()), **_common_fields(form, job), **facts}
    return ServerSentEvent("", name, content)


def _model_row(name: str) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": 0, "owned_by": "mflux-api"}


def _error_body(message: str, code: str, field: object = None) -> dict[str, Any]:
    return {"message": message, "type": "invalid_request_error", "param": field, "code": code.lower()}


def error_shape(error: MfluxError, request_id: str) -> JSONResponse:
    problem = _error_body(error.message, error.code, error.details.get("field"))
    if error.status >= 500:
        problem["type"] = "server_error"
    return JSONResponse({"error": problem}, error.status)


def dialect() -> Dialect:
    return Dialect(
        name=TAG,
        prefixes=(f"{PREFIX}/images/", f"{PREFIX}/models"),
        endpoints=lambda service, context: OpenAIEndpoints(service, context).endpoints(),
        error_shape=error_shape,
    )
