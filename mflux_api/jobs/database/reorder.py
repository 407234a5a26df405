"""Move a waiting job within the queue. Functions for `Store.run`.

A job's place is its number until it is moved; then it is a value between the places of its new neighbours. It is always
below the number of the next submission, so later jobs come behind it and no other row is written.
"""

import math
import sqlite3
from typing import TypeAlias

from mflux_api.errors import JobConflict
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.job import WAITING, Job, public_status
from mflux_api.jobs.waiting import QueuePosition

POSITION = "id, priority, place, number"
Neighbours: TypeAlias = tuple[QueuePosition | None, QueuePosition | None]


def move(db: sqlite3.Connection, job_id: str, position: int) -> list[QueuePosition]:
    """Move a waiting job to a position. 1 is the next job; a position beyond the end is the last.

    The job's priority becomes the nearest one that the position allows. Returns the new positions of all jobs whose
    place changed, the job itself last. Raises JobNotFound, and JobConflict for a job that is not waiting.
    """
    job = job_rows.find(db, job_id)
    if job.state not in WAITING:
        raise JobConflict("Only waiting jobs have a place in the line.", status=public_status(job.state))
    neighbours, spread = _neighbours(db, job, position), list[QueuePosition]()
    priority = _allowed(job.priority, neighbours)
    place = _place(db, priority, neighbours)
    if place is None:
        spread = _spread(db, priority)
        place = _place(db, priority, _neighbours(db, job, position))
    db.execute("UPDATE jobs SET priority = ?, place = ? WHERE id = ?", (priority, place, job_id))
    moved = db.execute(f"SELECT {POSITION} FROM jobs WHERE id = ?", (job_id,)).fetchone()
    return [*spread, QueuePosition(*moved)]


def _neighbours(db: sqlite3.Connection, job: Job, position: int) -> Neighbours:
    """Return the jobs before and after the new position."""
    (others,) = db.execute(f"SELECT count(*) FROM {job_rows.LINE} AND id != ?", (job.id,)).fetchone()
    ahead = min(position - 1, others)
    query = f"SELECT {POSITION} FROM {job_rows.LINE} AND id != ? {job_rows.IN_ORDER} LIMIT ? OFFSET ?"
    found = [QueuePosition(*row) for row in db.execute(query, (job.id, 2 if ahead else 1, max(0, ahead - 1)))]
    before = found.pop(0) if ahead else None
    return before, found[0] if found else None


def _allowed(priority: int, neighbours: Neighbours) -> int:
    before, after = neighbours
    at_least = priority if after is None else max(priority, after.priority)
    return at_least if before is None else min(at_least, before.priority)


def _place(db: sqlite3.Connection, priority: int, neighbours: Neighbours) -> float | None:
    """Return a place between the neighbours of this priority; None if no float lies between theirs."""
    before, after = neighbours
    low = before.place if before is not None and before.priority == priority else -math.inf
    high = after.place if after is not None and after.priority == priority else _next_number(db)
    middle = high - 1 if low == -math.inf else (low + high) / 2
    return middle if low < middle < high else None


def _spread(db: sqlite3.Connection, priority: int) -> list[QueuePosition]:
    """Assign whole numbers to the places of all jobs of a priority, in their order, and return the new positions.

    Running jobs are included, because they may be requeued.
    """
    unfinished = f"({job_rows.WAITING} OR state = 'generating') AND priority = ?"
    found = db.execute(f"SELECT {POSITION} FROM jobs WHERE {unfinished} {job_rows.IN_ORDER}", (priority,))
    positions = [QueuePosition(*row) for row in found]
    first = _next_number(db) - len(positions)
    spread = [each._replace(place=float(first + index)) for index, each in enumerate(positions)]
    db.executemany("UPDATE jobs SET place = ? WHERE id = ?", [(each.place, each.id) for each in spread])
    return spread


def _next_number(db: sqlite3.Connection) -> int:
    (last,) = db.execute("SELECT seq FROM sqlite_sequence WHERE name = 'jobs'").fetchone()
    return int(last) + 1
