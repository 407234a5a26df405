"""Webhook deliveries, one row for each event of a job. Functions for `Store.run`."""

import json
import sqlite3
from collections.abc import Collection

from mflux_api.jobs.database.jobs import find
from mflux_api.jobs.queue import Delivery, DeliveryPage

FINAL = "jobs.state IN ('completed', 'failed', 'cancelled')"
# For each event, the condition that a job must meet before the event is sent.
HAPPENED = f"""(CASE deliveries.event
    WHEN 'start' THEN jobs.started IS NOT NULL WHEN 'output' THEN jobs.state = 'completed' ELSE {FINAL} END)"""


def due(
    db: sqlite3.Connection, now: float, sending: Collection[int], busy_hosts: Collection[str], limit: int
) -> list[Delivery]:
    """Return the oldest delivery to send now of each host, at most `limit`, oldest first.

    Leaves out the numbers `sending` and the hosts `busy_hosts`. Drops deliveries whose event can no longer happen.
    """
    db.execute(
        f"""UPDATE deliveries SET state = 'dropped' WHERE state = 'waiting' AND EXISTS (
        SELECT 1 FROM jobs WHERE jobs.id = deliveries.job AND {FINAL} AND NOT {HAPPENED})"""
    )
    rows = db.execute(
        f"""SELECT * FROM (
            SELECT deliveries.*, row_number() OVER (PARTITION BY host ORDER BY due, deliveries.number) AS turn
            FROM deliveries JOIN jobs ON jobs.id = deliveries.job
            WHERE deliveries.state = 'waiting' AND due <= ? AND {HAPPENED}
            AND deliveries.number NOT IN (SELECT value FROM json_each(?))
            AND host NOT IN (SELECT value FROM json_each(?))
        ) WHERE turn = 1 ORDER BY due, number LIMIT ?""",
        (now, json.dumps(list(sending)), json.dumps(list(busy_hosts)), limit),
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
        host=row["host"],
        event=row["event"],
        state=row["state"],
        attempts=row["attempts"],
        due=row["due"],
        status=row["status"],
        error=row["error"],
    )
