"""Sums that outlive the jobs they count: totals, history by the hour, and what pictures take, for `Store.run`."""

import sqlite3

from mflux_api.jobs.eta import Pace
from mflux_api.jobs.queue import BucketLength, HistoryBucket, Totals

HOUR = 3600
BUCKETS: dict[BucketLength, int] = {"hour": 1, "day": 24}


def add(
    db: sqlite3.Connection, now: float, *, pictures: int = 0, failures: int = 0, seconds: float | None = None
) -> None:
    """Count what ended now."""
    db.execute(
        """INSERT INTO history VALUES (?, ?, ?, ?) ON CONFLICT (hour) DO UPDATE SET
        pictures = pictures + excluded.pictures, failures = failures + excluded.failures,
        seconds = seconds + excluded.seconds""",
        (int(now // HOUR), pictures, failures, seconds or 0.0),
    )


def points(db: sqlite3.Connection, bucket: BucketLength, count: int, now: float) -> list[HistoryBucket]:
    """The last buckets, oldest first; the one that is not over yet is the last. Days are UTC's."""
    hours = BUCKETS[bucket]
    first = int(now // (HOUR * hours)) - count + 1
    rows = db.execute(
        """SELECT hour / ?, sum(pictures), sum(failures), sum(seconds) FROM history
        WHERE hour >= ? GROUP BY 1""",
        (hours, first * hours),
    )
    found = {row[0]: row for row in rows}
    numbers = range(first, first + count)
    return [_point(number * hours * HOUR, found.get(number)) for number in numbers]


def _point(start: float, row: sqlite3.Row | None) -> HistoryBucket:
    if row is None:
        return HistoryBucket(start=start)
    return HistoryBucket(start=start, pictures=row[1], failures=row[2], seconds=row[3])


# A new measurement counts for a third: it follows a machine that gets hot, and is not thrown by one slow run.
WEIGHT = 1 / 3


def learn(db: sqlite3.Connection, model: str, width: int, height: int, pace: Pace) -> Pace:
    """Remember a measurement, mixed with the earlier ones of this model and size; what they come to."""
    row = db.execute(
        f"""INSERT INTO paces VALUES (?, ?, ?, ?, ?, 1) ON CONFLICT (model, width, height) DO UPDATE SET
        step = step + (excluded.step - step) * {WEIGHT}, rest = rest + (excluded.rest - rest) * {WEIGHT},
        samples = samples + 1 RETURNING step, rest""",
        (model, width, height, pace.step, pace.rest),
    ).fetchone()
    return Pace(row["step"], row["rest"])


def all_paces(db: sqlite3.Connection) -> dict[tuple[str, int, int], Pace]:
    rows = db.execute("SELECT * FROM paces")
    return {(row["model"], row["width"], row["height"]): Pace(row["step"], row["rest"]) for row in rows}


def add_totals(db: sqlite3.Connection, **amounts: float) -> None:
    """Sums that outlive the jobs they count."""
    db.executemany(
        "INSERT INTO totals VALUES (?, ?) ON CONFLICT (name) DO UPDATE SET value = value + excluded.value",
        list(amounts.items()),
    )


def totals(db: sqlite3.Connection) -> Totals:
    sums = {row["name"]: row["value"] for row in db.execute("SELECT * FROM totals")}
    return Totals(
        generations=int(sums.get("generations", 0)),
        images=int(sums.get("images", 0)),
        failures=int(sums.get("failures", 0)),
        seconds=sums.get("seconds", 0.0),
    )
