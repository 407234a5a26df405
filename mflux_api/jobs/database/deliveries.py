"""Webhook deliveries, one row for each event of a job. Functions for `Store.run`."""

import sqlite3

from mflux_api.jobs.database.jobs import find
from mflux_api.jobs.queue import Delivery, DeliveryPage

BATCH = 20
FINAL = "jobs.state IN ('completed', 'failed', 'cancelled')"
# For each event, the condition that a job must meet before the event is sent.
HAPPENED = f"""(CASE deliveries.event
    WHEN 'start' THEN jobs.started IS NOT NULL WHEN 'output' THEN jobs.state = 'completed' ELSE {FINAL} END)"""


def due(db: sqlite3.Connection, now: float) -> list[Delivery]:
    """Return up to BATCH deliveries to send now, oldest first. Drops those whose event can no longer happen."""
    db.execute(
        f"""UPDATE deliveries SET state = 'dropped' WHERE state = 'waiting' AND EXISTS (
        SELECT 1 FROM jobs WHERE jobs.id = deliveries.job AND {FINAL} AND NOT {HAPPENED})"""
    )
    rows = db.execute(
        f"""SELECT deliveries.* FROM deliveries JOIN jobs ON jobs.id = deliveries.job
        WHERE deliveries.state = 'waiting' AND deliveries.due <= ? AND {HAPPENED}
        ORDER BY deliveries.due, deliveries.number LIMIT ?""",
        (now, BATCH),
    ).fetchall()
    return [_delivery(db, row) for row in rows]


def settle(db: sqlite3.Connection, number: int, *, state: str, next_try: float, status: int | None, error: str) -> None:
    db.execute(
        "UPDATE deliveries SET state = ?, attempts = attempts + 1, due = ?, status = ?, error = ? WHERE number = ?",
        (state, next_try, status, error or None, number),
    )


def page(db: sqlite3.Connection, state: str | None, before: int | None, limit: int) -> DeliveryPage:
    """Return deliveries with a number below `before`, of one state or of all, newest first, and their total."""
    chosen, given = ("state = ?", (state,)) if state else ("1", ())
    ceiling = before if before is not None else 2**62
    query = f"SELECT * FROM deliveries WHERE {chosen} AND number < ? ORDER BY number DESC LIMIT ?"
    rows = db.execute(query, (*given, ceiling, limit)).fetchall()
    total: int = db.execute(f"SELECT count(*) FROM deliveries WHERE {chosen}", given).fetchone()[0]
    return DeliveryPage([_delivery(db, row) for row in rows], total)


def _delivery(db: sqlite3.Connection, row: sqlite3.Row) -> Delivery:
    return Delivery(
        number=row["number"],
        job=find(db, row["job"]),
        event=row["event"],
        state=row["state"],
        attempts=row["attempts"],
        due=row["due"],
        status=row["status"],
        error=row["error"],
    )
