"""The jobs being painted, in memory: whose they are, how far they are, how long they will take."""

import asyncio
import time
from dataclasses import dataclass, field

from mflux_api.errors import JobConflict
from mflux_api.jobs.eta import Paces
from mflux_api.jobs.job import Job, PictureFile, State, shown
from mflux_api.jobs.queue import Progress
from mflux_api.request import Cut

LEASE_SECONDS = 60.0


@dataclass
class Active:
    """A job, its worker's claim on it until `deadline` (monotonic seconds), and how far it is.

    `preview`: the last one, a small PNG; `cuts`: those its worker has not heard of yet, `cut`: the last.
    """

    job: Job
    deadline: float
    stop: asyncio.Event = field(default_factory=asyncio.Event)
    pictures: tuple[PictureFile, ...] = ()
    progress: Progress | None = None
    preview: bytes | None = None
    cuts: asyncio.Queue[Cut] = field(default_factory=asyncio.Queue)
    cut: Cut | None = None
    told: float = 0.0

    def is_of(self, job: Job) -> bool:
        """Attempts alone would not tell: a release takes one back."""
        return (self.job.attempts, self.job.started) == (job.attempts, job.started)

    @property
    def fraction(self) -> float:
        """0 to 1."""
        return 0.0 if self.progress is None else round(self.progress.fraction, 4)

    def tell(self, progress: Progress) -> None:
        self.progress, self.told = progress, time.monotonic()
        self.preview = progress.preview or self.preview

    def shorten(self, cut: Cut) -> None:
        self.cut = cut
        self.cuts.put_nowait(cut)


class Floor:
    """Claims last as long as heartbeats come. Clocks may be set back, so they are counted in monotonic seconds."""

    def __init__(self, paces: Paces, lease: float = LEASE_SECONDS) -> None:
        self.paces = paces
        self.lease = lease
        self.active: dict[str, Active] = {}
        self._empty = asyncio.Event()
        self._empty.set()

    def take(self, job: Job) -> None:
        self.active[job.id] = Active(job, time.monotonic() + self.lease)
        self._empty.clear()

    def owned(self, job: Job) -> Active:
        """Raises JobConflict when the job is no longer the one this worker claimed."""
        active = self.active.get(job.id)
        if active is None or not active.is_of(job):
            raise JobConflict("The job is no longer this worker's.", job_id=job.id)
        return active

    def renew(self, job: Job) -> Active:
        active = self.owned(job)
        active.deadline = time.monotonic() + self.lease
        return active

    def drop(self, job_id: str) -> None:
        """The job has left; its worker is told to stop."""
        active = self.active.pop(job_id, None)
        if active is not None:
            active.stop.set()
        if not self.active:
            self._empty.set()

    async def empty(self) -> None:
        """Return when nothing is being painted."""
        await self._empty.wait()

    def silent(self) -> list[Job]:
        """Jobs whose workers have not been heard of for too long."""
        return [active.job for active in self.active.values() if active.deadline < time.monotonic()]

    def remaining(self, active: Active) -> float | None:
        """Seconds until it is done, from what earlier pictures took; None when nothing is known."""
        job, progress = active.job, active.progress
        if not job.request.is_one_pass:
            return _extrapolated(active)
        known = self.paces.find(job.model, job.request.width, job.request.height)
        if known is None:
            return None
        total = len(job.request.seeds) * known.picture(job.steps)
        if progress is None or progress.stage != "painting":
            return total
        done = (progress.image - 1) * known.picture(progress.steps) + progress.step * known.step
        return max(0.0, total - done - (time.monotonic() - active.told))

    def data(self, active: Active) -> dict[str, object]:
        """What a progress event says."""
        request = active.job.request
        beginning = Progress(stage="loading", step=0, steps=request.steps, image=1, of=len(request.seeds))
        facts = vars(active.progress or beginning)
        counts = {name: facts[name] for name in ("stage", "step", "steps", "image", "of")}
        eta = self.remaining(active)
        return {
            "job_id": active.job.id,
            "status": shown(State.GENERATING),
            "progress": active.fraction,
            **counts,
            "eta": None if eta is None else round(eta, 2),
        }


def _extrapolated(active: Active) -> float | None:
    """What is left if it goes on as it went: passes of several sizes have no one pace."""
    if active.fraction == 0.0 or active.job.started is None:
        return None
    elapsed = max(0.0, time.time() - active.job.started)
    return elapsed * (1 - active.fraction) / active.fraction
