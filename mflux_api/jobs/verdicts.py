"""What may become of a job: transactions that look first and then write, for `Store.run`."""

import sqlite3
import time
from collections.abc import Callable

from mflux_api.errors import JobConflict
from mflux_api.jobs import history, pace, rows
from mflux_api.jobs.job import FINAL, Failure, Job, PictureFile, State, shown
from mflux_api.jobs.pace import Pace
from mflux_api.jobs.rows import NewJob


def accept(db: sqlite3.Connection, new: NewJob, *, begin: bool) -> tuple[Job, Job | None]:
    """The new job, or the one accepted before under its key; and with `begin` the next in line, now generating.

    Raises JobConflict when the one accepted before asked for something else.
    """
    earlier = accepted(db, new)
    if earlier is not None:
        return earlier, None
    return rows.insert(db, new), rows.claim(db, time.time()) if begin else None


def accepted(db: sqlite3.Connection, new: NewJob) -> Job | None:
    """The job accepted before under the key of this one. Raises JobConflict when that asked for something else."""
    earlier = None if new.key is None else rows.find_key(db, new.owner, new.key)
    if earlier is not None and earlier.digest != new.digest:
        raise JobConflict("This Idempotency-Key was used with another request.", job_id=earlier.id)
    return earlier


def cancel(db: sqlite3.Connection, job_id: str, now: float, pictures: tuple[PictureFile, ...]) -> Job:
    """Raises JobConflict when it has completed or failed; a second cancel changes nothing."""
    job = rows.find(db, job_id)
    if job.state is State.CANCELLED:
        return job
    if job.state in FINAL:
        raise JobConflict(f"The job has already {PAST[job.state]}.", status=shown(job.state))
    return rows.change_state(db, job_id, State.CANCELLED, now=now, pictures=pictures)


def complete(
    db: sqlite3.Connection, job: Job, keep: Callable[[], tuple[PictureFile, ...]], *, learn: bool = True
) -> tuple[Job, Pace | None]:
    """Count it; with `learn`, what it took is a measure for others. Returns also what is known of its pace now.

    `keep` gives its pictures, on disk by then: a file comes before the row that names it. Raises JobConflict, before
    that, when another worker has the job by now.
    """
    _check_claim(db, job)
    pictures = keep()
    done = rows.change_state(db, job.id, State.COMPLETED, now=time.time(), pictures=pictures)
    rows.add_totals(db, generations=1, images=len(pictures), seconds=done.seconds or 0.0)
    history.add(db, done.finished or 0.0, pictures=len(pictures), seconds=done.seconds)
    if not (pictures and learn):
        return done, None
    return done, pace.learn(db, job.model, job.request.width, job.request.height, _measured(done))


def fail(db: sqlite3.Connection, job: Job, failure: Failure, pictures: tuple[PictureFile, ...]) -> Job:
    """Raises JobConflict when another worker has the job by now."""
    _check_claim(db, job)
    now = time.time()
    rows.add_totals(db, failures=1)
    history.add(db, now, failures=1)
    return rows.change_state(db, job.id, State.FAILED, now=now, error=failure, pictures=pictures)


def prune(db: sqlite3.Connection, before: float, keep_bytes: int) -> list[Job]:
    """Forget the finished jobs that are too old or too many; those whose files are to be deleted now."""
    stale = rows.stale(db, before, keep_bytes)
    rows.delete(db, [job.id for job in stale])
    return stale


PAST = {State.COMPLETED: "completed", State.FAILED: "failed"}


def _check_claim(db: sqlite3.Connection, job: Job) -> None:
    if tuple(rows.find_columns(db, job.id, "attempts, started, state")) != (job.attempts, job.started, job.state):
        raise JobConflict("The job is no longer this worker's.", job_id=job.id)


def _measured(job: Job) -> Pace:
    count = len(job.pictures)
    diffusion = sum(picture.timings["diffusion"] for picture in job.pictures) / count
    total = sum(picture.timings["total"] for picture in job.pictures) / count
    return Pace(diffusion / max(1, job.steps), total - diffusion)
