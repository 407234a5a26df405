"""/sdapi/v1: enlarge pictures, and read the generation data inside PNG files."""

import asyncio
import base64
import html
import io
from collections.abc import Sequence

from PIL import Image
from PIL.PngImagePlugin import PngInfo as PngTexts
from pydantic import BaseModel
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.checkpoints.families import FAMILIES
from mflux_api.dialects.sdapi.body import WrongKind, read_form
from mflux_api.dialects.sdapi.errors import TAG, WebuiError
from mflux_api.dialects.sdapi.schema import BatchExtra, PngInfo, SingleExtra
from mflux_api.errors import InvalidImage, InvalidRequest, ModelNotFound
from mflux_api.jobs.order import Order
from mflux_api.jobs.service import JobService
from mflux_api.models.inventory import ModelEntry
from mflux_api.pixels import infotext
from mflux_api.pixels.decoding import decode_picture
from mflux_api.pixels.enlarging import FILTERS, NONE, enlarge_to_cover
from mflux_api.request import Upload
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.disconnect import wait_or_cancel
from mflux_api.web.openapi import Endpoint
from mflux_api.web.pictures import MEGAPIXEL, PictureReader, is_url, unreadable_picture
from mflux_api.wire.order_form import ORDER_ERRORS
from mflux_api.wire.ranges import check_factor, check_range

ERRORS = (*ORDER_ERRORS, WebuiError, WrongKind)
WEBUI_SIDE_STEP = 8
PNG_LEVEL = 1
LARGEST_FACTOR = 16
Size = tuple[int, int]


class SingleReply(BaseModel):
    html_info: str
    image: str


class BatchReply(BaseModel):
    html_info: str
    images: list[str]


class PngReply(BaseModel):
    info: str
    items: dict[str, str]
    parameters: dict[str, str]


class ExtrasEndpoints:
    """Handlers that work on finished pictures. Upscaler models run as jobs of the queue."""

    def __init__(self, service: JobService, context: HttpContext) -> None:
        self.service = service
        self.context = context

    async def list_upscalers(self) -> list[str]:
        """Return the names of usable upscalers: None, the filters, and each downloaded upscaler model."""
        models = [entry.spec.name for entry in await self.service.models.list_models() if _can_enlarge(entry)]
        # A model with the name of its family is shown by the title of the family.
        return [NONE, *FILTERS, *(FAMILIES[name].title if name in FAMILIES else name for name in models)]

    async def upscale_single(self, request: Request) -> Response:
        form = await read_form(self.context.body, request, SingleExtra)
        image = await self._upscale(request, form, form.image)
        return JSONResponse(SingleReply(html_info=_postprocessing_html(form), image=image).model_dump())

    async def upscale_batch(self, request: Request) -> Response:
        form = await read_form(self.context.body, request, BatchExtra)
        images = [await self._upscale(request, form, each.data) for each in form.image_list]
        return JSONResponse(BatchReply(html_info=_postprocessing_html(form), images=images).model_dump())

    async def read_png_info(self, request: Request) -> Response:
        form = await read_form(self.context.body, request, PngInfo)
        upload = await read_picture(self.context.pictures, form.image)
        text, items = await asyncio.to_thread(infotext.read_infotext, upload.data)
        parameters = infotext.add_defaults(infotext.parse_infotext(text)) if text else {}
        return JSONResponse(PngReply(info=text, items=items, parameters=parameters).model_dump())

    async def _upscale(self, request: Request, form: SingleExtra, encoded: str) -> str:
        upload = await read_picture(self.context.pictures, encoded)
        names = await self._choose_upscalers(form)
        unchanged = set(names) == {NONE}
        size = (
            (upload.width, upload.height) if unchanged else _target_size(form, upload, 2 * self.context.pictures.limit)
        )
        layers = [await self._enlarge(request, upload, size, name) for name in names]
        return await asyncio.to_thread(_encode_png, layers, form, upload, size)

    async def _choose_upscalers(self, form: SingleExtra) -> list[str]:
        """Return the names of one upscaler, or of two to blend. Raises InvalidRequest, WebuiError."""
        known = {name.lower(): name for name in await self.list_upscalers()}
        wanted = [form.upscaler_1]
        if form.upscaler_2 != NONE and form.extras_upscaler_2_visibility != 0:
            check_range("extras_upscaler_2_visibility", form.extras_upscaler_2_visibility, 0, 1)
            wanted.append(form.upscaler_2)
        for name in wanted:
            if name.lower() not in known:
                words = f"could not find upscaler named {name}"
                raise WebuiError(words, name="AssertionError", like=ModelNotFound)
        return [known[name.lower()] for name in wanted]

    async def _enlarge(self, request: Request, upload: Upload, size: Size, name: str) -> Image.Image:
        if name == NONE:
            return await asyncio.to_thread(_open_image, upload)
        if name in FILTERS:
            return await asyncio.to_thread(lambda: enlarge_to_cover(_open_image(upload), size, name))
        return await self._enlarge_by_model(request, upload, size, name)

    async def _enlarge_by_model(self, request: Request, upload: Upload, size: Size, name: str) -> Image.Image:
        wanted = Order(
            prompt="",
            model=name,
            source=upload,
            width=size[0],
            height=size[1],
            exact=True,
            strength=1.0,
            owner=get_owner(request),
            seed=0,
            steps=1,
        )
        _, (data,) = await wait_or_cancel(request, self.service.submit_and_wait(wanted))
        return await asyncio.to_thread(lambda: Image.open(io.BytesIO(data)).convert("RGB"))

    def endpoints(self) -> list[Endpoint]:
        path = "/sdapi/v1/"
        return [
            Endpoint(
                "POST",
                f"{path}extra-single-image",
                self.upscale_single,
                "Enlarge a picture",
                TAG,
                SingleReply,
                body=SingleExtra,
                errors=ERRORS,
            ),
            Endpoint(
                "POST",
                f"{path}extra-batch-images",
                self.upscale_batch,
                "Enlarge pictures",
                TAG,
                BatchReply,
                body=BatchExtra,
                errors=ERRORS,
            ),
            Endpoint(
                "POST",
                f"{path}png-info",
                self.read_png_info,
                "What is written inside a picture",
                TAG,
                PngReply,
                body=PngInfo,
                errors=(WebuiError, WrongKind),
            ),
        ]


def _can_enlarge(entry: ModelEntry) -> bool:
    return entry.capabilities.enlarges and entry.is_downloaded


async def read_picture(pictures: PictureReader, encoded: str) -> Upload:
    """Read a picture in base64. Raises WebuiError with SD-WebUI's message; URLs are refused."""
    if is_url(encoded):
        raise WebuiError("Requests not allowed", name="HTTPException", like=InvalidImage)
    try:
        return await pictures.read_base64(encoded, "image")
    except InvalidImage as error:
        raise WebuiError("Invalid encoded image", name="HTTPException", like=InvalidImage) from error


def _target_size(form: SingleExtra, upload: Upload, limit: int) -> Size:
    """Return the requested (width, height) in pixels. Raises InvalidRequest, also for more pixels than `limit`."""
    if form.resize_mode == 0:
        check_factor("upscaling_resize", form.upscaling_resize, LARGEST_FACTOR)
        size = tuple(
            max(1, int(side * form.upscaling_resize) // WEBUI_SIDE_STEP * WEBUI_SIDE_STEP)
            for side in (upload.width, upload.height)
        )
    else:
        wanted = (form.upscaling_resize_w, form.upscaling_resize_h)
        for name, side in zip(("upscaling_resize_w", "upscaling_resize_h"), wanted, strict=True):
            check_range(name, side, 1, limit)
        scale = max(wanted[0] / upload.width, wanted[1] / upload.height)
        size = wanted if form.upscaling_crop else (round(upload.width * scale), round(upload.height * scale))
    if size[0] * size[1] > limit:
        most = f"at most {limit / MEGAPIXEL:g} million pixels are made"
        raise InvalidRequest(f"The result would have {size[0]}x{size[1]} pixels; {most}.", field="upscaling_resize")
    return size[0], size[1]


def _open_image(upload: Upload) -> Image.Image:
    """Decode the picture. Raises InvalidImage if it is damaged behind its header."""
    try:
        return decode_picture(upload.data)
    except InvalidImage:
        raise unreadable_picture("image") from None


def _encode_png(layers: Sequence[Image.Image], form: SingleExtra, upload: Upload, size: Size) -> str:
    image = layers[0]
    if len(layers) > 1:
        second = layers[1] if layers[1].size == image.size else layers[1].resize(image.size)
        image = Image.blend(image, second, form.extras_upscaler_2_visibility)
    texts = PngTexts()
    parameters, _ = infotext.read_infotext(upload.data)
    if parameters:
        texts.add_text("parameters", parameters)
    texts.add_text("postprocessing", _postprocessing_text(form))
    buffer = io.BytesIO()
    image.save(buffer, "PNG", pnginfo=texts, compress_level=PNG_LEVEL)
    return base64.b64encode(buffer.getvalue()).decode("ascii")


def _postprocessing_text(form: SingleExtra) -> str:
    if form.upscaler_1 == NONE:
        return ""
    by = f"Postprocess upscale by: {form.upscaling_resize:g}"
    to = f"Postprocess upscale to: {form.upscaling_resize_w}x{form.upscaling_resize_h}"
    return f"{by if form.resize_mode == 0 else to}, Postprocess upscaler: {form.upscaler_1}"


def _postprocessing_html(form: SingleExtra) -> str:
    return f"<p>{html.escape(_postprocessing_text(form))}</p>"
