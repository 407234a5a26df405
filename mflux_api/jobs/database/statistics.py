"""Statistics that are kept when jobs are deleted: totals, hourly history, and paces. Functions for `Store.run`."""

import sqlite3

from mflux_api.jobs.eta import Pace
from mflux_api.jobs.queue import BucketLength, HistoryBucket, Totals

HOUR = 3600
BUCKETS: dict[BucketLength, int] = {"hour": 1, "day": 24}


def add(
    db: sqlite3.Connection, now: float, *, pictures: int = 0, failures: int = 0, seconds: float | None = None
) -> None:
    """Add to the history of the hour of `now`, in seconds since 1970."""
    db.execute(
        """INSERT INTO history VALUES (?, ?, ?, ?) ON CONFLICT (hour) DO UPDATE SET
        pictures = pictures + excluded.pictures, failures = failures + excluded.failures,
        seconds = seconds + excluded.seconds""",
        (int(now // HOUR), pictures, failures, seconds or 0.0),
    )


def points(db: sqlite3.Connection, bucket: BucketLength, count: int, now: float) -> list[HistoryBucket]:
    """Return the last `count` periods, oldest first. The last one has not ended yet. Days are in UTC."""
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


# Weight of a new measurement: follows a machine that gets hot, without a large change from one slow run.
WEIGHT = 1 / 3


def learn(db: sqlite3.Connection, model: str, width: int, height: int, pace: Pace) -> Pace:
    """Update the moving average of the pace of this model and size, and return it."""
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
    """Add amounts to the totals, by name."""
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
