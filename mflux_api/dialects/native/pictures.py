"""/api/v1: finished pictures, across all jobs and one by one."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native import wire_pictures as wire
from mflux_api.dialects.native.jobs import JOB, reply
from mflux_api.errors import InvalidRequest, JobConflict, JobNotFound, PictureNotFound, StorageFailed
from mflux_api.jobs.database.pictures import Search, pick
from mflux_api.jobs.service import Studio
from mflux_api.pixels.formats import converted, media_type, scaled
from mflux_api.web.body import query
from mflux_api.web.openapi import Endpoint

TAG = "pictures"
PICTURE = f"{JOB}/images/{{n}}"
IMMUTABLE = "private, max-age=31536000, immutable"
# A stranger may have made it: opened by itself it is to run nothing.
AS_SENT = {"Cache-Control": IMMUTABLE, "Content-Security-Policy": "default-src 'none'; sandbox"}


class Pictures:
    """Handlers of pictures."""

    def __init__(self, studio: Studio) -> None:
        self.studio = studio

    async def index(self, request: Request) -> Response:
        asked = query(request, wire.PicturesQuery)
        search = Search(words=frozenset(asked.search.split()), model=asked.model)
        page = await self.studio.queue.pictures(search, asked.before, asked.limit)
        rows = [row for job in page.jobs for row in wire.rows(job)]
        return reply(wire.PictureList(pictures=rows, next=page.following, total=page.total))

    async def show(self, request: Request) -> Response:
        asked = query(request, wire.PictureQuery)
        job = await self.studio.queue.get(request.path_params["job_id"])
        # A running job shows what it has finished so far.
        active = self.studio.queue.floor.active.get(job.id)
        _, picture = pick(active.pictures if active else job.pictures, request.path_params["n"])
        data = await asyncio.to_thread(self._encoded, picture.file, asked)
        return Response(data, media_type=f"image/{asked.format}", headers={"Cache-Control": IMMUTABLE})

    def _encoded(self, file: str, asked: wire.PictureQuery) -> bytes:
        data = self.studio.queue.images.read(file)
        if asked.side is None:
            return converted(data, asked.format, asked.quality)
        return scaled(data, asked.format, asked.quality, asked.side)

    async def delete(self, request: Request) -> Response:
        await self.studio.queue.delete_picture(request.path_params["job_id"], request.path_params["n"])
        return reply(wire.Deleted(status="deleted"))

    async def input(self, request: Request) -> Response:
        job, name = await self.studio.queue.get(request.path_params["job_id"]), request.path_params["name"]
        if name not in job.inputs.named:
            raise PictureNotFound("This job started from no such picture.", inputs=list(job.inputs.named))
        data = await asyncio.to_thread(self.studio.queue.images.read, job.inputs.named[name])
        kind = media_type(data)
        if kind is None:
            raise PictureNotFound("What this job started from is no picture.")
        return Response(data, media_type=kind, headers=AS_SENT)

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "GET",
                "/api/v1/pictures",
                self.index,
                "Finished pictures of all jobs, newest first",
                TAG,
                wire.PictureList,
                query=wire.PicturesQuery,
                errors=(InvalidRequest,),
            ),
            Endpoint(
                "GET",
                PICTURE,
                self.show,
                "A picture of a job as a file, counted from 0",
                TAG,
                "image/*",
                query=wire.PictureQuery,
                errors=(InvalidRequest, JobNotFound, PictureNotFound),
            ),
            Endpoint(
                "DELETE",
                PICTURE,
                self.delete,
                "Delete a picture; the others of its job keep their numbers",
                TAG,
                wire.Deleted,
                errors=(JobNotFound, PictureNotFound, JobConflict, StorageFailed),
            ),
            Endpoint(
                "GET",
                f"{JOB}/inputs/{{name}}",
                self.input,
                "A picture that a job starts from, as it was sent: source, mask, reference-0, reference-1 ...",
                TAG,
                "image/*",
                errors=(JobNotFound, PictureNotFound),
            ),
        ]
