"""/replicate/v1: jobs as predictions, for replies and for webhooks."""

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from mflux_api.errors import PictureNotFound
from mflux_api.jobs.job import Job, State
from mflux_api.jobs.service import JobService
from mflux_api.web.context import HttpContext
from mflux_api.wire.picture_urls import get_picture_urls

PREFIX = "/replicate/v1"
STATUS = {
    State.QUEUED: "starting",
    State.INTERRUPTED: "starting",
    State.GENERATING: "processing",
    State.COMPLETED: "succeeded",
    State.FAILED: "failed",
    State.CANCELLED: "canceled",
}


class Predictions:
    """Convert jobs to predictions. `base` is the URL of this server as the client knows it."""

    def __init__(self, service: JobService, context: HttpContext) -> None:
        self.service = service
        self.context = context

    async def describe(self, job: Job, base: str) -> dict[str, Any]:
        """Return the job as a prediction."""
        at = f"{base}{PREFIX}/predictions/{job.id}"
        model = job.request.note.get("model", job.model)
        output, removed = await self.get_output(job, base)
        return {
            "id": job.id,
            "model": model,
            "version": "hidden",
            "input": _build_input(job),
            "logs": "",
            "output": output,
            "data_removed": removed,
            "error": job.error.message if job.error else None,
            "source": "api",
            "status": STATUS[job.state],
            "created_at": _format_time(job.created),
            "started_at": _format_time(job.started),
            "completed_at": _format_time(job.finished),
            "urls": {"get": at, "cancel": f"{at}/cancel", "stream": f"{at}/stream", "web": at},
            "metrics": {} if job.seconds is None else {"predict_time": round(job.seconds, 3)},
        }

    async def webhook_payload(self, job: Job, base: str, event: str) -> dict[str, Any]:
        """Return the prediction as it was at the event, even if the webhook is sent later."""
        if event == "start":
            job = replace(job, state=State.GENERATING, pictures=(), error=None, finished=None)
        found = await self.describe(job, base)
        return {**found, "status": "processing", "completed_at": None, "metrics": {}} if event == "output" else found

    async def get_output(self, job: Job, base: str) -> tuple[list[str] | None, bool]:
        """Return the picture URLs, None unless the job is completed, and whether the pictures were deleted."""
        if job.state is not State.COMPLETED:
            return None, False
        form: Any = job.request.note.get("format", "png")
        try:
            return await get_picture_urls(self.service, self.context, job, base, form), False
        except PictureNotFound:
            return None, True


def _build_input(job: Job) -> dict[str, Any]:
    request = job.request
    return {
        "prompt": request.prompt,
        "width": request.requested_size[0],
        "height": request.requested_size[1],
        "num_inference_steps": request.steps,
        "num_outputs": len(request.seeds),
        "seed": request.seeds[0],
    }


def _format_time(moment: float | None) -> str | None:
    return None if moment is None else datetime.fromtimestamp(moment, UTC).isoformat().replace("+00:00", "Z")
