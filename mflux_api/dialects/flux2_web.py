"""/flux2-web: the API of the FLUX.2 web server. It runs one job at a time and writes a `.prompt` file per picture."""

import asyncio
import hashlib
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.errors import Busy, InvalidRequest, MfluxError, PictureNotFound
from mflux_api.jobs.job import Job, PictureFile
from mflux_api.jobs.order import Order
from mflux_api.jobs.service import JobService
from mflux_api.pixels import naming
from mflux_api.request import Upload
from mflux_api.web.byte_ranges import range_response
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.disconnect import wait_or_cancel
from mflux_api.web.openapi import Endpoint
from mflux_api.wire.dialect import KNOWN_STATUSES, Dialect, known_status
from mflux_api.wire.lenient_form import LenientForm
from mflux_api.wire.order_form import ORDER_ERRORS, LenientInt
from mflux_api.wire.ranges import check_range

PREFIX = "/flux2-web"
TAG = "flux2-web"
JSON = "application/json"
FOLDER = "flux2-web"
SIDES = {"square": (1024, 1024), "portrait": (768, 1344), "landscape": (1344, 768)}
SCALES = {"1mp": 1, "2mp": 2, "4mp": 4}


class Flux2WebRequest(LenientForm):
    """A request from the web page of the FLUX.2 web server."""

    prompt: str = ""
    orientation: Literal["square", "portrait", "landscape"] = "landscape"
    size: Literal["1mp", "2mp", "4mp"] = "1mp"
    steps: LenientInt = Field(25, ge=10, le=50)
    seed: LenientInt | None = None
    batch: LenientInt = Field(1, ge=1, le=4)
    input_image: str | None = Field(None, description="A picture to begin with, in base64")
    strength: float = Field(0.75, description="0 keeps it, 1 ignores it")


@dataclass(frozen=True)
class LinkedPictures:
    """Symbolic links from the documented names to the picture files of jobs, each with a `.prompt` file."""

    output: Path

    def link_pictures(self, job: Job, form: Flux2WebRequest) -> list[str]:
        self._remove_dangling()
        return [self._link_picture(job, form, picture) for picture in job.pictures]

    def read(self, name: str) -> bytes:
        """Return the PNG. Raises PictureNotFound for an invalid name or a deleted picture."""
        try:
            if naming.NAME.fullmatch(name):
                return (self.output / FOLDER / name).read_bytes()
        except OSError:
            pass
        raise PictureNotFound("There is no such picture.")

    def _link_picture(self, job: Job, form: Flux2WebRequest, picture: PictureFile) -> str:
        token = hashlib.sha256(picture.file.encode()).hexdigest()[:8]
        name = naming.make_picture_name(job.finished or time.time(), token)
        folder = self.output / FOLDER
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).symlink_to(Path("..") / picture.file)
        words = naming.format_sidecar(
            raw=form.prompt,
            prompt=form.prompt,
            size=(picture.width, picture.height),
            seed=picture.seed,
            steps=job.request.steps,
            timings=picture.timings,
        )
        (folder / name).with_suffix(".prompt").write_text(words, encoding="utf-8")
        return name

    def _remove_dangling(self) -> None:
        """Remove links and `.prompt` files of pictures that the queue has deleted."""
        for link in (self.output / FOLDER).glob("*.png"):
            if not link.exists():
                link.unlink(missing_ok=True)
                link.with_suffix(".prompt").unlink(missing_ok=True)


class Flux2WebEndpoints:
    """Handlers of the FLUX.2 web API. Orders are refused with Busy while a job runs or waits."""

    def __init__(self, service: JobService, context: HttpContext, output: Path) -> None:
        self.service = service
        self.context = context
        self.linked = LinkedPictures(output)

    async def generate(self, request: Request) -> Response:
        form = await self.context.body.read_json(request, Flux2WebRequest)
        if not form.prompt.strip():
            raise InvalidRequest("Prompt is required", field="prompt")
        source = None
        if form.input_image:
            check_range("strength", form.strength, 0, 1)
            source = await self.context.pictures.read_base64(form.input_image, "input_image")
        if self.service.queue.running_jobs() or self.service.queue.count_waiting():
            raise Busy("Generation already in progress")
        began = time.monotonic()
        job, _ = await wait_or_cancel(
            request, self.service.submit_and_wait(_build_order(form, source, get_owner(request)))
        )
        names = await asyncio.to_thread(self.linked.link_pictures, job, form)
        images = [_image(name, picture) for name, picture in zip(names, job.pictures, strict=True)]
        return JSONResponse({"success": True, "images": images, "generation_time": round(time.monotonic() - began, 2)})

    async def get_status(self, request: Request) -> Response:
        active = next(iter(self.service.queue.running_jobs()), None)
        if active is None:
            return JSONResponse({"generating": False, "prompt": None, "batch": 0, "current": 0})
        painted = active.job.request
        current = active.progress.image if active.progress else 1
        return JSONResponse(
            {"generating": True, "prompt": painted.prompt, "batch": len(painted.seeds), "current": current}
        )

    async def get_model_info(self, request: Request) -> Response:
        spec = await self.service.models.find_spec(None)
        bits = spec.quantize or spec.stored_bits
        model = f"{spec.name} ({bits}-bit)" if bits else spec.name
        encoder = "local encoder"
        return JSONResponse({"model": model, "encoder": encoder, "description": f"{model} with {encoder}"})

    async def get_image(self, request: Request) -> Response:
        data = await asyncio.to_thread(self.linked.read, request.path_params["name"])
        return range_response(request, data, "image/png")

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "POST", f"{PREFIX}/generate", self.generate, "Paint", TAG, JSON, Flux2WebRequest, errors=ORDER_ERRORS
            ),
            Endpoint("GET", f"{PREFIX}/status", self.get_status, "Whether it paints", TAG, JSON),
            Endpoint("GET", f"{PREFIX}/model-info", self.get_model_info, "What paints", TAG, JSON),
            Endpoint("GET", f"{PREFIX}/images/{{name}}", self.get_image, "A picture", TAG, "image/png"),
        ]


def _build_order(form: Flux2WebRequest, source: Upload | None, owner: str) -> Order:
    width, height = (side * SCALES[form.size] for side in SIDES[form.orientation])
    return Order(
        prompt=form.prompt,
        width=width,
        height=height,
        steps=form.steps,
        seed=form.seed,
        count=form.batch,
        source=source,
        strength=form.strength if source is not None else 1.0,
        owner=owner,
    )


def _image(name: str, picture: PictureFile) -> dict[str, Any]:
    times = picture.timings
    known = {stage: round(times.get(stage, 0.0), 2) for stage in ("encoding", "diffusion")}
    return {
        "filename": name,
        "seed": picture.seed,
        # This API has no time for decoding. It is reported as `save`.
        "timings": {**known, "save": round(times.get("decoding", 0.0), 2), "total": round(times.get("total", 0.0), 2)},
    }


def error_shape(error: MfluxError, request_id: str) -> JSONResponse:
    return JSONResponse({"success": False, "error": error.message}, known_status(error, KNOWN_STATUSES))


def dialect(*, output: Path) -> Dialect:
    """Describe the dialect. `output`: the folder of the jobs' pictures."""
    return Dialect(
        name=TAG,
        prefixes=(f"{PREFIX}/",),
        endpoints=lambda service, context: Flux2WebEndpoints(service, context, output).endpoints(),
        error_shape=error_shape,
        has_page=True,
    )
