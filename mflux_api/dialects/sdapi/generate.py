"""/sdapi/v1: pictures from words and from pictures, while the client waits."""

import asyncio
from contextlib import suppress

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.sdapi import wire
from mflux_api.errors import (
    EngineDied,
    GenerationFailed,
    JobCancelled,
    JobConflict,
)
from mflux_api.forms import ORDER_ERRORS, PictureForm
from mflux_api.jobs.job import Job
from mflux_api.jobs.studio import Studio
from mflux_api.web.openapi import Endpoint
from mflux_api.web.tools import Tools, owner
from mflux_api.web.waiting import while_connected

ERRORS = (*ORDER_ERRORS, JobCancelled, GenerationFailed, EngineDied)


class Generate:
    """Handlers that paint."""

    def __init__(self, studio: Studio, tools: Tools) -> None:
        self.studio = studio
        self.tools = tools

    async def txt2img(self, request: Request) -> Response:
        form = await self.tools.body.json(request, PictureForm)
        # Clients of SD-WebUI send one form for both; words alone have no picture to repaint.
        return await self._paint(request, form.model_copy(update={"init_images": [], "mask": None}))

    async def img2img(self, request: Request) -> Response:
        return await self._paint(request, await self.tools.body.json(request, wire.Img2Img))

    async def _paint(self, request: Request, form: PictureForm) -> Response:
        job = await self.studio.submit(await form.order(self.tools.pictures, owner(request), None))
        done = await while_connected(request, self.studio.finished(job), lambda: self._abandon(job))
        pictures = await self.studio.read(done)
        body = await asyncio.to_thread(lambda: wire.painted(done, pictures).model_dump_json())
        return Response(body, media_type="application/json")

    async def _abandon(self, job: Job) -> None:
        """Nobody waits for it any more. It may just have been finished."""
        with suppress(JobConflict):
            await self.studio.cancel(job.id)

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "POST",
                "/sdapi/v1/txt2img",
                self.txt2img,
                "Paint from words, and wait for it",
                "sdapi",
                wire.Painted,
                body=PictureForm,
                errors=ERRORS,
            ),
            Endpoint(
                "POST",
                "/sdapi/v1/img2img",
                self.img2img,
                "Repaint a picture, and wait for it",
                "sdapi",
                wire.Painted,
                body=wire.Img2Img,
                errors=ERRORS,
            ),
        ]
