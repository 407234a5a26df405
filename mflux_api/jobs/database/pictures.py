"""Finished pictures across all jobs: found by page and by prompt, deleted one by one. Statements for `Store.run`."""

import sqlite3
from dataclasses import dataclass, replace
from itertools import takewhile

from mflux_api.errors import JobConflict, PictureNotFound
from mflux_api.jobs.database import jobs as job_rows
from mflux_api.jobs.database.serialization import to_job
from mflux_api.jobs.job import Job, PictureFile, State, shown

LARGEST_NUMBER = 2**63 - 1


@dataclass(frozen=True, kw_only=True)
class Search:
    """Which pictures: of a model of this name, and with each of these words somewhere in the prompt, in any case."""

    words: frozenset[str] = frozenset()
    model: str | None = None

    def where(self) -> tuple[str, tuple[str, ...]]:
        """The condition, answered from the index alone, and what it is filled with."""
        words = sorted(word.casefold() for word in self.words)
        models = () if self.model is None else (self.model,)
        conditions = ["present > 0", *("model = ?" for _ in models), *("instr(folded, ?)" for _ in words)]
        return " AND ".join(conditions), (*models, *words)


@dataclass(frozen=True)
class Page:
    """Jobs with pictures, newest first. `following`: number to go on below; `total`: pictures on all pages."""

    jobs: list[Job]
    following: int | None
    total: int


def page(db: sqlite3.Connection, search: Search, before: int | None, limit: int) -> Page:
    """As many whole jobs as it takes for `limit` pictures, those numbered below `before` only."""
    where, filled = search.where()
    found = f"FROM jobs INDEXED BY jobs_present WHERE {where}"
    (total,) = db.execute(f"SELECT coalesce(sum(present), 0) {found}", filled).fetchone()
    below = (*filled, LARGEST_NUMBER if before is None else before, limit + 1)
    counts = db.execute(f"SELECT number, present {found} AND number < ? ORDER BY number DESC LIMIT ?", below).fetchall()
    numbers = _enough(counts, limit)
    following = numbers[-1] if len(numbers) < len(counts) else None
    return Page([_numbered(db, number) for number in numbers], following, total)


def _enough(counts: list[sqlite3.Row], limit: int) -> list[int]:
    """The first of these (number, pictures) that hold so many pictures together."""
    held = [0]
    for row in counts:
        held.append(held[-1] + row["present"])
    return [row["number"] for row, _ in takewhile(lambda pair: pair[1] < limit, zip(counts, held, strict=False))]


def _numbered(db: sqlite3.Connection, number: int) -> Job:
    return to_job(db.execute("SELECT * FROM jobs WHERE number = ?", (number,)).fetchone())


def pick(pictures: tuple[PictureFile, ...], name: str) -> tuple[int, PictureFile]:
    """The picture that a client names by its index. Raises PictureNotFound."""
    if name not in map(str, range(len(pictures))):
        raise PictureNotFound(f"This job has {len(pictures)} pictures, counted from 0.", pictures=len(pictures))
    if pictures[int(name)].deleted:
        raise PictureNotFound("This picture was deleted.", pictures=len(pictures))
    return int(name), pictures[int(name)]


def delete(db: sqlite3.Connection, job_id: str, name: str) -> PictureFile:
    """From now on the job does without this picture. Raises JobNotFound, PictureNotFound; JobConflict while it runs."""
    job = job_rows.find(db, job_id)
    if job.state is State.GENERATING:
        raise JobConflict("The job is being painted. Cancel it, or wait for its end.", status=shown(job.state))
    index, picture = pick(job.pictures, name)
    gone = replace(picture, deleted=True)
    job_rows.name_pictures(db, job_id, (*job.pictures[:index], gone, *job.pictures[index + 1 :]))
    return picture
