"""/files: pictures at signed URLs, for APIs that reply with a URL instead of a picture."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.errors import JobNotFound, LinkExpired, PictureNotFound
from mflux_api.jobs.service import JobService
from mflux_api.pixels.formats import PictureFormat, convert_png
from mflux_api.web.byte_ranges import range_response
from mflux_api.web.context import HttpContext
from mflux_api.web.openapi import Endpoint
from mflux_api.web.signed_urls import FILES_PREFIX
from mflux_api.wire.dialect import Dialect

FORMATS: dict[str, PictureFormat] = {"png": "png", "jpeg": "jpeg", "webp": "webp"}


def dialect() -> Dialect:
    """Describe the dialect. Its URLs are signed and need no API key."""
    return Dialect(
        name="files", prefixes=(f"{FILES_PREFIX}/",), endpoints=_endpoints, open_prefixes=(f"{FILES_PREFIX}/",)
    )


def _endpoints(service: JobService, context: HttpContext) -> list[Endpoint]:
    async def picture(request: Request) -> Response:
        context.signed_urls.verify(request.url.path, request.query_params)
        index, _, form = request.path_params["name"].partition(".")
        job = await service.queue.get(request.path_params["job_id"])
        if index not in map(str, range(len(job.pictures))) or form not in FORMATS:
            raise PictureNotFound("There is no such picture.")
        data = await asyncio.to_thread(service.queue.read_picture, job.pictures[int(index)].file)
        data = await asyncio.to_thread(convert_png, data, FORMATS[form])
        return range_response(request, data, f"image/{form}")

    path, summary = f"{FILES_PREFIX}/{{job_id}}/{{name}}", "A picture, at the address that a reply named"
    errors = (LinkExpired, JobNotFound, PictureNotFound)
    return [Endpoint("GET", path, picture, summary, "files", "image/png", errors=errors)]
