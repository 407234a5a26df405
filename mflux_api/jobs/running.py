"""The jobs being painted, in memory: the worker's claim on each, its progress, and the time it has left."""

import asyncio
import time
from dataclasses import dataclass, field

from mflux_api.errors import JobConflict
from mflux_api.jobs.eta import Paces
from mflux_api.jobs.job import Job, PictureFile
from mflux_api.jobs.queue import Progress, RunningJob
from mflux_api.request import EarlyStop

LEASE_SECONDS = 60.0


@dataclass
class Claim:
    """A worker's claim on a job until `deadline` (monotonic seconds), and the progress of the job.

    `preview`: the last one, a small PNG; `cuts`: those the worker has not heard of yet, `cut`: the last.
    """

    job: Job
    deadline: float
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    pictures: tuple[PictureFile, ...] = ()
    progress: Progress | None = None
    preview: bytes | None = None
    cuts: asyncio.Queue[EarlyStop] = field(default_factory=asyncio.Queue)
    cut: EarlyStop | None = None
    updated_at: float = 0.0

    def is_of(self, job: Job) -> bool:
        """Attempts alone would not tell: a release takes one back."""
        return (self.job.attempts, self.job.started) == (job.attempts, job.started)

    def update(self, progress: Progress) -> None:
        self.progress, self.updated_at = progress, time.monotonic()
        self.preview = progress.preview or self.preview

    def end_early(self, cut: EarlyStop) -> None:
        self.cut = cut
        self.cuts.put_nowait(cut)


class RunningJobs:
    """Claims last as long as heartbeats come. Clocks may be set back, so they are counted in monotonic seconds."""

    def __init__(self, paces: Paces, lease: float = LEASE_SECONDS) -> None:
        self.paces = paces
        self.lease = lease
        self.claims: dict[str, Claim] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def __len__(self) -> int:
        return len(self.claims)

    def __contains__(self, job_id: object) -> bool:
        return job_id in self.claims

    def add(self, job: Job) -> None:
        self.claims[job.id] = Claim(job, time.monotonic() + self.lease)
        self._empty.clear()

    def find(self, job_id: str) -> Claim | None:
        return self.claims.get(job_id)

    def find_owned(self, job: Job) -> Claim:
        """Raises JobConflict when the job is no longer the one this worker claimed."""
        claim = self.claims.get(job.id)
        if claim is None or not claim.is_of(job):
            raise JobConflict("The job is no longer this worker's.", job_id=job.id)
        return claim

    def renew(self, job: Job) -> Claim:
        claim = self.find_owned(job)
        claim.deadline = time.monotonic() + self.lease
        return claim

    def remove(self, job_id: str) -> None:
        """The job has left; its worker is told to stop."""
        claim = self.claims.pop(job_id, None)
        if claim is not None:
            claim.stop.set()
        if not self.claims:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until nothing is being painted."""
        await self._empty.wait()

    def silent(self) -> list[Claim]:
        """Claims whose workers have not been heard of for too long."""
        return [claim for claim in self.claims.values() if claim.deadline < time.monotonic()]

    def snapshot(self, claim: Claim) -> RunningJob:
        """The job as it stands now."""
        return RunningJob(
            job=claim.job,
            progress=claim.progress,
            preview=claim.preview,
            pictures=claim.pictures,
            cut=claim.cut,
            seconds_left=self._seconds_left(claim),
        )

    def _seconds_left(self, claim: Claim) -> float | None:
        """Seconds until it is done, from what earlier pictures took; None when nothing is known."""
        job, progress = claim.job, claim.progress
        if not job.request.is_one_pass:
            return _extrapolated(claim)
        known = self.paces.find(job.model, job.request.width, job.request.height)
        if known is None:
            return None
        total = len(job.request.seeds) * known.picture(job.steps)
        if progress is None or progress.stage != "painting":
            return total
        done = (progress.image - 1) * known.picture(progress.steps) + progress.step * known.step
        return max(0.0, total - done - (time.monotonic() - claim.updated_at))


def _extrapolated(claim: Claim) -> float | None:
    """What is left if it goes on as it went: passes of several sizes have no one pace."""
    fraction = 0.0 if claim.progress is None else claim.progress.fraction
    if fraction == 0.0 or claim.job.started is None:
        return None
    elapsed = max(0.0, time.time() - claim.job.started)
    return elapsed * (1 - fraction) / fraction
