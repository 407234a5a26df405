"""/sdapi/v1: txt2img and img2img, which reply when the pictures are finished."""

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from starlette.requests import Request
from starlette.responses import Response

from mflux_api.dialects.sdapi import infotexts, orders, replies, styles
from mflux_api.dialects.sdapi.body import WrongKind, read_form
from mflux_api.dialects.sdapi.checkpoints import Checkpoints
from mflux_api.dialects.sdapi.errors import TAG, ScriptNotFound, WebuiError
from mflux_api.dialects.sdapi.options import CHECKPOINT, Options
from mflux_api.dialects.sdapi.schema import Img2Img, SdapiRequest, Txt2Img
from mflux_api.dialects.sdapi.task_ids import TaskIds
from mflux_api.errors import (
    EngineDied,
    GenerationFailed,
    InvalidRequest,
    JobCancelled,
    OutOfMemory,
)
from mflux_api.jobs.job import Job
from mflux_api.jobs.service import JobService
from mflux_api.web.context import HttpContext, get_owner
from mflux_api.web.disconnect import wait_with_disconnect_callback
from mflux_api.web.openapi import Endpoint
from mflux_api.wire.order_form import ORDER_ERRORS

# Bytes of pictures that are encoded into a reply in about a millisecond.
SMALL = 256 * 1024
LONGEST_LINE = 200
logger = logging.getLogger(__name__)
ERRORS = (*ORDER_ERRORS, WrongKind, ScriptNotFound, WebuiError, JobCancelled, GenerationFailed, EngineDied)


class GenerateEndpoints:
    """Handlers of txt2img and img2img."""

    def __init__(
        self,
        service: JobService,
        context: HttpContext,
        checkpoints: Checkpoints,
        options: Options,
        tasks: TaskIds,
        *,
        styles_file: Path | None,
    ) -> None:
        self.service = service
        self.styles_file = styles_file
        self.context = context
        self.checkpoints = checkpoints
        self.options = options
        self.tasks = tasks

    async def txt2img(self, request: Request) -> Response:
        return await self._paint(request, await read_form(self.context.body, request, Txt2Img))

    async def img2img(self, request: Request) -> Response:
        return await self._paint(request, await read_form(self.context.body, request, Img2Img))

    async def _paint(self, request: Request, given: SdapiRequest) -> Response:
        form = infotexts.fill_from_infotext(given)
        if "prompt" not in form.model_fields_set:
            raise InvalidRequest("prompt: Field required. It may be empty.", field="prompt")
        if not form.override_settings_restore_afterwards:
            await self._store_overrides(form)
        try:
            job, unused = await self._submit(request, form)
            done = await wait_with_disconnect_callback(
                request, self.service.wait_finished(job), lambda: self.service.cancel_unwanted(job.id)
            )
        except OutOfMemory as error:
            if not form.has_webui_fields:
                raise
            # With this name, clients of SD-WebUI unload the model and load it again.
            raise WebuiError(error.message, name="OutOfMemoryError", like=OutOfMemory) from error
        if sum(picture.size for picture in done.pictures) > SMALL:
            body = await asyncio.to_thread(self._build_reply, form, done, unused)
        else:
            # Read here and not on a thread: the files are in the page cache, and the handover to a thread takes longer.
            body = self._build_reply(form, done, unused)
        return Response(body, media_type="application/json")

    def _build_reply(self, form: SdapiRequest, job: Job, unused: Sequence[str]) -> str:
        return replies.make_reply(replies.FinishedJob(form, job, self.service.pngs(job), unused)).model_dump_json()

    async def _submit(self, request: Request, form: SdapiRequest) -> tuple[Job, list[str]]:
        """Submit the form. Returns its job, and the names of networks that have no effect."""
        resources = await self._load_resources(form)
        order = await orders.build_order(form, self.context.pictures, get_owner(request), resources)
        named = None if order.model in {None, resources.model} else await self.checkpoints.find(order.model)
        with self.tasks.track_arrival(form.force_task_id):
            job = await self.service.submit(replace(order, model=named or order.model), awaited=True)
        self.tasks.assign_job(form.force_task_id, job.id)
        unused = orders.find_unused_networks(form, resources)
        if unused:
            logger.warning("Job %s: networks of its prompt are not found: %s", job.id, ", ".join(unused)[:LONGEST_LINE])
        return job, unused

    async def _load_resources(self, form: SdapiRequest) -> orders.ServerResources:
        """Load what the form may name: styles, adapters, a model. Files are read only if the form may need them."""
        tagged = bool(form.styles) or "<" in form.prompt
        return orders.ServerResources(
            styles=await asyncio.to_thread(styles.load_styles, self.styles_file) if form.styles else (),
            loras=await self.service.list_loras() if tagged else (),
            model=await self._resolve_model(form),
            steps=self.service.defaults.steps,
        )

    async def _resolve_model(self, form: SdapiRequest) -> str:
        """Return the checkpoint of `override_settings` if it exists, else that of the options."""
        wanted = form.override_settings.get(CHECKPOINT)
        found = await self.checkpoints.find(wanted) if isinstance(wanted, str) else None
        return found or await self.options.get_model()

    async def _store_overrides(self, form: SdapiRequest) -> None:
        wanted = form.override_settings.get(CHECKPOINT)
        if isinstance(wanted, str) and await self.checkpoints.find(wanted) is None:
            form.override_settings.pop(CHECKPOINT)
        await self.options.update(form.override_settings)

    def endpoints(self) -> list[Endpoint]:
        return [
            Endpoint(
                "POST",
                "/sdapi/v1/txt2img",
                self.txt2img,
                "Paint from words, and wait for it",
                TAG,
                replies.GenerationReply,
                body=Txt2Img,
                errors=ERRORS,
            ),
            Endpoint(
                "POST",
                "/sdapi/v1/img2img",
                self.img2img,
                "Repaint a picture, and wait for it",
                TAG,
                replies.GenerationReply,
                body=Img2Img,
                errors=ERRORS,
            ),
        ]
