"""Running jobs, in memory: the worker's claim on each, its progress, and the estimated time left."""

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
    """A worker's claim on a job, valid until `deadline` (monotonic seconds), and the job's progress.

    `stop`: set when the job leaves. `preview`: the latest one, a small PNG. `cuts`: early stops that the worker has
    not read yet. `cut`: the latest early stop.
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
        """Return whether this is the claim on this start of the job.

        `attempts` alone is not enough, because a release lowers it again.
        """
        return (self.job.attempts, self.job.started) == (job.attempts, job.started)

    def update(self, progress: Progress) -> None:
        self.progress, self.updated_at = progress, time.monotonic()
        self.preview = progress.preview or self.preview

    def end_early(self, cut: EarlyStop) -> None:
        self.cut = cut
        self.cuts.put_nowait(cut)


class RunningJobs:
    """Claims on running jobs. Each expires `lease` seconds after its last heartbeat.

    Deadlines use monotonic time, because the system clock may be set back.
    """

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
        """Return the worker's claim on a job. Raises JobConflict when the job no longer belongs to this worker."""
        claim = self.claims.get(job.id)
        if claim is None or not claim.is_of(job):
            raise JobConflict("The job is no longer this worker's.", job_id=job.id)
        return claim

    def renew(self, job: Job) -> Claim:
        claim = self.find_owned(job)
        claim.deadline = time.monotonic() + self.lease
        return claim

    def remove(self, job_id: str) -> None:
        """Remove a job and signal its worker to stop."""
        claim = self.claims.pop(job_id, None)
        if claim is not None:
            claim.stop.set()
        if not self.claims:
            self._empty.set()

    async def wait_empty(self) -> None:
        """Wait until no job is running."""
        await self._empty.wait()

    def silent(self) -> list[Claim]:
        """Return the claims whose heartbeats are overdue."""
        return [claim for claim in self.claims.values() if claim.deadline < time.monotonic()]

    def snapshot(self, claim: Claim) -> RunningJob:
        """Return the job's current state as a `RunningJob`."""
        return RunningJob(
            job=claim.job,
            progress=claim.progress,
            preview=claim.preview,
            pictures=claim.pictures,
            cut=claim.cut,
            seconds_left=self._seconds_left(claim),
        )

    def _seconds_left(self, claim: Claim) -> float | None:
        """Estimate the seconds left from the pace of earlier pictures; None when no estimate is possible."""
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
    """Estimate the seconds left from this job's progress alone, for jobs whose passes differ in size."""
    fraction = 0.0 if claim.progress is None else claim.progress.fraction
    if fraction == 0.0 or claim.job.started is None:
        return None
    elapsed = max(0.0, time.time() - claim.job.started)
    return elapsed * (1 - fraction) / fraction
