"""The shapes of /api/v1: finished pictures."""

from typing import Literal

from pydantic import Field

from mflux_api.dialects.native.wire import Wire, picture_url, stamp
from mflux_api.jobs.job import Job


class PicturesQuery(Wire):
    limit: int = Field(100, ge=1, le=500, description="pictures to list; a few more may come: no job is cut in two")
    before: int | None = Field(None, ge=0, lt=2**63, description="`next` of the page before")
    search: str = Field("", max_length=1000, description="words that all occur in the prompt, in any order and case")
    model: str | None = Field(None, max_length=200, description="name of the model")


class PictureRow(Wire):
    """`url`: where it can be had as a file. `width` and `height` are its own, in pixels."""

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


class PictureList(Wire):
    """`next`: give it as `before` for the page after this one; null on the last. `total`: pictures on all pages."""

    pictures: list[PictureRow]
    next: int | None
    total: int


class PictureQuery(Wire):
    format: Literal["png", "jpeg", "webp"] = "png"
    quality: int = Field(90, ge=1, le=100, description="of JPEG and WebP")
    side: int | None = Field(None, ge=16, le=2048, description="scaled down until no side is longer, in pixels")


class Deleted(Wire):
    status: Literal["deleted"]


def rows(job: Job) -> list[PictureRow]:
    """A job's pictures, the last one first."""
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
            created_at=stamp(job.created) or "",
        )
        for index, picture in reversed(job.present.items())
    ]
