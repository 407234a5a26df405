"""/sdapi/v1 and /internal: report the progress of jobs, and end the running job early."""

import base64
import time
from collections.abc import Awaitable, Callable
from typing import Any

from pydantic import Field
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from mflux_api.dialects.sdapi.body import WrongKind, read_form, validate_form
from mflux_api.dialects.sdapi.errors import JSON, TAG
from mflux_api.dialects.sdapi.schema import LenientModel
from mflux_api.dialects.sdapi.task_ids import TaskIds
from mflux_api.jobs.job import Job
from mflux_api.jobs.queue import RunningJob
from mflux_api.jobs.service import JobService
from mflux_api.request import EarlyStop
from mflux_api.web.context import HttpContext
from mflux_api.web.openapi import Endpoint

# As in SD-WebUI, a running job is never at 0, which means idle.
FIRST_PROGRESS = 0.01
PENDING = 1000


class ProgressQuery(LenientModel):
    skip_current_image: bool = False


class TaskQuery(LenientModel):
    """A request for progress, as SD-WebUI's web page sends it."""

    id_task: str = ""
    id_live_preview: int = -1
    live_preview: bool = Field(True, description="false: without the picture")


class ProgressEndpoints:
    """Handlers about the running job. `first_preview`: returns the first step with a preview, None for no previews."""

    def __init__(
        self,
        service: JobService,
        context: HttpContext,
        tasks: TaskIds,
        first_preview: Callable[[], Awaitable[int | None]],
    ) -> None:
        self.service = service
        self.context = context
        self.tasks = tasks
        self.first_preview = first_preview

    async def get_progress(self, request: Request) -> Response:
        asked = validate_form(ProgressQuery, dict(request.query_params))
        active = self._get_active()
        if active is None:
            return JSONResponse(
                {
                    "progress": 0.0,
                    "eta_relative": 0.0,
                    "state": build_state(None),
                    "current_image": None,
                    "textinfo": None,
                }
            )
        preview = None if asked.skip_current_image else await self._encode_preview(active)
        return JSONResponse(
            {
                "progress": _progress_fraction(active),
                "eta_relative": _eta(active),
                "state": build_state(active),
                "current_image": preview,
                "textinfo": None,
            }
        )

    async def interrupt(self, request: Request) -> Response:
        """End the running job. Its reply has the finished pictures, and the current one in its unfinished state."""
        self.service.end_early(EarlyStop.INTERRUPT)
        return JSONResponse({})

    async def skip(self, request: Request) -> Response:
        self.service.end_early(EarlyStop.SKIP)
        return JSONResponse(None)

    async def ping(self, request: Request) -> Response:
        return JSONResponse({})

    async def list_pending_tasks(self, request: Request) -> Response:
        names = [self.tasks.get_name(job.id) for job in await self.service.queue.waiting_jobs(PENDING)]
        return JSONResponse({"size": len(names), "tasks": names})

    async def get_task_progress(self, request: Request) -> Response:
        asked = await read_form(self.context.body, request, TaskQuery)
        job = await self._find_job(asked.id_task)
        active = None if job is None else self.service.running_job(job.id)
        if active is None:
            return JSONResponse(_build_inactive_task(job, arriving=asked.id_task in self.tasks.arriving))
        preview = await self._encode_preview(active) if asked.live_preview else None
        return JSONResponse(
            {
                "active": True,
                "queued": False,
                "completed": False,
                "progress": _progress_fraction(active),
                "eta": _eta(active),
                # With the data: prefix here, because the web page uses it as the URL of an image.
                "live_preview": None if preview is None else f"data:image/png;base64,{preview}",
                "id_live_preview": -1 if preview is None else _steps_done(active),
                "textinfo": None,
            }
        )

    async def _find_job(self, name: str) -> Job | None:
        known = self.tasks.jobs.get(name)
        return None if known is None else await self.service.queue.get(known)

    def _get_active(self) -> RunningJob | None:
        return next(iter(self.service.queue.running_jobs()), None)

    async def _encode_preview(self, active: RunningJob) -> str | None:
        first = await self.first_preview()
        if first is None:
            return None
        self.service.queue.request_previews()
        shown = active.preview if active.progress and active.progress.step >= first else None
        return None if shown is None else base64.b64encode(shown).decode("ascii")

    def endpoints(self) -> list[Endpoint]:
        path = "/sdapi/v1/"
        shown = "How the running job stands"
        return [
            Endpoint(
                "GET", f"{path}progress", self.get_progress, shown, TAG, JSON, query=ProgressQuery, errors=(WrongKind,)
            ),
            Endpoint("POST", f"{path}interrupt", self.interrupt, "End the running job with what there is", TAG, JSON),
            Endpoint("POST", f"{path}skip", self.skip, "End the picture at hand with what there is", TAG, JSON),
            Endpoint("GET", "/internal/ping", self.ping, "Whether the server answers", TAG, JSON),
            Endpoint("GET", "/internal/pending-tasks", self.list_pending_tasks, "Tasks that wait", TAG, JSON),
            Endpoint(
                "POST",
                "/internal/progress",
                self.get_task_progress,
                shown,
                TAG,
                JSON,
                body=TaskQuery,
                errors=(WrongKind,),
            ),
        ]


def _progress_fraction(active: RunningJob) -> float:
    return round(min(1.0, FIRST_PROGRESS + active.fraction), 4)


def _eta(active: RunningJob) -> float:
    return round(active.seconds_left or 0.0, 2)


def _steps_done(active: RunningJob) -> int:
    progress = active.progress
    return 0 if progress is None else (progress.image - 1) * progress.steps + progress.step


def _build_inactive_task(job: Job | None, *, arriving: bool) -> dict[str, Any]:
    queued = arriving or (job is not None and not job.is_final)
    completed = job is not None and job.is_final
    return {
        "active": False,
        "queued": queued,
        "completed": completed,
        "progress": None,
        "eta": None,
        "live_preview": None,
        "id_live_preview": -1,
        "textinfo": "In queue..." if queued else "Waiting...",
    }


def build_state(active: RunningJob | None) -> dict[str, Any]:
    """Return `state` with all keys of SD-WebUI. An empty `job` means idle."""
    progress = active.progress if active else None
    job = active.job if active else None
    passes = 1 if job is None or job.request.hires is None else 2
    return {
        "skipped": active is not None and active.cut is EarlyStop.SKIP,
        "interrupted": active is not None and active.cut is EarlyStop.INTERRUPT,
        "stopping_generation": active is not None and active.cut is not None,
        "job": "" if job is None else ("scripts_img2img" if job.inputs.source else "scripts_txt2img"),
        "job_count": 0 if job is None else len(job.request.seeds) * passes,
        "job_timestamp": time.strftime("%Y%m%d%H%M%S", time.localtime(job.started if job else None)),
        "job_no": (progress.image - 1) * passes if progress else 0,
        "sampling_step": progress.step if progress else 0,
        "sampling_steps": (progress.steps if progress else job.request.steps) if job else 0,
    }
