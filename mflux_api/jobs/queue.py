"""What a worker knows of a queue: any queue that keeps these promises can feed it (tests/jobs/contract.py)."""

from dataclasses import dataclass
from typing import Protocol

from mflux_api.jobs.job import Failure, Job
from mflux_api.request import Cut


@dataclass(frozen=True, kw_only=True)
class Progress:
    """Where a job stands: `step` of `steps` done in picture `image` (from 1) of `of`.

    `stage`: "loading" the model, "upsampling" the prompt, or "painting". `seconds`: the last step's. `preview`: a small
    PNG.
    """

    stage: str
    step: int
    steps: int
    image: int
    of: int
    seconds: float | None = None
    preview: bytes | None = None

    @property
    def fraction(self) -> float:
        """0 to 1, over all steps of all pictures; decoding counts as one, so that 1 means done."""
        return ((self.image - 1) * (self.steps + 1) + self.step) / (self.of * (self.steps + 1))


@dataclass(frozen=True, kw_only=True)
class Painted:
    """A finished picture: `data` is a PNG, `text` the generation data inside it, `index` counts from 0.

    `prompt`: what upsampling made of the job's prompt, None without.
    """

    index: int
    data: bytes
    text: str
    seed: int
    width: int
    height: int
    guidance: float
    timings: dict[str, float]
    prompt: str | None = None


class WorkQueue(Protocol):
    """Jobs for one worker.

    A claimed job belongs to its worker for as long as heartbeats come. Once it was cancelled, or given to another
    after silence, every verb of the first worker raises JobConflict and changes nothing.
    """

    async def claim(self) -> Job:
        """Wait for the next job; it is generating from now on."""

    async def heartbeat(self, job: Job) -> None:
        """Still at it."""

    async def progress(self, job: Job, progress: Progress) -> None:
        """Tell who listens. Nothing is written to disk."""

    async def picture(self, job: Job, painted: Painted) -> None:
        """Keep a picture: it is on disk when this returns."""

    async def finish(self, job: Job, last: Painted | None = None) -> None:
        """Completed, with the pictures kept so far, and this last one: all of it outlives a crash of the server when
        this returns, or nothing does. A power cut in the moment after may have the job painted again."""

    async def fail(self, job: Job, failure: Failure, *, again: bool) -> bool:
        """Failed; with `again`, back into the line while there are tries left. Whether it will be tried again."""

    async def release(self, job: Job) -> None:
        """Back into the line at its old place; this try does not count."""

    async def cut(self, job: Job) -> Cut:
        """Return once somebody wants the picture, or the whole job, ended with what there is of it; then again."""

    async def watched(self, job: Job) -> None:
        """Return once somebody looks at previews of this job."""

    async def cancelled(self, job: Job) -> None:
        """Return once the job is no longer this worker's."""
