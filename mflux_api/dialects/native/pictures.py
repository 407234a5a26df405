"""/api/v1: finished pictures, across all jobs and one by one."""

import asyncio

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.native import wire_pictures as wire
from mflux_api.dialects.native.jobs import JOB, reply
from mflux_api.errors import InvalidRequest, JobConflict, JobNotFound, PictureNotFound, StorageFailed
from mflux_api.jobs.gallery import Search, pick
from mflux_api.jobs.studio import Studio
from mflux_api.pixels.formats import converted, scaled
from mflux_api.web.body import query
from mflux_api.web.openapi import Endpoint

TAG = "pictures"
PICTURE = f"{JOB}/images/{{n}}"
IMMUTABLE = "private, max-age=31536000, immutable"


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
        ]
