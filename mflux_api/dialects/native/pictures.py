"""/api/v1: lists of finished pictures, single pictures, and input pictures of jobs."""

import asyncio
from typing import Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native.jobs import JOB, json_response
from mflux_api.dialects.native.wire import WireModel, format_time, picture_url
from mflux_api.errors import InvalidRequest, JobConflict, JobNotFound, PictureNotFound, StorageFailed
from mflux_api.jobs.job import Job, find_picture
from mflux_api.jobs.queue import PictureSearch
from mflux_api.jobs.service import JobService
from mflux_api.pixels.formats import convert_png, detect_media_type, shrink_png
from mflux_api.web.body import parse_query
from mflux_api.web.openapi import Endpoint


class PicturesQuery(WireModel):
    limit: int = Field(100, ge=1, le=500, description="pictures to list; a few more may come: no job is cut in two")
    before: int | None = Field(None, ge=0, lt=2**63, description="`next` of the page before")
    search: str = Field("", max_length=1000, description="words that all occur in the prompt, in any order and case")
    model: str | None = Field(None, max_length=200, description="name of the model")


class PictureRow(WireModel):
    """A picture in a list. `url`: its file. `width` and `height`: the size of the file, in pixels."""

    job_id: str
    index: int
    url: str
    prompt: str
    model: str
    width: int
    height: int
    seed: int
    steps: int
    created_at: str


class PictureList(WireModel):
    """A page of pictures. `next`: the `before` of the next page; null on the last. `total`: pictures on all pages."""

    pictures: list[PictureRow]
    next: int | None
    total: int


class PictureQuery(WireModel):
    format: Literal["png", "jpeg", "webp"] = "png"
    quality: int = Field(90, ge=1, le=100, description="of JPEG and WebP")
    side: int | None = Field(None, ge=16, le=2048, description="scaled down until no side is longer, in pixels")


class Deleted(WireModel):
    status: Literal["deleted"]


def picture_rows(job: Job) -> list[PictureRow]:
    """Return the rows of a job's pictures, the last picture first."""
    return [
        PictureRow(
            job_id=job.id,
            index=index,
            url=picture_url(job, index),
            prompt=job.request.prompt,
            model=job.model,
            width=picture.width,
            height=picture.height,
            seed=picture.seed,
            steps=job.request.steps,
            created_at=format_time(job.created) or "",
        )
        for index, picture in reversed(job.present.items())
    ]


TAG = "pictures"
PICTURE = f"{JOB}/images/{{n}}"
IMMUTABLE = "private, max-age=31536000, immutable"
# Uploads are not trusted: a browser that opens one must not run scripts in it.
UNTRUSTED_HEADERS = {"Cache-Control": IMMUTABLE, "Content-Security-Policy": "default-src 'none'; sandbox"}


class PictureEndpoints:
    """Handlers of pictures."""

    def __init__(self, service: JobService) -> None:
        self.service = service

    async def list_pictures(self, request: Request) -> Response:
        asked = parse_query(request, PicturesQuery)
        search = PictureSearch(words=frozenset(asked.search.split()), model=asked.model)
        page = await self.service.queue.search_pictures(search, asked.before, asked.limit)
        rows = [row for job in page.jobs for row in picture_rows(job)]
        return json_response(PictureList(pictures=rows, next=page.following, total=page.total))

    async def get_picture(self, request: Request) -> Response:
        asked = parse_query(request, PictureQuery)
        job = await self.service.queue.get(request.path_params["job_id"])
        # A running job shows what it has finished so far.
        running = self.service.running_job(job.id)
        _, picture = find_picture(running.pictures if running else job.pictures, request.path_params["n"])
        data = await asyncio.to_thread(self._encode, picture.file, asked)
        return Response(data, media_type=f"image/{asked.format}", headers={"Cache-Control": IMMUTABLE})

    def _encode(self, file: str, asked: PictureQuery) -> bytes:
        data = self.service.queue.read_picture(file)
        if asked.side is None:
            return convert_png(data, asked.format, asked.quality)
        return shrink_png(data, asked.format, asked.quality, asked.side)

    async def delete_picture(self, request: Request) -> Response:
        await self.service.queue.delete_picture(request.path_params["job_id"], request.path_params["n"])
        return json_response(Deleted(status="deleted"))

    async def get_input(self, request: Request) -> Response:
        job, name = await self.service.queue.get(request.path_params["job_id"]), request.path_params["name"]
        if name not in job.inputs.files_by_name:
            raise PictureNotFound("This job started from no such picture.", inputs=list(job.inputs.files_by_name))
        data = await asyncio.to_thread(self.service.queue.read_picture, job.inputs.files_by_name[name])
        kind = detect_media_type(data)
        if kind is None:
            raise PictureNotFound("What this job started from is no picture.")
        return Response(data, media_type=kind, headers=UNTRUSTED_HEADERS)

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/pictures",
                self.list_pictures,
                "Finished pictures of all jobs, newest first",
                TAG,
                PictureList,
                query=PicturesQuery,
                errors=(InvalidRequest,),
            ),
            Endpoint(
                "GET",
                PICTURE,
                self.get_picture,
                "A picture of a job as a file, counted from 0",
                TAG,
                "image/*",
                query=PictureQuery,
                errors=(InvalidRequest, JobNotFound, PictureNotFound),
            ),
            Endpoint(
                "DELETE",
                PICTURE,
                self.delete_picture,
                "Delete a picture; the others of its job keep their numbers",
                TAG,
                Deleted,
                errors=(JobNotFound, PictureNotFound, JobConflict, StorageFailed),
            ),
            Endpoint(
                "GET",
                f"{JOB}/inputs/{{name}}",
                self.get_input,
                "A picture that a job starts from, as it was sent: source, mask, reference-0, reference-1 ...",
                TAG,
                "image/*",
                errors=(JobNotFound, PictureNotFound),
            ),
        ]
