"""The harness that `WorkQueueContract` needs around a queue, and the verbs of `WorkQueue`."""

from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AbstractContextManager
from typing import Protocol

import pytest

from mflux_api.errors import JobConflict
from mflux_api.jobs.job import Job
from mflux_api.jobs.queue import WorkQueue
from mflux_api.request import EarlyStop
from tests.support.jobs import BROKEN, PROGRESS, make_painted


class QueueHarness(Protocol):
    """A queue under test, with the actions of its clients, its files and the lease of its claims."""

    @property
    def queue(self) -> WorkQueue: ...

    @property
    def tries(self) -> int:
        """How many times a job is started before it fails."""

    async def submit(self, *, priority: int = 0) -> str:
        """Submit a job and return its id."""

    async def cancel(self, job_id: str) -> None: ...

    async def move(self, job_id: str, position: int) -> None:
        """Move a waiting job to this position; 1 is the next to be claimed."""

    def cut(self, job_id: str, how: EarlyStop) -> None:
        """End the picture being painted (SKIP) or the whole job (INTERRUPT) early, keeping what is painted."""

    def watch_previews(self, job_id: str | None) -> AbstractContextManager[None]:
        """Watch the previews of a job, or of all jobs with None, for the length of a block."""

    async def get_job(self, job_id: str) -> Job: ...

    def set_lease(self, seconds: float) -> None:
        """Set the lease in seconds of later claims and heartbeats."""

    def disk_state(self) -> object:
        """A snapshot of the disk, equal to an earlier one if nothing was written since."""

    def read_picture(self, file: str) -> bytes:
        """The bytes of a picture, read as a client reads them."""

    def read_stored_pictures(self, job_id: str) -> list[bytes]:
        """The bytes of every picture file of a job on disk, whether or not its row lists it."""


Opening = Callable[[], AbstractAsyncContextManager[QueueHarness]]
Verb = Callable[[WorkQueue, Job], Awaitable[object]]

LONG = 60.0
# Expires at once, but is long enough that a waiting claim does not spin.
SHORT = 0.01
VERBS: dict[str, Verb] = {
    "heartbeat": lambda queue, job: queue.heartbeat(job),
    "progress": lambda queue, job: queue.progress(job, PROGRESS),
    "picture": lambda queue, job: queue.picture(job, make_painted(0, b"too late")),
    "finish": lambda queue, job: queue.finish(job),
    "fail": lambda queue, job: queue.fail(job, BROKEN, again=False),
    "fail again": lambda queue, job: queue.fail(job, BROKEN, again=True),
    "release": lambda queue, job: queue.release(job),
    "finish with a picture": lambda queue, job: queue.finish(job, make_painted(1, b"late")),
    "cut": lambda queue, job: queue.next_early_stop(job),
    "watched": lambda queue, job: queue.wait_for_viewer(job),
}
every_verb = pytest.mark.parametrize("verb", VERBS.values(), ids=VERBS.keys())


async def submit_and_claim(shop: QueueHarness) -> Job:
    await shop.submit()
    return await shop.queue.claim()


async def claim_after_takeover(shop: QueueHarness) -> tuple[Job, Job]:
    """Let a lease expire and claim again. Returns the job as the first and as the second worker know it."""
    shop.set_lease(SHORT)
    first = await submit_and_claim(shop)
    return first, await shop.queue.claim()


async def assert_refused(shop: QueueHarness, job: Job, verb: Verb) -> None:
    before, kept, written = await shop.get_job(job.id), shop.read_stored_pictures(job.id), shop.disk_state()
    with pytest.raises(JobConflict):
        await verb(shop.queue, job)
    assert (await shop.get_job(job.id), shop.read_stored_pictures(job.id), shop.disk_state()) == (before, kept, written)
