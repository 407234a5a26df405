"""Queries of jobs, and state transitions as read-check-write transactions. Functions for `Store.run`."""

import sqlite3
import time
from collections.abc import Callable, Iterable

from mflux_api.errors import JobConflict, JobNotFound
from mflux_api.jobs.database import statistics
from mflux_api.jobs.database.connection import url_host
from mflux_api.jobs.database.serialization import pack_error, pack_inputs, pack_pictures, pack_request, to_job
from mflux_api.jobs.eta import Pace
from mflux_api.jobs.job import FINAL, Failure, Job, PictureFile, State, check_transition, public_status
from mflux_api.jobs.queue import JobPage, NewJob

WAITING = "state IN ('queued', 'interrupted')"
# The index is forced, because SQLite would otherwise sort all waiting jobs to find the first.
LINE = f"jobs INDEXED BY jobs_line WHERE {WAITING}"
IN_ORDER = "ORDER BY priority DESC, place, number"
PICTURES = "pictures = ?, present = ?, size = ? + coalesce(json_extract(inputs, '$.size'), 0)"


def insert(db: sqlite3.Connection, new: NewJob) -> Job:
    columns = {
        "id": new.id,
        "state": State.QUEUED,
        "priority": new.priority,
        "held": new.held,
        "owner": new.owner,
        "key": new.key,
        "digest": new.digest,
        "model": new.model,
        "low_ram": new.low_ram,
        "request": pack_request(new.request),
        "inputs": pack_inputs(new.inputs),
        "created": new.created,
        "folded": new.request.prompt.casefold(),
    }
    if new.request.note.get("webhook"):
        host = url_host(new.request.note["webhook"])
        events = [(new.id, host, event) for event in new.request.note.get("events", "completed").split(",")]
        db.executemany("INSERT INTO deliveries (job, host, event, state, due) VALUES (?, ?, ?, 'waiting', 0)", events)
    names, marks = ", ".join(columns), ", ".join(f":{name}" for name in columns)
    db.execute(f"INSERT INTO jobs ({names}) VALUES ({marks})", columns)
    return to_job(db.execute("UPDATE jobs SET place = number WHERE id = ? RETURNING *", (new.id,)).fetchone())


def find(db: sqlite3.Connection, job_id: str) -> Job:
    return to_job(find_columns(db, job_id, "*"))


def find_columns(db: sqlite3.Connection, job_id: str, columns: str) -> sqlite3.Row:
    """Return the given columns of a job. Raises JobNotFound."""
    row: sqlite3.Row | None = db.execute(f"SELECT {columns} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    if row is None:
        raise JobNotFound(f"There is no job {job_id[:40]!r}.", job_id=job_id[:40])
    return row


def find_key(db: sqlite3.Connection, owner: str, key: str) -> Job | None:
    row = db.execute("SELECT * FROM jobs WHERE owner = ? AND key = ?", (owner, key)).fetchone()
    return None if row is None else to_job(row)


def claim(db: sqlite3.Connection, now: float) -> Job | None:
    """Set the next job to generating and return it; None when no job waits."""
    row = db.execute(
        f"""UPDATE jobs SET state = 'generating', attempts = attempts + 1, started = ?
        WHERE number = (SELECT number FROM {LINE} AND held = 0 {IN_ORDER} LIMIT 1)
        RETURNING *""",
        (now,),
    ).fetchone()
    return None if row is None else to_job(row)


def change_state(
    db: sqlite3.Connection,
    job_id: str,
    after: State,
    *,
    now: float | None = None,
    error: Failure | None = None,
    pictures: tuple[PictureFile, ...] = (),
) -> Job:
    """Change a job's state. `now`: the time it finished. Raises JobNotFound, and JobConflict unless ALLOWED has it."""
    check_transition(State(find_columns(db, job_id, "state")["state"]), after)
    row = db.execute(
        f"UPDATE jobs SET state = ?, finished = ?, error = ?, held = 0, {PICTURES} WHERE id = ? RETURNING *",
        (after, now, pack_error(error), *_named(pictures), job_id),
    ).fetchone()
    return to_job(row)


def name_pictures(db: sqlite3.Connection, job_id: str, pictures: tuple[PictureFile, ...]) -> Job:
    """Replace the job's list of pictures."""
    row = db.execute(f"UPDATE jobs SET {PICTURES} WHERE id = ? RETURNING *", (*_named(pictures), job_id)).fetchone()
    return to_job(row)


def _named(pictures: tuple[PictureFile, ...]) -> tuple[str, int, int]:
    sizes = [picture.size for picture in pictures if not picture.deleted]
    return pack_pictures(pictures), len(sizes), sum(sizes)


def reset(db: sqlite3.Connection, job_id: str, *, held: bool) -> Job:
    """Requeue a finished job with its attempts and webhook deliveries reset."""
    change_state(db, job_id, State.QUEUED)
    db.execute("UPDATE jobs SET attempts = 0, started = NULL, held = ? WHERE id = ?", (held, job_id))
    db.execute("UPDATE deliveries SET state = 'waiting', attempts = 0, due = 0 WHERE job = ?", (job_id,))
    return find(db, job_id)


def release(db: sqlite3.Connection, job_id: str) -> Job:
    """Requeue a running job and do not count its last start."""
    db.execute("UPDATE jobs SET attempts = attempts - 1 WHERE id = ?", (job_id,))
    return change_state(db, job_id, State.INTERRUPTED)


def unhold(db: sqlite3.Connection, models: Iterable[str]) -> None:
    db.executemany("UPDATE jobs SET held = 0 WHERE model = ?", [(model,) for model in models])


def waiting_jobs(db: sqlite3.Connection, limit: int) -> list[Job]:
    """Return the next waiting jobs, in queue order."""
    rows = db.execute(f"SELECT * FROM {LINE} {IN_ORDER} LIMIT ?", (limit,))
    return [to_job(row) for row in rows]


def held_jobs(db: sqlite3.Connection) -> list[Job]:
    return [to_job(row) for row in db.execute(f"SELECT * FROM jobs WHERE {WAITING} AND held = 1 ORDER BY number")]


def ids(db: sqlite3.Connection) -> set[str]:
    return {row[0] for row in db.execute("SELECT id FROM jobs")}


def in_state(db: sqlite3.Connection, state: State) -> list[Job]:
    return [to_job(row) for row in db.execute("SELECT * FROM jobs WHERE state = ? ORDER BY number", (state,))]


def page(db: sqlite3.Connection, states: tuple[State, ...], before: int | None, limit: int) -> JobPage:
    """Return jobs with a number below `before`, newest first. Empty `states` means all states."""
    chosen = f"state IN ({', '.join('?' * len(states))})" if states else "1"
    ceiling = before if before is not None else 2**62
    query = f"SELECT * FROM jobs WHERE {chosen} AND number < ? ORDER BY number DESC LIMIT ?"
    jobs = [to_job(row) for row in db.execute(query, (*states, ceiling, limit))]
    total: int = db.execute(f"SELECT count(*) FROM jobs WHERE {chosen}", states).fetchone()[0]
    return JobPage(jobs, total)


def save_value(db: sqlite3.Connection, name: str, value: str) -> None:
    db.execute("INSERT INTO kept VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = excluded.value", (name, value))


def load_value(db: sqlite3.Connection, name: str) -> str | None:
    row = db.execute("SELECT value FROM kept WHERE name = ?", (name,)).fetchone()
    return None if row is None else str(row["value"])


def stale(db: sqlite3.Connection, before: float, keep_bytes: int) -> list[Job]:
    """Return finished jobs to delete: those that ended before `before`, then the oldest until `keep_bytes` suffice.

    0 for `keep_bytes` means no limit.
    """
    old = "SELECT * FROM jobs WHERE finished IS NOT NULL AND finished < ?"
    # A running sum of the bytes of pictures and inputs, from the newest job down. Jobs beyond the limit are deleted.
    beyond = """SELECT * FROM jobs WHERE id IN (SELECT id FROM (
        SELECT id, sum(size) OVER (ORDER BY finished DESC, number DESC) AS total FROM jobs WHERE finished IS NOT NULL
    ) WHERE total > ?)"""
    rows = [*db.execute(old, (before,)), *(db.execute(beyond, (keep_bytes,)) if keep_bytes else ())]
    return list({row["id"]: to_job(row) for row in rows}.values())


def delete(db: sqlite3.Connection, ids: Iterable[str]) -> None:
    ids = list(ids)
    db.executemany("DELETE FROM deliveries WHERE job = ?", [(job_id,) for job_id in ids])
    db.executemany("DELETE FROM jobs WHERE id = ?", [(job_id,) for job_id in ids])


def accept(db: sqlite3.Connection, new: NewJob, *, begin: bool) -> tuple[Job, Job | None]:
    """Insert a job, or find the one accepted earlier under its key. With `begin`, claim the next job too.

    Returns the accepted job and the claimed job or None. Raises JobConflict when the earlier request was different.
    """
    earlier = find_accepted(db, new)
    if earlier is not None:
        return earlier, None
    return insert(db, new), claim(db, time.time()) if begin else None


def find_accepted(db: sqlite3.Connection, new: NewJob) -> Job | None:
    """Return the job accepted earlier under this job's key. Raises JobConflict when its request was different."""
    earlier = None if new.key is None else find_key(db, new.owner, new.key)
    if earlier is not None and earlier.digest != new.digest:
        raise JobConflict("This Idempotency-Key was used with another request.", job_id=earlier.id)
    return earlier


def cancel(db: sqlite3.Connection, job_id: str, now: float, pictures: tuple[PictureFile, ...]) -> Job:
    """Cancel a job. A second cancel changes nothing. Raises JobConflict when the job has completed or failed."""
    job = find(db, job_id)
    if job.state is State.CANCELLED:
        return job
    if job.state in FINAL:
        raise JobConflict(f"The job has already {PAST[job.state]}.", status=public_status(job.state))
    return change_state(db, job_id, State.CANCELLED, now=now, pictures=pictures)


def complete(
    db: sqlite3.Connection, job: Job, save_pictures: Callable[[], tuple[PictureFile, ...]], *, learn: bool = True
) -> tuple[Job, Pace | None]:
    """Mark a job as completed and return it; with `learn`, update the measured pace and return it too.

    `save_pictures` writes the picture files and returns them; a file is written before the row that names it. Raises
    JobConflict, before any file is written, when the job no longer belongs to this worker.
    """
    _check_claim(db, job)
    pictures = save_pictures()
    done = change_state(db, job.id, State.COMPLETED, now=time.time(), pictures=pictures)
    statistics.add_totals(db, generations=1, images=len(pictures), seconds=done.seconds or 0.0)
    statistics.add(db, done.finished or 0.0, pictures=len(pictures), seconds=done.seconds)
    if not (pictures and learn):
        return done, None
    return done, statistics.learn(db, job.model, job.request.width, job.request.height, _measured(done))


def fail(db: sqlite3.Connection, job: Job, failure: Failure, pictures: tuple[PictureFile, ...]) -> Job:
    """Mark a job as failed. Raises JobConflict when the job no longer belongs to this worker."""
    _check_claim(db, job)
    now = time.time()
    statistics.add_totals(db, failures=1)
    statistics.add(db, now, failures=1)
    return change_state(db, job.id, State.FAILED, now=now, error=failure, pictures=pictures)


def prune(db: sqlite3.Connection, before: float, keep_bytes: int) -> list[Job]:
    """Delete the rows of finished jobs beyond the limits. Returns these jobs, whose files must be deleted next."""
    expired = stale(db, before, keep_bytes)
    delete(db, [job.id for job in expired])
    return expired


PAST = {State.COMPLETED: "completed", State.FAILED: "failed"}


def _check_claim(db: sqlite3.Connection, job: Job) -> None:
    if tuple(find_columns(db, job.id, "attempts, started, state")) != (job.attempts, job.started, job.state):
        raise JobConflict("The job is no longer this worker's.", job_id=job.id)


def _measured(job: Job) -> Pace:
    count = len(job.pictures)
    diffusion = sum(picture.timings["diffusion"] for picture in job.pictures) / count
    total = sum(picture.timings["total"] for picture in job.pictures) / count
    return Pace(diffusion / max(1, job.steps), total - diffusion)
