"""/api/v1: request and reply models of jobs, and helpers for the other models."""

import base64
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mflux_api.jobs.job import Job, State, public_status

PROMPT_IN_LISTS = 200
Status = Literal["queued", "generating", "completed", "failed", "cancelled"]


class WireModel(BaseModel):
    model_config = ConfigDict(protected_namespaces=())


class Submitted(WireModel):
    """The reply to a new, retried or moved job. `position`: 1 is the next job, 0 means that it is not waiting."""

    job_id: str
    status: Status
    position: int


class Move(WireModel):
    position: int = Field(ge=1, description="1 is the next to be painted; beyond the end of the line is the last")


class Result(WireModel):
    images: list[str] = Field(description="PNG files in base64")
    seeds: list[int]
    timings: list[dict[str, float]] = Field(description="Of each picture, seconds by stage and in total")


class JobSummary(WireModel):
    id: str
    status: Status
    progress: float = Field(description="0 to 1")
    prompt: str
    model: str
    num_images: int
    created_at: str
    completed_at: str | None


class JobList(WireModel):
    """A page of jobs. `next`: the `before` of the next page; null on the last."""

    jobs: list[JobSummary]
    next: int | None
    total: int


class JobInputs(WireModel):
    """URLs of a job's input pictures, as they were sent."""

    source: str | None
    mask: str | None
    references: list[str]


class JobDetail(WireModel):
    """A job. `images`: the URL of each picture's file. `error`, `code`, `details`: why the job failed."""

    id: str
    status: Status
    progress: float
    position: int | None
    prompt: str
    model: str
    parameters: dict[str, Any]
    inputs: JobInputs
    result: Result | None
    images: list[str]
    error: str | None
    code: str | None
    details: dict[str, Any] | None
    attempts: int
    created_at: str
    started_at: str | None
    completed_at: str | None


class Cancelled(WireModel):
    status: Literal["cancelled"]


class JobsQuery(WireModel):
    status: Status | None = None
    limit: int = Field(50, ge=1, le=200)
    before: int | None = Field(None, ge=0, lt=2**63, description="`next` of the page before")


class JobQuery(WireModel):
    images: bool = Field(True, description="false leaves the pictures out of the result")


class StreamQuery(WireModel):
    preview: bool = Field(False, description="send small pictures of how it is coming along")


def format_time(seconds: float | None) -> str | None:
    """Format seconds since the epoch as ISO 8601 in UTC."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def build_summary(job: Job, progress: float) -> JobSummary:
    return JobSummary(
        id=job.id,
        status=public_status(job.state),
        progress=progress,
        prompt=shorten_prompt(job.request.prompt),
        model=job.model,
        num_images=len(job.request.seeds),
        created_at=format_time(job.created) or "",
        completed_at=format_time(job.finished),
    )


def shorten_prompt(prompt: str) -> str:
    return prompt if len(prompt) <= PROMPT_IN_LISTS else prompt[: PROMPT_IN_LISTS - 3] + "..."


def build_detail(job: Job, *, progress: float, position: int | None, pictures: Sequence[bytes] | None) -> JobDetail:
    """Build the detailed reply. `pictures`: PNG files for the result; None leaves them out."""
    result = None
    if job.state is State.COMPLETED or job.present:
        encoded = [base64.b64encode(data).decode("ascii") for data in pictures or ()]
        present = job.present.values()
        result = Result(
            images=encoded, seeds=[each.seed for each in present], timings=[each.timings for each in present]
        )
    return JobDetail(
        id=job.id,
        status=public_status(job.state),
        progress=progress,
        position=position,
        prompt=job.request.prompt,
        model=job.model,
        parameters=build_parameters(job),
        inputs=build_inputs(job),
        result=result,
        images=[picture_url(job, index) for index in job.present],
        error=job.error.message if job.error else None,
        code=job.error.code if job.error else None,
        details=job.error.details if job.error else None,
        attempts=job.attempts,
        created_at=format_time(job.created) or "",
        started_at=format_time(job.started),
        completed_at=format_time(job.finished),
    )


def picture_url(job: Job, index: int) -> str:
    return f"/api/v1/jobs/{job.id}/images/{index}"


def build_inputs(job: Job) -> JobInputs:
    urls = {name: f"/api/v1/jobs/{job.id}/inputs/{name}" for name in job.inputs.files_by_name}
    references = [url for name, url in urls.items() if name not in {"source", "mask"}]
    return JobInputs(source=urls.get("source"), mask=urls.get("mask"), references=references)


def build_parameters(job: Job) -> dict[str, Any]:
    """Return the parameters of a job. `guidance` is the value really used once there are pictures."""
    request = job.request
    used = job.pictures[0].guidance if job.pictures else request.guidance
    return {
        "prompt": request.prompt,
        "negative_prompt": request.negative_prompt,
        "model": job.model,
        "seed": request.seeds[0],
        "width": request.width,
        "height": request.height,
        "steps": request.steps,
        "guidance": used,
        "num_images": len(request.seeds),
        "references": len(job.inputs.references),
        "masked": job.inputs.mask is not None,
        "loras": [{"name": use.path.rsplit("/", 1)[-1], "scale": use.scale} for use in request.loras],
        **({} if job.inputs.source is None else {"image_strength": request.strength}),
        **({"prompt_upsampling": True, "upsampled_prompt": job.upsampled_prompt} if request.upsample else {}),
    }
