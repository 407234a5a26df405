"""Finished pictures of all jobs: search by page, and deletion of single pictures. Functions for `Store.run`."""

import sqlite3
from dataclasses import replace
from itertools import takewhile

from mflux_api.errors import JobConflict
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.database.serialization import to_job
from mflux_api.jobs.job import Job, PictureFile, State, find_picture, public_status
from mflux_api.jobs.queue import PicturePage, PictureSearch

LARGEST_NUMBER = 2**63 - 1


def page(db: sqlite3.Connection, search: PictureSearch, before: int | None, limit: int) -> PicturePage:
    """Return as many jobs as are needed for `limit` pictures, with numbers below `before`. Jobs are not split."""
    where, given = _where(search)
    found = f"FROM jobs INDEXED BY jobs_present WHERE {where}"
    (total,) = db.execute(f"SELECT coalesce(sum(present), 0) {found}", given).fetchone()
    below = (*given, LARGEST_NUMBER if before is None else before, limit + 1)
    counts = db.execute(f"SELECT number, present {found} AND number < ? ORDER BY number DESC LIMIT ?", below).fetchall()
    numbers = _enough(counts, limit)
    following = numbers[-1] if len(numbers) < len(counts) else None
    return PicturePage([_numbered(db, number) for number in numbers], following, total)


def _where(search: PictureSearch) -> tuple[str, tuple[str, ...]]:
    """Return the WHERE condition, which the index alone can answer, and its parameters."""
    words = sorted(word.casefold() for word in search.words)
    models = () if search.model is None else (search.model,)
    conditions = ["present > 0", *("model = ?" for _ in models), *("instr(folded, ?)" for _ in words)]
    return " AND ".join(conditions), (*models, *words)


def _enough(counts: list[sqlite3.Row], limit: int) -> list[int]:
    """Return the numbers of the first jobs that together have at least `limit` pictures, or of all.

    `counts`: rows of (number, present).
    """
    held = [0]
    for row in counts:
        held.append(held[-1] + row["present"])
    return [row["number"] for row, _ in takewhile(lambda pair: pair[1] < limit, zip(counts, held, strict=False))]


def _numbered(db: sqlite3.Connection, number: int) -> Job:
    return to_job(db.execute("SELECT * FROM jobs WHERE number = ?", (number,)).fetchone())


def delete(db: sqlite3.Connection, job_id: str, name: str) -> PictureFile:
    """Mark a picture as deleted and return it.

    Raises JobNotFound, PictureNotFound, and JobConflict while the job runs.
    """
    job = job_rows.find(db, job_id)
    if job.state is State.GENERATING:
        raise JobConflict("The job is being painted. Cancel it, or wait for its end.", status=public_status(job.state))
    index, picture = find_picture(job.pictures, name)
    gone = replace(picture, deleted=True)
    job_rows.name_pictures(db, job_id, (*job.pictures[:index], gone, *job.pictures[index + 1 :]))
    return picture
